"""One partition's log, folded from its bytes as worker and audit do, and written down."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any

from aggregation.fold.events import Barrier, Parked, Verdict, WindowClosed
from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES, TASK_RULES, RecordRules
from aggregation.fold.state import initial
from aggregation.fold.transition import fold_into
from aggregation.layout import Layout
from aggregation.policy import Policy, policy_from_canonical
from schemas.certificates import Trust
from schemas.checkpoints import decode_direction
from schemas.guides import NoGuideError, guide_in
from schemas.objects import sha256_hex
from schemas.records import decode_record
from schemas.signing import FIRST_DOMAIN, SignatureDomain
from schemas.verdicts import encode_verdict
from schemas.windows import EncodedWindow, encode_window
from tests.factories import LAYOUT, NOW_MS, REGION, TASK, model_sha, trust
from tests.vectors.numbers import layout_of
from tests.vectors.writing import plain, typed, wholes


@dataclass
class Log:
    """A partition of ``region``: its records, and the objects that barriers name.

    ``parked``: what is folded in the place of a record, by offset. ``domain``: for which task its records are signed.
    """

    policy: Policy
    layout: Layout = LAYOUT
    partition: int = 0
    partitions: int = 1
    records: list[tuple[int, bytes | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    parked: dict[int, Parked] = field(default_factory=dict)
    domain: SignatureDomain = FIRST_DOMAIN
    region: str = REGION

    def add(self, value: bytes | None, note: str = "", timestamp_ms: int = NOW_MS) -> None:
        """Append a record; ``note`` says what it is for."""
        self.records.append((timestamp_ms, value))
        self.notes.append(note)

    def keep(self, data: bytes) -> str:
        """Store an object; its hash."""
        self.objects[sha256_hex(data)] = data
        return sha256_hex(data)

    def folded(
        self, rules: RecordRules
    ) -> tuple[list[Verdict], list[tuple[int, EncodedWindow, WindowClosed]]]:
        """Every record's verdict, and every window with the offset of the record that closed it."""
        trusted = trust(rules=rules, domain=self.domain)
        state = initial(
            task=TASK,
            region=self.region,
            partition=self.partition,
            partitions=self.partitions,
            layout=self.layout,
            policy=self.policy,
            model_sha256=model_sha(0),
        )
        verdicts: list[Verdict] = []
        windows: list[tuple[int, EncodedWindow, WindowClosed]] = []
        for offset, (timestamp_ms, value) in enumerate(self.records):
            event = self.parked.get(offset) or decode_record(value, timestamp_ms, trusted, state.policy)
            if isinstance(event, Barrier) and state.applies(event):
                event = self._loaded(event, trusted)
            for effect in fold_into(state, offset, event):
                match effect:
                    case Verdict():
                        verdicts.append(effect)
                    case WindowClosed():
                        windows.append((offset, encode_window(state, effect), effect))
            state.validate()
        return verdicts, windows

    def _loaded(self, barrier: Barrier, trusted: Trust) -> Barrier:
        name = barrier.reference_sha256
        guide = None
        if barrier.guide_sha256:
            with contextlib.suppress(NoGuideError):
                guide = guide_in(self.objects[barrier.guide_sha256], trusted, TASK, self.layout)
        return replace(
            barrier,
            policy=policy_from_canonical(self.objects[barrier.policy_sha256]),
            reference=decode_direction(self.objects[name], self.layout) if name else None,
            guide=guide,
        )


def case_of(name: str, log: Log) -> dict[str, Any]:
    """A log and what it comes to.

    By both rules of records the outcomes and windows are the same; the verdicts' bytes are those of the canonical ones.
    A log whose signatures name their task is read by its task's rules alone.
    """
    if log.domain.version > 1:
        return folded_case(name, log, TASK_RULES) | {"canonical": True}
    verdicts, windows = log.folded(CANONICAL_RULES)
    first, same = log.folded(FIRST_RULES)
    assert [fields_of(one) for one in first] == [fields_of(one) for one in verdicts], name
    assert [one[1].payload for one in same] == [one[1].payload for one in windows], name
    return folded_case(name, log, CANONICAL_RULES)


def folded_case(name: str, log: Log, rules: RecordRules) -> dict[str, Any]:
    """A log and what it comes to by these rules."""
    verdicts, windows = log.folded(rules)
    return {
        "name": name,
        "task": TASK,
        "genesis_sha256": log.domain.genesis.hex(),
        "region": log.region,
        "partition": log.partition,
        "partitions": log.partitions,
        "model_sha256": model_sha(0),
        "layout": layout_of(log.layout),
        "policy": log.policy.canonical().decode(),
        "objects": {sha256: data.hex() for sha256, data in log.objects.items()},
        "parked": {str(at): one.skip_offset for at, one in log.parked.items()},
        "records": [
            {"note": note, "timestamp_ms": timestamp_ms, "value": None if value is None else value.hex()}
            for note, (timestamp_ms, value) in zip(log.notes, log.records, strict=True)
        ],
        "verdicts": [_verdict(one) if rules.canonical else fields_of(one) for one in verdicts],
        "windows": [_window(offset, sealed, closed) for offset, sealed, closed in windows],
    }


def fields_of(one: Verdict) -> dict[str, Any]:
    """What verdicts of both versions have. The words of v1 are for people, and libraries' are among them."""
    return {name: plain(getattr(one, name)) for name in one.__slots__ if name != "because"}


def _verdict(one: Verdict) -> dict[str, Any]:
    why = one.because
    return fields_of(one) | {
        "reason": why.reason.code,
        "values": typed(why.values),
        "forged": why.forged,
        "v2": encode_verdict(one, CANONICAL_RULES).hex(),
    }


def _window(offset: int, sealed: EncodedWindow, closed: WindowClosed) -> dict[str, Any]:
    aggregate = sealed.aggregate
    return {
        "closed_by": offset,
        "first_offset": aggregate.first_offset,
        "next_offset": aggregate.next_offset,
        "payload": sealed.payload.hex(),
        "sha256": aggregate.sha256,
        "sums": "" if closed.sums is None else wholes(closed.sums),
        "sum_sha256": aggregate.sum_sha256,
        "state": sealed.objects[aggregate.state_sha256].hex(),
        "state_sha256": aggregate.state_sha256,
        "contributors_sha256": aggregate.contributors_sha256,
    }
