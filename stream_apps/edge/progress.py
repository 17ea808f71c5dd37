"""How far an edge has copied something: a note in its own folder, so that a fresh process need not look far back.

A note may be lost or old: then more is read again, and nothing is lost or written twice. It is believed as the key
beside it is.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import msgspec

log = logging.getLogger("fluvial.edge")

SUFFIX: Final = ".json"


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands at the other end.

    All that is below ``read`` in the source (an offset, or the number of a window) stands below the offset ``written``
    of the log that it was copied to. ``task_sha256``: of which genesis document, hex. ``last_sha256``
    and ``revoked`` are the uplink's: its chain above as far as ``written``, and which names were barred there.
    """

    task_sha256: str
    read: int
    written: int
    last_sha256: str = ""
    revoked: tuple[str, ...] = ()


class Progress:
    """One note, at ``path``; that of another task of this name counts for nothing."""

    def __init__(self, path: Path, task_sha256: str) -> None:
        self._path = path
        self._task_sha256 = task_sha256

    def load(self) -> Note:
        """What was noted last; (0, 0) where there is nothing that can be read."""
        nothing = Note(self._task_sha256, 0, 0)
        try:
            note = msgspec.json.decode(self._path.read_bytes(), type=Note)
        except FileNotFoundError:
            return nothing
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s cannot be read, everything is looked through again: %s", self._path, error)
            return nothing
        good = note.task_sha256 == self._task_sha256 and note.read >= 0 and note.written >= 0
        return note if good else nothing

    def save(self, read: int, written: int, last_sha256: str = "", revoked: tuple[str, ...] = ()) -> None:
        """Note it, all or nothing."""
        part = self._path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(msgspec.json.encode(Note(self._task_sha256, read, written, last_sha256, revoked)))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
