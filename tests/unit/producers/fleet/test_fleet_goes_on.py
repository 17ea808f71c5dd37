"""A fleet that goes on knows by its journal what its devices have published on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from producers.fleet.journal import Entry, newest_bases

if TYPE_CHECKING:
    from pathlib import Path


def line(device: str, base: int) -> bytes:
    return (
        msgspec.json.encode(Entry(2.0, 1.0, device, "eu", 0, base, "honest", base, f"{device}-{base}"))
        + b"\n"
    )


def test_the_newest_base_of_each_device_counts(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(line("d-1", 0) + line("d-2", 3) + line("d-1", 2) + line("d-1", 1))
    assert newest_bases(path) == {"d-1": 2, "d-2": 3}


def test_a_line_that_a_crash_cut_off_and_a_missing_journal_count_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(line("d-1", 4) + line("d-2", 5)[:-9])
    assert newest_bases(path) == {"d-1": 4}
    assert newest_bases(tmp_path / "none") == {} == newest_bases(None)
