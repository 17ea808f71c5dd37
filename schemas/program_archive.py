"""``fluvial/code/v1``: the files of a task's program in one object, with one form for the same files.

A zip, so that anybody can look into it: entries stored and not compressed, in the order of their names, all of the
first moment that a zip knows, the format's name as its comment. Names are relative, with ``/``. Pure: bytes in, bytes
out.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Final

from aggregation.errors import IntegrityProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT: Final = "fluvial/code/v1"
FILES_MAX: Final = 256
BYTES_MAX: Final = 4 * 1024 * 1024
"""Of all files together, without the archive's own bytes."""
NAME_CHARACTERS_MAX: Final = 255
_OVERHEAD_BYTES_MAX: Final = FILES_MAX * (2 * 4 * NAME_CHARACTERS_MAX + 128) + 128
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)
_UNIX: Final = 3
_MODE: Final = 0o100644 << 16


def encode_program(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files. ValueError for a name or a size that it cannot have."""
    problem = _problem_of(files)
    if problem:
        raise ValueError(problem)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = FORMAT.encode()
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.create_system, entry.external_attr = _UNIX, _MODE
            archive.writestr(entry, files[name])
    return target.getvalue()


def decode_program(data: bytes) -> dict[str, bytes]:
    """The files of an archive by name. IntegrityProblem FLV-2231: it is none, or not in the one form."""
    if len(data) > BYTES_MAX + _OVERHEAD_BYTES_MAX:
        raise _no_archive(f"it has {len(data)} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > FILES_MAX or sum(entry.file_size for entry in entries) > BYTES_MAX:
                raise _no_archive(f"more than {FILES_MAX} files or {BYTES_MAX} bytes")
            files = {entry.filename: archive.read(entry) for entry in entries}
        if encode_program(files) == data:
            return files
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise _no_archive(str(error)) from error
    raise _no_archive(f"it is not in the form of {FORMAT}")


def is_name(name: str) -> bool:
    """Whether a file may be called so: relative, below the archive's root, and the same on every machine."""
    parts = name.split("/")
    return (
        0 < len(name) <= NAME_CHARACTERS_MAX
        and name.isprintable()
        and not any(character in name for character in '\\:*?"<>|')
        and all(part not in {"", ".", ".."} for part in parts)
    )


def _problem_of(files: Mapping[str, bytes]) -> str:
    """Why these files cannot be an archive; "" when they can."""
    wrong = [name for name in files if not is_name(name)]
    if wrong:
        return f"{wrong[0]!r} cannot be a file's name"
    inside = [name for name in files if any(other.startswith(f"{name}/") for other in files)]
    if inside:
        return f"{inside[0]!r} is a file and a folder"
    if not files or len(files) > FILES_MAX:
        return f"{len(files)} files, expected 1 to {FILES_MAX}"
    size = sum(map(len, files.values()))
    return f"{size} bytes, at most {BYTES_MAX} are allowed" if size > BYTES_MAX else ""


def _no_archive(reason: str) -> IntegrityProblem:
    return IntegrityProblem(
        "FLV-2231",
        f"this is no archive of a task's program: {reason}",
        hint="a later format needs a later Fluvial; a damaged object has to be restored from a backup",
    )
