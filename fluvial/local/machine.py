"""What ``fluvial doctor`` looks at of the machine itself, before any service: places, limits, names, the clock."""

from __future__ import annotations

import contextlib
import datetime as dt
import multiprocessing
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from aggregation.errors import FluvialError
from backends import folders
from backends.environment import keep_compiled_code, variables_that_nobody_reads
from fluvial.local import ports
from fluvial.local.checks import Check

OPEN_FILES_MIN: Final = 256
TEMPORARY_FREE_BYTES_MIN: Final = 64 * 1024**2
KERNELS: Final = Path(__file__).parents[2] / "aggregation" / "codecs" / "kernels.py"
_BUILT: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""No clock that is right shows less."""


def examine_machine(home: Path) -> list[Check]:
    """Every check of the machine; each needs a moment and changes nothing that stays."""
    checks = [_home(home), _temporary(), _compiled(), _semaphores(), _open_files(), _loopback(), _calendar()]
    return [*checks, _letters(), *_variables()]


def _home(home: Path) -> Check:
    existing = next(path for path in (home, *home.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
        return Check("home", "ok", str(home))
    mend = "choose another with `--home DIR` or FLUVIAL_HOME, or mend its owner, mode or disk"
    return Check("home", "problem", f"{existing} cannot be written", mend)


def _temporary() -> Check:
    try:
        folder = folders.temporary()
    except FluvialError as error:
        return Check("temporary files", "problem", f"{error.error_id}: {error.message}", error.hint)
    free = shutil.disk_usage(folder).free
    found = f"{folder}, {free / 1024**2:.0f} MiB free"
    if free < TEMPORARY_FREE_BYTES_MIN:
        mend = "make room, or name another place: `export TMPDIR=/path/to/folder`"
        return Check("temporary files", "problem", found, mend)
    return Check("temporary files", "ok", found)


def _compiled() -> Check:
    beside = KERNELS.parent / "__pycache__"
    folder = keep_compiled_code(beside)
    if folder is None:
        found = "kept nowhere: every process compiles for some seconds when it starts"
        return Check("compiled code", "note", found, "set FLUVIAL_CACHE to a folder that can be written")
    where = "beside the source" if folder == beside else f"in {folder}"
    return Check("compiled code", "ok", f"kept {where}")


def _semaphores() -> Check:
    try:
        multiprocessing.get_context("fork").Semaphore()
    except (OSError, ImportError, NotImplementedError) as error:
        found = f"none ({error}): an audit folds in one process"
        return Check("semaphores", "note", found, "mount -t tmpfs tmpfs /dev/shm")
    return Check("semaphores", "ok", "processes can share them")


def _open_files() -> Check:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY or limit >= OPEN_FILES_MIN:
        return Check(
            "open files", "ok", "unlimited" if limit == resource.RLIM_INFINITY else f"{limit} a process"
        )
    found = f"{limit} a process, services need {OPEN_FILES_MIN} or more"
    return Check("open files", "problem", found, "ulimit -n 4096")


def _loopback() -> Check:
    try:
        ports.require_loopback()
    except FluvialError as error:
        return Check("loopback", "problem", error.message, error.hint)
    return Check("loopback", "ok", f"{ports.LOOPBACK} answers")


def _calendar() -> Check:
    now = dt.datetime.fromtimestamp(time.time(), dt.UTC)
    if now < _BUILT:
        found = f"{now:%Y-%m-%d}: certificates of today are not valid yet"
        return Check("calendar", "problem", found, "set the clock: `sudo timedatectl set-ntp true`")
    return Check("calendar", "ok", f"{now:%Y-%m-%d}, time zone {time.strftime('%Z')}")


def _letters() -> Check:
    encoding = getattr(sys.__stdout__, "encoding", None) or "none"
    with contextlib.suppress(LookupError, UnicodeEncodeError):
        "✓ë日".encode(encoding)
        return Check("letters", "ok", encoding)
    found = f"{encoding}: letters that it lacks are shown as escapes"
    return Check("letters", "note", found, "export LC_ALL=C.UTF-8, and unset PYTHONIOENCODING")


def _variables() -> list[Check]:
    unread = variables_that_nobody_reads()
    if not unread:
        return []
    found = "; ".join(
        f"{name} means nothing" + (f", {meant} does" if meant else "") for name, meant in unread.items()
    )
    return [Check("variables", "note", found, f"unset {' '.join(unread)}")]
