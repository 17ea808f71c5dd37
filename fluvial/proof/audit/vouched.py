"""What workers vouch for among a partition's verdicts, held against what the log gives (ADR 34).

A head is signed, so a wrong one is a worker's fault, or its stolen key's, and never a stranger's: FLV-5023. What no
worker of the region signed for this task and partition, or one whose certificate an operator has revoked in this
partition's log, says nothing and is a stray. A copy of a head says what the head said.

Not compared are heads of which the audit does not know all: of offsets before its beginning or behind its end, and
those that name skipped offsets above what signed windows cover, for there nothing says yet what was skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from backends.log import LogRecord
from fluvial.proof.audit.findings import VOUCHED, Findings
from fluvial.proof.audit.strays import FORGED_HEAD, REVOKED_HEAD
from schemas.certificates import Identity, Trust
from schemas.vouching import HEADER, HeadPlace, Stretch, head_in

COMPARED_REMEMBERED_MAX: Final = 65_536
"""Stretches that are not compared again where a copy of their head stands."""


@dataclass(frozen=True, slots=True)
class VouchedBy:
    """By what heads are judged: the place that they speak of, the task's CAs, and revoked certificates' serials."""

    place: HeadPlace
    trust: Trust
    revoked: Collection[str] = frozenset()


@dataclass(slots=True)
class _Beyond:
    """A voucher's highest offset beyond the log's end, and where it said so first."""

    voucher: Identity
    position: int
    next_offset: int


class VouchedStretches:
    """The heads of one partition.

    The offsets from ``first`` to ``judged`` - 1 were folded, and ``mark(offset)`` is what the fold said; ``covered``
    and ``log_end`` are as in ``Comparison``.
    """

    def __init__(
        self,
        by: VouchedBy,
        mark: Callable[[int], bytes],
        *,
        first: int,
        judged: int,
        covered: int,
        log_end: int,
    ) -> None:
        self._by = by
        self._mark = mark
        self._first, self._judged, self._covered, self._log_end = first, judged, covered, log_end
        self._vouched = bytearray(judged - first)
        self._compared: set[Stretch] = set()
        self._beyond: dict[str, _Beyond] = {}
        self._wrong: list[tuple[int, Stretch, Identity, str]] = []

    @property
    def offsets(self) -> int:
        """How many offsets a worker vouches for, rightly."""
        return int(np.count_nonzero(np.frombuffer(self._vouched, np.uint8)))

    def take(self, record: LogRecord) -> str:
        """Look at a record's head; the kind of stray that it is, "" where it has none or is none."""
        if not record.headers or all(name != HEADER for name, _ in record.headers):
            return ""
        claimed = head_in(record.headers)
        if claimed is None:
            return FORGED_HEAD
        voucher = claimed.voucher(record.timestamp_ms, self._by.trust, self._by.place)
        if voucher is None:
            return FORGED_HEAD
        if voucher.serial in self._by.revoked:
            return REVOKED_HEAD
        self._compare(claimed.stretch, voucher, record.offset)
        return ""

    def _compare(self, stretch: Stretch, voucher: Identity, position: int) -> None:
        if stretch.next_offset > self._log_end:
            known = self._beyond.setdefault(voucher.serial, _Beyond(voucher, position, 0))
            known.next_offset = max(known.next_offset, stretch.next_offset)
            return
        if stretch.first_offset < self._first or stretch.next_offset > self._judged:
            return
        if stretch in self._compared or any(offset >= self._covered for offset in stretch.skipped):
            return
        if len(self._compared) < COMPARED_REMEMBERED_MAX:
            self._compared.add(stretch)
        digest = hashlib.sha256()
        for offset in range(stretch.first_offset, stretch.next_offset):
            digest.update(self._mark(offset))
        if digest.digest() == stretch.verdicts_sha256:
            at = stretch.first_offset - self._first
            self._vouched[at : at + stretch.next_offset - stretch.first_offset] = b"\1" * (
                stretch.next_offset - stretch.first_offset
            )
        else:
            self._wrong.append((position, stretch, voucher, digest.hexdigest()))

    def report(self, name: str, at: Callable[[int], str], findings: Findings) -> None:
        """Add what is wrong; ``name`` is ``region[partition]``, ``at(position)`` a record of the verdicts topic."""
        for one in self._beyond.values():
            findings.add(
                VOUCHED,
                f"verdicts of {name}",
                at(one.position),
                "offsets that a worker vouches for",
                expected=f"below {self._log_end}, where the log ends",
                got=f"up to {one.next_offset - 1}, by {_named(one.voucher)}",
            )
        for position, stretch, voucher, expected in self._wrong:
            findings.add(
                VOUCHED,
                f"verdicts of {name}@{stretch.first_offset} to {stretch.next_offset - 1}",
                at(position),
                "sha256 that a worker vouches for",
                expected=expected,
                got=f"{stretch.verdicts_sha256.hex()} by {_named(voucher)}",
            )


def _named(voucher: Identity) -> str:
    return f"worker {voucher.name} (certificate {voucher.serial})"
