"""What the defence does to whom, and whether its guardian keeps up."""

from __future__ import annotations

from typing import Final

from infra.grafana.panels import TASK, Panel, Query, Row, none_is_zero, quantiles, rate

_HELD: Final = f'{TASK},outcome=~"anomalous|over_share|quarantined"'

DEFENCE: Final = Row(
    "6. Defence: who is held off",
    [
        Panel(
            "Held off",
            "Updates a second that were refused as anomalous, beyond their device's share, or of a device in "
            "quarantine. `fluvial devices` names the devices.",
            "cps",
            [
                Query(
                    none_is_zero(rate("fluvial_verdicts_total", _HELD, "region, outcome")),
                    "{{region}} {{outcome}}",
                )
            ],
            minimum=0,
        ),
        Panel(
            "Versions without a guide",
            "1 while the newest version names no guide, or the next one waits for one; nothing where the policy is not "
            "guided.",
            "none",
            [Query(f"max(fluvial_unguided{{{TASK}}})", "unguided")],
            minimum=0,
            maximum=1,
            thresholds=((1, "red"),),
        ),
        Panel(
            "Age of the guide",
            "How many versions older than the newest version its guide is.",
            "none",
            [Query(f"max(fluvial_guide_age_versions{{{TASK}}})", "versions")],
            minimum=0,
        ),
        Panel(
            "Duration of a guide",
            "From loading a version until its guide is published.",
            "s",
            quantiles("fluvial_guide_seconds"),
            minimum=0,
        ),
        Panel(
            "Errors: no guide made",
            "Versions of which a guardian could make no guide, by the error.",
            "cps",
            [Query(none_is_zero(rate("fluvial_guide_failures_total", TASK, "error_id")), "{{error_id}}")],
            minimum=0,
        ),
        Panel(
            "Errors: guides not taken",
            "Records of the guides topic that mergers do not take, by the reason: forged, of another base, damaged.",
            "cps",
            [Query(none_is_zero(rate("fluvial_guides_refused_total", TASK, "reason")), "{{reason}}")],
            minimum=0,
        ),
    ],
)
