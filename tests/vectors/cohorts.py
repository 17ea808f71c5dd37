"""Vectors of certificates that name a cohort, and of logs in which lots and windows go by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aggregation.selection import Candidate, is_selected
from schemas.certificates import COHORT_PREFIX, Role
from schemas.envelope import Signer
from tests.factories import (
    TASK,
    certificate,
    delta,
    device_signer,
    devices,
    model_sha,
    tick_bytes,
    update_bytes,
)
from tests.factories.certificates import names_of
from tests.vectors.learning import V5
from tests.vectors.replaying import Log, case_of
from tests.vectors.shares import barrier, update
from tests.vectors.varied import varied


def of_cohort(device: str, *cohorts: str) -> Signer:
    """A device whose certificate names these cohorts behind it; more than one is none of ours."""
    named = (*names_of("eu", Role.DEVICE, device), *(COHORT_PREFIX + one for one in cohorts))
    return device_signer(device, uris=named)


def certificates() -> dict[str, bytes]:
    """Certificates that name cohorts, and ones that do not do it right."""

    def named(*uris: str, role: Role = Role.DEVICE) -> bytes:
        region = "control" if role is Role.MERGER else "eu"
        return certificate(region, role, "d", uris=(*names_of(region, role, "d"), *uris))

    device, cohort = f"spiffe://eu/{Role.DEVICE.value}/d", f"{COHORT_PREFIX}phones"
    return {
        "a device of a cohort": named(cohort),
        "a cohort of one character": named(f"{COHORT_PREFIX}p"),
        "a cohort of 32 characters": named(f"{COHORT_PREFIX}{'a' * 32}"),
        "a cohort of 33 characters": named(f"{COHORT_PREFIX}{'a' * 33}"),
        "a cohort without a name": named(COHORT_PREFIX),
        "a cohort in capitals": named(f"{COHORT_PREFIX}Phones"),
        "a cohort with a dot": named(f"{COHORT_PREFIX}a.b"),
        "a cohort that ends with a hyphen": named(f"{COHORT_PREFIX}a-"),
        "a cohort with more behind it": named(f"{cohort}/x"),
        "another scheme behind the name": named("urn:other:cohort:phones"),
        "two cohorts": named(cohort, f"{COHORT_PREFIX}b"),
        "the same cohort twice": named(cohort, cohort),
        "a cohort before the name": certificate("eu", Role.DEVICE, "d", uris=(cohort, device)),
        "a cohort alone": certificate("eu", Role.DEVICE, "d", uris=(cohort,)),
        "a worker of a cohort": named(cohort, role=Role.WORKER),
        "a merger of a cohort": named(cohort, role=Role.MERGER),
        "a cohort behind a name that is none": certificate(
            "eu", Role.DEVICE, "d", uris=("spiffe://eu/d", cohort)
        ),
        "a cohort behind a role that is none": certificate(
            "eu", Role.DEVICE, "d", uris=("spiffe://eu/auditor/d", cohort)
        ),
    }


def lots() -> Log:
    """Each cohort's share is its own; under a policy of v5 no certificate names one."""
    shares = {"phones": 0.2, "never": 0.0, "always": 1.0}
    one = varied(
        selection={"kind": "cohorts", "share": 0.5, "cohorts": shares},
        staleness={"versions_max": 9},
        window={"updates_max": 60},
        buffer={"seconds_max": 2.0},
    )
    old = varied(format=V5, window={"updates_max": 60})
    log, names, value = Log(one), devices(40), delta(5)
    for each in (one, old):
        log.keep(each.canonical())
    log.add(update(names[0], 0, value, by=of_cohort(names[0], "never")), "version 0 is everybody's")
    log.add(barrier(1, one), "a version, a lot")
    for number, cohort in enumerate(("phones", "never", "always", "others", "") * 4):
        name = names[1 + number]
        by = of_cohort(name, cohort) if cohort else None
        lot = Candidate(TASK, name, 1, model_sha(1), 0, cohort)
        selected = is_selected(one.selection, lot)
        log.add(
            update(name, 1, value, by=by),
            f"{cohort or 'of none'}: {'selected' if selected else 'not selected'}",
        )
    late = log.records[-1][0] + 4000
    for number, cohort in enumerate(("phones", "never", "others", "")):
        name = names[30 + number]
        by = of_cohort(name, cohort) if cohort else None
        log.add(update(name, 1, value, by=by), f"{cohort or 'of none'}, two deadlines later", late)
    log.add(update(names[35], 1, value, by=of_cohort(names[35], "a", "b")), "two cohorts: no certificate")
    log.add(barrier(2, old), "v5: nobody has a cohort")
    log.add(update(names[36], 2, value, by=of_cohort(names[36], "always")), "no certificate then")
    log.add(update(names[37], 2, value), "counts")
    log.add(tick_bytes(len(log.records) - 2), "closes the window")
    return log


def limits() -> Log:
    """So many updates of a cohort in a window, whatever devices have left; those of none are not counted."""
    one = varied(
        shares={"per_version": 0, "saved_max": 0, "cohort_window_max": 2},
        window={"updates_max": 60},
        staleness={"versions_max": 3},
    )
    tokens = varied(
        shares={"per_version": 1, "saved_max": 1, "cohort_window_max": 1},
        window={"updates_max": 60},
        staleness={"versions_max": 3},
    )
    log, names, value = Log(one), devices(20), delta(5)
    for each in (one, tokens):
        log.keep(each.canonical())

    def sent(number: int, base: int, cohort: str, note: str, **changed: Any) -> None:
        by = of_cohort(names[number], cohort) if cohort else None
        log.add(update(names[number], base, value, by=by, **changed), note)

    sent(0, 0, "phones", "the first of its cohort")
    sent(1, 0, "phones", "the second")
    sent(2, 0, "phones", "the third: over its share")
    sent(2, 0, "sensors", "the same device by another certificate: of another cohort")
    for number in (3, 4, 5):
        sent(number, 0, "", "of no cohort")
    sent(6, 0, "phones", "over its share before its form is looked at", codec="float32")
    sent(0, 0, "phones", "a duplicate: that is said first")
    log.add(tick_bytes(0), "closes the window: all begin anew")
    sent(6, 0, "phones", "counts: what was refused used up nothing")
    log.add(barrier(1, tokens), "one a window, and one a device and version")
    sent(7, 1, "phones", "counts")
    sent(7, 0, "phones", "its device has nothing left: that is said first")
    sent(8, 1, "phones", "of the cohort that has had its one")
    sent(9, 1, "", "counts")
    sent(8, 1, "sensors", "counts")
    log.add(tick_bytes(len(log.records) - 5), "closes the window")
    return log


LOGS: Final[dict[str, Callable[[], Log]]] = {"lots by cohort": lots, "limits by cohort": limits}
"""Each by its name."""


def check_case() -> dict[str, Any]:
    """What a window's limit of a cohort is before and behind."""
    one = varied(
        shares={"per_version": 1, "saved_max": 1, "cohort_window_max": 1},
        defence={"quarantine_refusals": 1, "quarantine_versions": 9},
        staleness={"versions_max": 3},
    )
    log, names, value, rows = Log(one), devices(9), delta(5), []
    log.keep(one.canonical())
    log.add(update(names[0], 0, value * 0, by=of_cohort(names[0], "phones")), "brings it into quarantine")
    log.add(barrier(1, one))
    log.add(update(names[1], 1, value, by=of_cohort(names[1], "phones")), "the one of its cohort")
    for number, sent, also in (
        (33, update(names[1], 0, value, by=of_cohort(names[1], "phones")), (34,)),
        (34, update(names[0], 1, value, "int4", by=of_cohort(names[0], "phones")), (35,)),
        (34, update_bytes(names[2], base=1, tensors=[], by=of_cohort(names[2], "phones")), (37,)),
        (35, update(names[0], 1, value, by=of_cohort(names[0], "sensors")), ()),
    ):
        rows.append({"offset": len(log.records), "check": number, "also": list(also)})
        log.add(sent, f"fails check {number}")
    return case_of("a cohort's limit", log) | {"checks": rows}
