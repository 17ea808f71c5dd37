"""Edges on seeded schedules: kills, lost notes, strangers' copies, an edge that lies; production and checker agree.

The mutants: each check of the fold is taken away in turn, and a lie that it is there for is told. The checker, which
has the rule by itself, has to name the difference.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregation.fold import edge_forms, edges, transition
from aggregation.fold.state import EdgePlace, PartitionState
from fluvial.proof.audit import audit_task
from fluvial.proof.audit.edges import EdgesAsked
from schemas import avro
from schemas.checkpoints import encode_sums
from schemas.edges import edge_record
from schemas.objects import sha256_hex
from schemas.topics import aggregates_topic, updates_topic
from schemas.windows import aggregate_of
from tests.edged import EdgedFederation
from tests.factories import devices, edge_policy, edge_signer
from tests.small_federation import IN_MEMORY
from tests.unit.fluvial.proof.checked_copy import copy_of

RULES = edge_policy(window={"updates_max": 4}, edges={"updates_max": 7})
NAMES = ("eu.e1", "eu.e1.hall")
LIAR = "eu.liar"
Lie = Callable[[dict[str, Any], np.ndarray], None]
"""Changes a window's fields and its sums, in place."""


def counted(record: dict[str, Any], accepted: int) -> None:
    """As if so many updates of full weight had answered its version."""
    version = record["version"]
    record |= {
        "counts": {"accepted": accepted},
        "accepted": accepted,
        "weight_total": accepted << 16,
        "staleness_total": 0,
        "staleness_max": 0,
        "buckets": [{"accepted": accepted, "weight": accepted << 16}],
        "bases": [{"base": version, "accepted": accepted, "weight": accepted << 16}],
        "norms": [],
        "cosines": [],
        "shares": [{"bucket": 1, "count": 840 * accepted}],
    }


def heavier(record: dict[str, Any], _sums: np.ndarray) -> None:
    weight = record["accepted"] << 18
    record |= {
        "weight_total": weight,
        "buckets": [{"accepted": record["accepted"], "weight": weight}],
        "bases": [{"base": record["version"], "accepted": record["accepted"], "weight": weight}],
    }


def longer(record: dict[str, Any], sums: np.ndarray) -> None:
    sums[:] = 1 << 50


LIES: dict[str, Lie] = {
    "nothing": lambda _record, _sums: None,
    "another log": lambda record, _: record.update(region="eu.e1"),
    "another policy": lambda record, _: record.update(policy_sha256=sha256_hex(b"another")),
    "too many": lambda record, _: counted(record, 8),
    "counts": lambda record, _: record.update(counts={"accepted": 9}),
    "bases": lambda record, _: record["bases"][0].update(base=record["version"] + 1),
    "staleness": lambda record, _: record.update(staleness_max=1 << 40),
    "buckets": lambda record, _: record["buckets"][0].update(weight=1),
    "histograms": lambda record, _: record.update(shares=[{"bucket": 1, "count": 1 << 40}]),
    "a boast": lambda record, _: record.update(norms=[{"bucket": 8000, "count": 1 << 40}]),
    "heavier": heavier,
    "longer": longer,
}


class Liar:
    """Whoever has the key of ``LIAR``: a chain of windows that no log gives."""

    def __init__(self, federation: EdgedFederation) -> None:
        self._federation = federation
        self._signer = federation.signer(edge_signer(LIAR))
        self.sequence, self.last = 0, ""
        self.partition = 0

    def window(self, lie: Lie, *, skip: int = 0, version: int | None = None) -> bytes:
        """The record of the next window; ``skip`` leaves a gap."""
        one = self._federation
        at = one.version if version is None else version
        sums = np.arange(one.layout.sum_elements, dtype=np.int64) * 1000
        record: dict[str, Any] = {
            "task": one.task,
            "region": LIAR,
            "partition": 0,
            "sequence": self.sequence + skip,
            "first_offset": 10 * self.sequence,
            "next_offset": 10 * self.sequence + 3,
            "version": at,
            "policy_sha256": one.policy.sha256,
            "update_bytes": 100,
            "state_sha256": sha256_hex(b"state"),
            "contributors_sha256": sha256_hex(b"contributors"),
            "previous_sha256": self.last,
        }
        counted(record, 2)
        lie(record, sums)
        record["sum_sha256"] = sha256_hex(encode_sums(sums))
        payload = avro.encode("RegionalAggregate", record)
        window = aggregate_of(record, payload)
        self._next = window.sequence + 1, window.sha256
        fields = edge_record(window, payload, one.models[at], sums)
        return self._signer.sign("EdgeAggregate", fields | {"region": "eu", "edge": LIAR})

    def tell(self, lie: Lie, **changed: int) -> None:
        """Publish it where it belongs, and go on from it."""
        from aggregation.partitioning import partition_of

        value = self.window(lie, **changed)
        self.partition = partition_of(LIAR, self._federation.partitions["eu"])
        self._federation.append("eu", self.partition, value)
        if not changed.get("skip"):
            self.sequence, self.last = self._next


def make(folder: Path, *names: str) -> EdgedFederation:
    return EdgedFederation(policy=RULES, edges=names, folder=folder)


def findings(federation: EdgedFederation) -> list[str]:
    report = audit_task(
        IN_MEMORY, federation.task_file, jobs=1, sources=federation.sources, edges=EdgesAsked()
    )
    return [str(one) for one in report.findings]


def copy_something(federation: EdgedFederation, rng: random.Random) -> None:
    """As a stranger may: a record of the region's log once more, in whatever partition."""
    records = federation.records(updates_topic(federation.task, "eu"), rng.randrange(2))
    federation.append("eu", rng.randrange(2), rng.choice(records).value if records else b"")


def play(federation: EdgedFederation, rng: random.Random, steps: int) -> None:
    """So many steps of everything that may happen, a version now and then."""
    liar = Liar(federation)
    for step in range(steps):
        name = rng.choice(federation.edges)
        edge = federation.running[name]
        match rng.choice(("kill", "lie", "gap", "copy", "close", "send", "send")):
            case "kill":
                for _ in range(rng.randrange(2)):
                    edge.forget()
                edge.start()
            case "lie":
                liar.tell(LIES[rng.choice(list(LIES))])
            case "gap":
                liar.tell(LIES["nothing"], skip=rng.randrange(1, 3))
            case "copy":
                copy_something(federation, rng)
            case "close":
                edge.close()
            case _:
                edge.work()
                base = max(0, federation.version - rng.randrange(2))
                federation.send_below(
                    name, *devices(rng.randrange(1, 4), start=step), seed=100 * step, base=base
                )
        if step % 4 == 3:
            federation.send(1, seed=5000 + 10 * step)
            federation.settle_edges()
            federation.fold()
            federation.merge()
    for one in federation.edges:
        federation.running[one].work()


def agree(federation: EdgedFederation) -> None:
    assert findings(federation) == []
    report = copy_of(federation).check(drained=False)
    assert report.violations == (), report.violations[:3]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_schedule_ends_in_what_auditor_and_checker_say(tmp_path: Path, seed: int) -> None:
    federation = make(tmp_path, *NAMES)
    play(federation, random.Random(seed), 12)
    agree(federation)


@pytest.mark.long
def test_many_schedules_end_so(tmp_path: Path) -> None:
    for seed in range(100, 160):
        federation = make(tmp_path / str(seed), *NAMES)
        play(federation, random.Random(seed), 24)
        agree(federation)


@contextmanager
def without(module: Any, name: str, instead: Any) -> Iterator[None]:
    kept = getattr(module, name)
    setattr(module, name, instead)
    try:
        yield
    finally:
        setattr(module, name, kept)


def no_place(state: PartitionState, event: Any) -> None:
    state.edges[event.edge] = EdgePlace()


MUTANTS: dict[str, tuple[Any, str, Any, str, dict[str, int]]] = {
    "the form: counts": (edge_forms, "_counts_fit", lambda *_: True, "counts", {}),
    "the form: bases": (edge_forms, "_bases_fit", lambda *_: True, "heavier", {}),
    "the form: staleness": (edge_forms, "_staleness_fits", lambda *_: True, "staleness", {}),
    "the form: histograms": (edge_forms, "_histograms_fit", lambda *_: True, "a boast", {}),
    "the length": (edges, "is_beyond", lambda *_: "", "longer", {}),
    "the lateness of sums": (edges, "scaled_sums", lambda sums, _: sums, "nothing", {"version": 0}),
    "the lateness of weights": (edges, "weight_after", lambda weight, _: weight, "nothing", {"version": 0}),
    "the chain: a gap": (transition, "move_place", no_place, "nothing", {}),
    "updates of a version": (EdgePlace, "accepted_at", lambda *_: 0, "nothing", {}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_check_that_is_taken_away_is_missed(tmp_path: Path, name: str) -> None:
    module, function, instead, lie, changed = MUTANTS[name]
    federation = make(tmp_path, *NAMES[:1])
    federation.round()
    with without(module, function, instead):
        liar = Liar(federation)
        for _ in range(4):  # of two updates each: more than an edge has at a version
            liar.tell(LIES[lie], **changed)
        federation.send(1, seed=77)
        try:
            federation.settle_edges()
            federation.fold()
            federation.merge()
        except (AssertionError, ArithmeticError, IndexError):
            pass  # what was let in may break what comes behind: then the log says it, which is compared below
    windows = federation.records(aggregates_topic(federation.task, "eu"), liar.partition)
    assert windows
    assert copy_of(federation).check(drained=False).violations != ()


def test_without_a_mutation_the_same_lies_are_agreed_on(tmp_path: Path) -> None:
    federation = make(tmp_path, *NAMES[:1])
    federation.round()
    liar = Liar(federation)
    for _, lie in sorted(LIES.items()):
        liar.tell(lie)
    liar.tell(LIES["nothing"], version=0)
    federation.send(1, seed=77)
    federation.settle_edges()
    federation.fold()
    federation.merge()
    assert copy_of(federation).check(drained=False).violations == ()
