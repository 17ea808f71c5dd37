"""A trace: a CSV that says when which device was available, and how long its rounds took then.

::

    device,start_s,end_s,round_s
    phone-a,0,3600,12.5
    phone-a,7200,10800,9
    phone-b,1800,5400,31

A row is a stretch of time in which the device is there. Times are seconds from the trace's beginning, rows may come in
any order. After the last end the trace begins again: a day that was recorded is every day. A fifth column, ``cohort``,
may say of which cohort the device's certificate is: the same in all rows of a device, or empty.
"""

from __future__ import annotations

import csv
import io
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.errors import UsageProblem
from backends.text_files import plain_utf8
from fluvial.simulating.population import finite
from schemas.certificates import COHORT_PATTERN

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from fluvial.simulating.draws import Floats, Indices

COLUMNS: Final = ("device", "start_s", "end_s", "round_s")
COHORT: Final = "cohort"
ROWS_MAX: Final = 1_000_000
BYTES_MAX: Final = 256 << 20
SECONDS_MAX: Final = 366 * 86_400.0
NAME_CHARACTERS_MAX: Final = 64
_SHOWN_CHARACTERS_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class Stretch:
    """From ``start_s`` to before ``end_s`` a device is there, and a round of it takes ``round_s``."""

    start_s: float
    end_s: float
    round_s: float
    line: int
    cohort: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """``names`` of the devices in the order in which the file names them first; ``stretches`` of each, ascending.

    ``starts``: when somebody comes, ascending. ``period_s``: the last end.
    """

    path: str
    names: tuple[str, ...]
    stretches: tuple[tuple[Stretch, ...], ...] = field(repr=False)
    starts: tuple[float, ...] = field(repr=False)
    period_s: float
    cohorts: tuple[str, ...] = field(repr=False, default=())

    @property
    def devices(self) -> int:
        """See ``Population``."""
        return len(self.names)

    @property
    def always_there(self) -> bool:
        """See ``Population``."""
        return False

    @property
    def name(self) -> str:
        """See ``Population``."""
        return f"{self.devices} devices as in {self.path}, which begins again every {self.period_s:g} s"

    def seeded(self, seed: int) -> Trace:  # noqa: ARG002 (as ``Population`` has it)
        """See ``Population``: what was recorded is the same whatever the seed."""
        return self

    def available(self, devices: Indices, now_s: float) -> npt.NDArray[np.bool_]:
        """See ``Population``."""
        return np.array([self._at(one, now_s) is not None for one in devices.tolist()], dtype=np.bool_)

    def next_change(self, now_s: float) -> float:
        """See ``Population``: when somebody comes next."""
        begun = now_s - now_s % self.period_s
        at = bisect_right(self.starts, now_s - begun)
        return begun + (self.starts[at] if at < len(self.starts) else self.period_s + self.starts[0])

    def rounds(self, devices: Indices, number: int, now_s: float) -> tuple[Floats, npt.NDArray[np.bool_]]:  # noqa: ARG002 (as ``Population`` has it)
        """See ``Population``: a round that would end after its device has gone is lost when that goes."""
        seconds, lost = np.zeros(len(devices)), np.zeros(len(devices), dtype=np.bool_)
        for at, device in enumerate(devices.tolist()):
            stretch = self._at(device, now_s)
            if stretch is None:
                lost[at] = True
                continue
            left = stretch.end_s - now_s % self.period_s
            lost[at] = stretch.round_s > left
            seconds[at] = min(stretch.round_s, left)
        return seconds, lost

    def _at(self, device: int, now_s: float) -> Stretch | None:
        own, now_s = self.stretches[device], now_s % self.period_s
        found = bisect_right(own, now_s, key=lambda one: one.start_s) - 1
        return own[found] if found >= 0 and now_s < own[found].end_s else None


def read_trace(path: Path) -> Trace:
    """The trace in a file. UsageProblem FLV-6451, with its line, where it is none."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= BYTES_MAX else b""
    except OSError as error:
        raise _refused(path, 0, f"it cannot be read: {error.strerror}") from error
    if size > BYTES_MAX:
        raise _refused(path, 0, f"it has {size} bytes, a trace has at most {BYTES_MAX}")
    try:
        text = plain_utf8(data).decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _refused(path, line, "it is not UTF-8") from error
    return _parsed(path, text)


def _parsed(path: Path, text: str) -> Trace:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: dict[str, list[Stretch]] = {}
    try:
        header = next(rows, [])
        columns = tuple(word.strip() for word in header)
        if columns not in {COLUMNS, (*COLUMNS, COHORT)}:
            raise _refused(
                path, 1, f"expected the columns {','.join(COLUMNS)}, got {_shown(','.join(header))}"
            )
        for number, row in enumerate(rows):
            if number >= ROWS_MAX:
                raise _refused(path, rows.line_num, f"it has more than {ROWS_MAX} rows")
            name, stretch = _row(path, rows.line_num, row, len(columns))
            found.setdefault(name, []).append(stretch)
    except csv.Error as error:
        raise _refused(path, rows.line_num, f"it is no CSV: {error}") from error
    if not found:
        raise _refused(path, 1, "it names no device")
    for name, own in found.items():
        own.sort(key=lambda one: (one.start_s, one.line))
        _require_apart(path, name, own)
        _require_one_cohort(path, name, own)
    return Trace(
        path.name,
        tuple(found),
        tuple(map(tuple, found.values())),
        tuple(sorted({one.start_s for own in found.values() for one in own})),
        max(one.end_s for own in found.values() for one in own),
        tuple(own[0].cohort for own in found.values()) if len(columns) > len(COLUMNS) else (),
    )


def _row(path: Path, line: int, row: list[str], columns: int) -> tuple[str, Stretch]:
    if len(row) != columns:
        raise _refused(path, line, f"expected {columns} columns, got {len(row)}")
    name = row[0].strip()
    if not name or len(name) > NAME_CHARACTERS_MAX:
        raise _refused(
            path, line, f"device: expected 1 to {NAME_CHARACTERS_MAX} characters, got {_shown(name)}"
        )
    numbers = []
    cohort = row[len(COLUMNS)].strip() if columns > len(COLUMNS) else ""
    if cohort and not COHORT_PATTERN.fullmatch(cohort):
        raise _refused(path, line, f"cohort: expected 1 to 32 of a-z 0-9 _ -, got {_shown(cohort)}")
    for column, text in zip(COLUMNS[1:], row[1 : len(COLUMNS)], strict=True):
        try:
            value = finite(text)
        except ValueError:
            value = -1.0
        if not 0.0 <= value <= SECONDS_MAX:
            what = f"expected seconds from 0 to {SECONDS_MAX:g}, got {_shown(text)}"
            raise _refused(path, line, f"{column}: {what}")
        numbers.append(value)
    start_s, end_s, round_s = numbers
    if end_s <= start_s:
        raise _refused(path, line, f"end_s: expected more than start_s, {start_s:g}, got {end_s:g}")
    if round_s <= 0.0:
        raise _refused(path, line, "round_s: expected more than 0")
    return name, Stretch(start_s, end_s, round_s, line, cohort)


def _require_apart(path: Path, name: str, own: list[Stretch]) -> None:
    for at in range(1, len(own)):
        before, after = own[at - 1], own[at]
        if after.start_s < before.end_s:
            raise _refused(
                path,
                after.line,
                f"device {_shown(name)} is there from {after.start_s:g} s, and by line {before.line} until "
                f"{before.end_s:g} s already",
            )


def _require_one_cohort(path: Path, name: str, own: list[Stretch]) -> None:
    first = own[0]
    for one in own[1:]:
        if one.cohort != first.cohort:
            said = f"{_shown(one.cohort)}, and by line {first.line} {_shown(first.cohort)}"
            raise _refused(
                path, one.line, f"device {_shown(name)} is of the cohort {said}: a certificate names one"
            )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "...")


def _refused(path: Path, line: int, why: str) -> UsageProblem:
    return UsageProblem(
        "FLV-6451",
        f"the trace is refused: {why}",
        where=f"{path}:{line}" if line else str(path),
        hint=f"a trace is a CSV with the columns {','.join(COLUMNS)}: docs/simulate.md has an example",
    )
