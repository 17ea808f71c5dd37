"""Every row of the table of bad input, through the real pipeline: what each record gets, and that nothing else happens.

One worker and one merger run. Every bad record stands in the log between honest updates; then the verdicts, windows and
versions are read back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pytest

from aggregation.fold.rejections import ACCEPTED, CONTROL, RejectionReason
from fluvial import cli
from fluvial.proof.audit import audit_task
from tests import factories
from tests.integration.bad_input import (
    HISTORY,
    NORM_CLIPPED,
    PARTITIONS,
    POLICY,
    ROWS,
    SHORT_LIFE_DAYS,
    Bench,
)
from tests.integration.pipeline import Federation
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aggregation.fold.events import Verdict
    from aggregation.server.aggregates import Slot
    from backends.settings import Settings

EU0, EU1, US0 = ("eu", 0), ("eu", 1), ("us", 0)


@dataclass
class Outcome:
    """All that the module's tests look at."""

    federation: Federation
    bad: dict[str, int]
    honest: dict[str, int]
    replays: dict[str, int]
    verdicts: dict[int, Verdict]
    windows_before: int
    windows_after: int
    end: int


@pytest.fixture(scope="module")
def outcome(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("bad-input")
    federation = Federation(stack, folder, PARTITIONS, POLICY)
    try:
        federation.start("worker", "worker-eu")
        federation.start("merger", "merger")
        yield run_all_rows(federation, Bench(federation, folder))
    finally:
        federation.end()


def run_all_rows(federation: Federation, bench: Bench) -> Outcome:
    reach_version_1(federation)
    for fields in ({"device_id": bench.revoked_id}, {"certificate_serial": bench.revoked_serial}):
        record = {
            "task": federation.task,
            "device_id": "",
            "certificate_serial": "",
            "reason": "stolen",
        } | fields
        federation.append(EU0, federation.operator_signer.sign("Revoke", record))
    until(lambda: time.time() > bench.expired_at_s, "the certificate expires")
    windows_before = len(federation.aggregates(EU0))
    bad, honest = {}, {}
    for name, row in ROWS.items():
        bad[name] = federation.append(EU0, row.make(bench))
        honest[name] = federation.append(EU0, bench.honest())
    once, again = bench.honest(device := bench.fresh(), seed=1), bench.honest(device, seed=2)
    replays = {}
    for name, value in {"first": once, "the same bytes": once, "other bytes": again}.items():
        replays[name] = federation.append(EU0, value)
    end = federation.append(EU0, bench.honest())
    verdicts = federation.await_verdicts(EU0, end)
    windows_after = len(federation.aggregates(EU0))
    federation.tick(EU0)
    federation.await_version(2)
    until(
        lambda: federation.verdicts(EU0)[-1].detail.startswith("barrier to version 2"),
        "the barrier of version 2",
    )
    return Outcome(federation, bad, honest, replays, verdicts, windows_before, windows_after, end)


def reach_version_1(federation: Federation) -> None:
    """Fill the detector's history, close both windows, and wait for the barriers of version 1."""
    for slot in (EU0, EU1):
        for seed, device in enumerate(factories.devices(HISTORY, partition=slot[1], partitions=2)):
            federation.append(slot, federation.update(device, seed=seed + 100 * slot[1]))
        federation.tick(slot)
    for slot in (EU0, EU1):
        until(
            partial(knows_version_1, federation, slot),
            f"the barrier of version 1 in {slot}\n{federation.logs()}",
        )


def knows_version_1(federation: Federation, slot: Slot) -> bool:
    return any(v.detail.startswith("barrier to version 1") for v in federation.verdicts(slot))


@pytest.mark.parametrize("name", ROWS)
def test_what_it_gets(outcome: Outcome, name: str) -> None:
    verdict = outcome.verdicts[outcome.bad[name]]
    assert (verdict.outcome, ROWS[name].says in verdict.detail) == (ROWS[name].outcome, True), verdict.detail
    if verdict.outcome == "anomalous":
        assert verdict.norm_deviations > 50.0 or verdict.cosine < -0.9
    following = outcome.verdicts[outcome.honest[name]]
    assert following.outcome == ACCEPTED, (
        f"the honest update behind it: {following.outcome}, {following.detail}"
    )


def test_a_clipped_update_counts_by_as_much_as_it_says(outcome: Outcome) -> None:
    verdict = outcome.verdicts[outcome.bad["norm above the clipping bound"]]
    assert verdict.clip == pytest.approx(0.5)
    assert verdict.norm == pytest.approx(NORM_CLIPPED)


def test_a_second_contribution_is_a_duplicate_whatever_its_bytes(outcome: Outcome) -> None:
    got = {name: outcome.verdicts[offset].outcome for name, offset in outcome.replays.items()}
    assert got == {"first": ACCEPTED, "the same bytes": "duplicate", "other bytes": "duplicate"}


def test_every_outcome_but_none_else_is_in_the_table() -> None:
    # This task has no tensor with a range, and its policy knows no shares, rounds, lots and edges: inputs for these are
    # in tests/unit/schemas/test_bad_records.py and tests/unit/aggregation/fold (test_shares, test_rounds,
    # test_refused_edges).
    elsewhere = (
        RejectionReason.OUT_OF_RANGE,
        RejectionReason.OVER_SHARE,
        RejectionReason.QUARANTINED,
        RejectionReason.ROUND_OVER,
        RejectionReason.NOT_SELECTED,
        RejectionReason.BAD_AGGREGATE,
    )
    covered = {row.outcome for row in ROWS.values()} | {"duplicate", *(one.outcome for one in elsewhere)}
    assert covered - {ACCEPTED} == {rejection.outcome for rejection in RejectionReason}


def test_every_offset_has_exactly_one_verdict(outcome: Outcome) -> None:
    federation = outcome.federation
    for slot in (EU0, EU1):
        offsets = [verdict.offset for verdict in federation.verdicts(slot)]
        assert offsets == list(range(len(federation.log(slot))))


def test_no_forged_record_closes_a_window(outcome: Outcome) -> None:
    assert outcome.windows_before == outcome.windows_after == 1
    assert len(outcome.federation.aggregates(EU0)) == 2


def test_the_window_counts_every_verdict(outcome: Outcome) -> None:
    window = outcome.federation.aggregates(EU0)[1]
    inside = [
        v for v in outcome.federation.verdicts(EU0) if window.first_offset <= v.offset < window.next_offset
    ]
    counts: dict[str, int] = {}
    for verdict in inside:
        if verdict.outcome != CONTROL:
            counts[verdict.outcome] = counts.get(verdict.outcome, 0) + 1
    assert {name: count for name, count in window.counts.items() if count} == counts
    assert (
        window.accepted == len(ROWS) + 2 + 1
    )  # behind each row, the first of the replays, the end; the clipped one


def test_the_audit_agrees_with_every_verdict_and_version(outcome: Outcome) -> None:
    report = audit_task(outcome.federation.settings, outcome.federation.task_file, jobs=1)
    assert report.identical, list(report.findings)
    assert report.versions == 2


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        ("[window]\nupdate_max = 5\n", ("window", "update_max")),
        ("[staleness]\nversions_max = -1\n", ("staleness.versions_max", "-1", "between 0 and 10000")),
        ("[updates]\nnorm_max = 1.0\n", ("updates.norm_max", "1.0", "updates.norm_clip = 1.5")),
        (
            "[fixed_point]\nexponent = 48\n[window]\nupdates_max = 1000000\nrecords_max = 1000000\n",
            ("overflow", "exponent = 48", "9.223e+18"),
        ),
        ("[window\n", ("TOML",)),
    ],
    ids=["unknown key", "out of range", "contradiction", "overflow", "not TOML"],
)
def test_a_bad_policy_is_refused_at_start_up(
    stack: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str], policy: str, names: tuple[str, ...]
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(policy)
    arguments = [
        "--home",
        str(stack.home),
        "task",
        "create",
        "digits",
        "--name",
        "refused",
        "--policy",
        str(path),
    ]
    assert cli.main(arguments) == 4
    message = capfd.readouterr().err
    for name in names:
        assert name in message
    assert not (stack.home / "tasks" / "refused" / "task.json").exists()


assert WAIT_S > SHORT_LIFE_DAYS * 86_400
