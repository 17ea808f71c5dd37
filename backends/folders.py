"""Folders for what may be lost: temporary ones, and one of this user's where he has no home."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aggregation.errors import EnvironmentProblem, UsageProblem

PRIVATE_MODE = 0o700


def temporary() -> Path:
    """Where temporary files go: TMPDIR, /tmp, /var/tmp, or this folder. EnvironmentProblem FLV-1019: none will do."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise EnvironmentProblem(
            "FLV-1019",
            "no temporary folder can be written: TMPDIR, /tmp, /var/tmp and the current folder were tried",
            hint="name one that can: `export TMPDIR=/path/to/folder`",
        ) from error


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new temporary folder, gone at the end. Raises EnvironmentProblem FLV-1019 where there is no place for it."""
    place = temporary()
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-1019",
            f"no temporary folder can be made: {error.strerror}",
            where=str(place),
            hint="make room there, or name another place: `export TMPDIR=/path/to/folder`",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def of_this_user() -> Path:
    """A folder for a user without a home: below the temporary one, and nobody else's. FLV-1019 where there is none."""
    folder = temporary() / f"fluvial-{os.geteuid()}"
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=PRIVATE_MODE)
        found = folder.lstat()
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-1019",
            f"no temporary folder can be made: {error.strerror}",
            where=str(folder),
            hint="make room there, or name another place: `export TMPDIR=/path/to/folder`",
        ) from error
    # Code is kept in it: a folder that somebody else made, or may write to, will not do.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EnvironmentProblem(
            "FLV-1019",
            "the temporary folder of this user belongs to somebody else, or others may write to it",
            where=str(folder),
            hint="set FLUVIAL_CACHE to a folder of your own, or HOME to one",
        )
    return folder


def make_private(folder: Path) -> None:
    """Make ``folder`` and whatever above it is missing, for this user alone; what is there is left as it is."""
    missing = [folder, *folder.parents]
    for one in reversed(missing[: next((n for n, one in enumerate(missing) if one.exists()), len(missing))]):
        one.mkdir(mode=PRIVATE_MODE, exist_ok=True)


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in ``folder``, which is made first if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def expanded(path: Path) -> Path:
    """``path`` with its ``~``. UsageProblem FLV-1021: it has one, and this user has no home directory."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageProblem(
            "FLV-1021",
            f"{path} begins in the home directory of a user, and this user has none",
            hint="give the whole path, or set HOME",
        ) from error
