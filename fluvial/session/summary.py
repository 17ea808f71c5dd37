"""What a run is summed up to, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from aggregation.errors import EnvironmentProblem, UsageProblem
from aggregation.fold.rejections import ACCEPTED, RejectionReason
from fluvial.reading.progress import sparkline
from fluvial.reading.quality import in_digits
from fluvial.reading.spending import spending_line
from schemas.refusals import judged_of
from schemas.task_metric import ACCURACY, LOSS, way_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fluvial.reading.quality import Quality
    from fluvial.session.aim import Aim
    from fluvial.session.plan import Defended, RunResult
    from fluvial.terminal.output import Output

STDOUT: Final = "-"
_HASH_SHOWN: Final = 16


def document(result: RunResult) -> dict[str, Any]:
    """The run as one JSON document. Times in seconds; ``metrics`` is every number of the task's own from version 1 on.

    ``accuracy`` and ``loss`` are two of them: they were all there was, and stay.
    """
    quality = result.quality
    curves = {name: [round(value, 6) for _, value in quality.curve(name)] for name in quality.names}
    outcomes = result.facts.outcomes()
    return {
        "task": result.task,
        "versions": result.rows[-1].version,
        "metric": quality.document(),
        "until": result.plan.aim.document(quality),
        "metrics": curves,
        ACCURACY: curves.get(ACCURACY, []),
        LOSS: curves.get(LOSS, []),
        "updates_accepted": outcomes.get(ACCEPTED, 0),
        "published": result.updates_published,
        "published_before": result.published_before,
        "first_version": result.plan.first_version,
        "settings": dict(result.plan.given),
        "dead_end": None if result.dead_end is None else dataclasses.asdict(result.dead_end),
        "verdicts": outcomes,
        "honest_refused": dict(result.honest_refused),
        "defence": {name: dataclasses.asdict(one) for name, one in result.defended.items()},
        "verdicts_missing": len(result.missing),
        "verdicts_conflicting": len(result.facts.conflicts),
        "failed_rounds": result.facts.failed_rounds.document(),
        "seconds": round(result.seconds, 3),
        "training_seconds": round(result.training_seconds, 3),
        "updates_per_second": round(result.updates_per_second, 3),
        "audit": {
            "versions": result.audit.versions,
            "identical": result.audit.identical,
            "digest": result.audit.digest,
            "findings": result.audit.findings.total,
        },
        "cost": result.spending,
        "store": result.settings.store.kind,
        "model": result.model_place,
        "model_sha256": result.rows[-1].manifest.model_sha256,
        "best_model": _best_model(result),
        "genesis_sha256": result.task_file.genesis_sha256,
        "chaos": [dataclasses.asdict(strike) for strike in result.strikes],
        "plan": {
            "devices": result.plan.devices,
            "attackers": result.plan.attackers,
            "misbehaving": result.plan.misbehaving,
            "regions": dict(result.plan.regions),
            "workers": result.plan.workers,
            "seed": result.plan.seed,
        },
        "notes": result.notes,
    }


def _best_model(result: RunResult) -> dict[str, Any] | None:
    """The best version by the task's metric, and where it lies; None where none above 0 was evaluated."""
    best = result.quality.best()
    if best is None or not 0 < best[0] <= len(result.rows):
        return None
    version, value = best
    sha256 = result.rows[version - 1].manifest.model_sha256
    return {"version": version, "value": value, "model": result.place_of(version), "model_sha256": sha256}


def check_report_folder(folder: Path | None) -> None:
    """Make the folder of the report before the run, so that an hour of training is not lost to a typing error.

    Raises EnvironmentProblem: FLV-6308.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
        reason = "it may not be written"
    except OSError as error:
        writable, reason = False, error.strerror or str(error)
    if not writable:
        raise EnvironmentProblem(
            "FLV-6308",
            f"the report cannot be written: {reason}",
            where=str(folder),
            hint="choose another folder with `--report DIR`",
        )


def check_json_target(target: str | None) -> None:
    """Refuse a ``--json FILE`` that could not be written, before the run and not after it.

    Raises UsageProblem: FLV-6307.
    """
    if target is None or target == STDOUT:
        return
    path = Path(target)
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
        raise UsageProblem(
            "FLV-6307",
            f"--json: expected a file that can be written, {path} {what}",
            hint="or `--json -` for stdout",
        )


def write_json(target: str, result: RunResult, output: Output) -> None:
    """Write the document to a file, or as the one document on stdout.

    Raises EnvironmentProblem: FLV-6307.
    """
    if target == STDOUT:
        output.document(document(result))
        return
    try:
        Path(target).write_text(
            json.dumps(document(result), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-6307",
            f"--json: {target} cannot be written: {error.strerror or error}",
            hint="name another file",
        ) from error


def summarize(result: RunResult, output: Output, *, report: Path | None, command: str = "fluvial") -> None:
    """The last lines of a run: curve, verdicts, where the model is, how to verify it, where to look."""
    head = result.rows[-1]
    output.print()
    for line, style in quality_lines(result.quality, head.version):
        output.print(line, style=style)
    for line in aim_lines(result.plan.aim, result.quality):
        output.print(line)
    output.print()
    _verdicts(result, output)
    output.print()
    refused = judged_of(result.facts.outcomes()).refused
    output.print(
        f"updates    {result.updates_published} published, {refused} of them refused, "
        f"{result.updates_per_second:.1f} a second; {len(result.missing)} without a verdict"
    )
    honest = honest_refused_line(result.honest_refused)
    if honest:
        output.print(f"           {honest}")
    for line in defence_lines(result.defended):
        output.print(line)
    for cause in result.facts.failed_rounds.causes:
        output.print(f"failed     {cause.line()}")
    if result.strikes:
        names = ", ".join(_times(Counter(strike.name for strike in result.strikes)))
        output.print(f"chaos      {len(result.strikes)} times killed with -9 and started again: {names}")
    for note in result.notes:
        output.print(f"note       {note}")
    identical = (
        "identical, bit for bit" if result.audit.identical else f"{result.audit.findings.total} differences"
    )
    output.print(f"audit      {result.audit.versions} versions recomputed from the logs: {identical}")
    if line := spending_line(result.spending, result.quality.name):
        output.print(f"cost       {line}")
    output.print(f"time       {result.seconds:.0f} s, {result.training_seconds:.0f} s of it training")
    output.print()
    _models(result, output, report=report, command=command)
    if report is not None:
        output.print(f"report     {report}")
    output.print(f"verify     {command} audit --task {result.task}")
    output.print(f"look       {command} lineage {head.version} --task {result.task}    which updates made it")
    output.print(f"           {command} verdicts --task {result.task}      what became of each update")
    output.print(f"           {command} console              the same as live pages")
    output.print(f"stop       {command} down    Kafka and the store still run, for the commands above")


def _models(result: RunResult, output: Output, *, report: Path | None, command: str) -> None:
    """Where the last version and the best one are."""
    head = result.rows[-1]
    output.print(f"model      {result.model_place}")
    output.print(f"           sha256 {head.manifest.model_sha256}")
    output.print(
        f"           {command} model get --task {result.task} --version {head.version}    as a file for torch"
    )
    if report is not None:
        output.print(f"           also {report.with_name('model.safetensors')}")
    best = result.quality.best()
    if best is not None and 0 < best[0] < head.version:
        output.print(f"best       version {best[0]}: {result.place_of(best[0])}")
        output.print(f"           {command} model get --task {result.task} --version {best[0]}")


def honest_refused_line(refused: Mapping[str, int]) -> str:
    """Who was refused although its device followed the rules, in words; empty when nobody was."""
    if not refused:
        return ""
    named = ", ".join(f"{count} {outcome}" for outcome, count in sorted(refused.items()))
    why = {
        RejectionReason.ANOMALOUS.outcome: "an outlier's update is refused whoever sent it (defence.* in the policy)",
        RejectionReason.OVER_SHARE.outcome: "a device has its share of each version (shares.* in the policy)",
        RejectionReason.QUARANTINED.outcome: "most of a device's last updates were outliers (defence.quarantine_*)",
        RejectionReason.ROUND_OVER.outcome: "a slow device's round was over (buffer.mode in the policy)",
        RejectionReason.TOO_STALE.outcome: "a slow device's base was too old (staleness.versions_max in the policy)",
    }
    reasons = "; ".join(why[outcome] for outcome in sorted(refused) if outcome in why)
    return f"{named} although their devices are honest{f': {reasons}' if reasons else ''}"


def defence_lines(defended: Mapping[str, Defended]) -> list[str]:
    """What the defence did to attackers and to the honest; nothing where nobody attacked."""
    attacks, honest = defended["attacks"], defended["honest"]
    if not attacks.updates:
        return []
    return [
        f"{head} {one.refused} of {one.updates} refused ({100 * one.refused_share:.1f} %), what counts of them weighs "
        f"{one.weight:.2f} an update"
        for head, one in (("defence    attacks:", attacks), ("           honest: ", honest))
    ]


def quality_lines(quality: Quality, versions: int) -> list[tuple[str, str]]:
    """The metric at the end, its curve and the best version, as (line, style)."""
    curve, best = quality.curve(), quality.best()
    if not curve or best is None or quality.metric is None:
        return [(f"versions   {versions}", "bold")]
    values = [value for _, value in curve]
    label = quality.name.ljust(10)
    lines = [
        (f"{label} {in_digits(values[-1])} after {versions} versions", "bold"),
        (f"           {sparkline(values, 60)}  {in_digits(values[0], 3)} → {in_digits(values[-1], 3)}", ""),
    ]
    if best[1] != values[-1]:
        way = way_of(quality.metric)
        lines.append((f"           best {in_digits(best[1])} at version {best[0]} ({way} is better)", ""))
    return lines


def aim_lines(aim: Aim, quality: Quality) -> list[str]:
    """Whether what the run was to reach was reached."""
    if aim.until is None:
        return []
    reached = aim.reached(quality)
    if reached is None:
        return [f"until      {aim.in_words()} is not reached; more versions: `--continue --versions N`"]
    return [f"until      {aim.in_words()} is reached, by version {reached[0]} with {in_digits(reached[1])}"]


def _times(counts: Counter[str]) -> Iterator[str]:
    for name, count in counts.most_common():
        yield name if count == 1 else f"{name} {count} times"


def _verdicts(result: RunResult, output: Output) -> None:
    regions = sorted(result.plan.regions)
    counts = result.facts.counts
    rows = [
        [
            Text(outcome, style="green" if outcome == ACCEPTED else "yellow"),
            *(counts[region, outcome] for region in regions),
            total,
        ]
        for outcome, total in result.facts.outcomes().items()
    ]
    output.table(["verdict", *regions, "all"], rows)
