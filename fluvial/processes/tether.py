"""Run a command that ends with its parent: ``python -I tether.py PARENT_PID COMMAND...``.

A supervisor that is killed with -9 cannot stop anything any more. On Linux the kernel does it for us: it
sends this process SIGTERM when its parent ends, and that outlives the exec. Elsewhere only an orderly end stops the
children. Standard library only: it runs before the environment of the command is set up.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the command. Returns only by raising."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        failed = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if failed:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent ended before this process began")
    os.execv(command[0], command)  # noqa: S606 (the supervisor's own command line)


if __name__ == "__main__":
    main(sys.argv[1:])
