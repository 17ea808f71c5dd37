"""What the operating system refuses is no defect of ours: it is named, with the place and the mend."""

from __future__ import annotations

import errno
import os
from typing import Final

from aggregation.errors import EnvironmentProblem

_ELSEWHERE: Final = (
    "`--home DIR` or FLUVIAL_HOME for data, FLUVIAL_CACHE for downloads, TMPDIR for temporary files"
)
_FULL: Final = f"make room (`df -h` shows where), or choose another place: {_ELSEWHERE}"
_CLOSED: Final = f"mend its owner or mode, or choose another place: {_ELSEWHERE}"
_FILES: Final = "raise the limit of open files, such as `ulimit -n 4096`; `fluvial doctor` shows it"
_TASKS: Final = "raise the limit of processes (`ulimit -u`, or that of the container), or end some"
_HINTS: Final = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EAGAIN: _TASKS,
    errno.ENOMEM: "end what needs the memory, or take a machine with more",
}
_IN_WORDS: Final = {
    "can't start new thread": errno.EAGAIN,
    "annot allocate memory": errno.ENOMEM,
    "failed to map segment": errno.ENOMEM,
}
"""As Python and the loader of shared libraries say it."""


def of_the_machine(error: Exception) -> EnvironmentProblem | None:
    """FLV-1020 for an error that tells of the machine; None for every other."""
    lacking = next((number for words, number in _IN_WORDS.items() if words in str(error)), None)
    if isinstance(error, MemoryError) or (isinstance(error, ImportError | RuntimeError) and lacking):
        number = lacking or errno.ENOMEM
        return EnvironmentProblem(
            "FLV-1020", f"this machine refuses: {str(error) or os.strerror(number)}", hint=_HINTS[number]
        )
    if not isinstance(error, OSError) or error.errno not in _HINTS:
        return None
    return EnvironmentProblem(
        "FLV-1020",
        f"this machine refuses: {os.strerror(error.errno)}",
        where=str(error.filename or ""),
        hint=_HINTS[error.errno],
    )
