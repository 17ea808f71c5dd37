"""Broken machines for tests: a command in a mount namespace of its own, as another user, under a limit.

``run(Machine(...), command)`` runs a command there. As root it makes a mount namespace, else it needs user namespaces.
``require_namespaces`` skips a test by name where neither can be had, and fails it in CI.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.requirements import lack

ROOT: Final = Path(__file__).parents[1]
FLUVIAL: Final = (sys.executable, "-m", "fluvial")
NOBODY: Final = 65534
NAMELESS: Final = 54321
"""A user's number that no file knows, as some clusters give one to every container."""

READ_ONLY_INSTALL: Final = f"mount --bind {ROOT} {ROOT}; mount -o remount,ro,bind {ROOT}"
NO_SHARED_MEMORY: Final = "mount -t tmpfs -o ro,size=4k tmpfs /dev/shm"
NO_TEMPORARY: Final = "mount -t tmpfs -o ro,size=4k tmpfs /tmp; mount -t tmpfs -o ro,size=4k tmpfs /var/tmp"


@dataclass(frozen=True)
class Machine:
    """``setup``: shell that breaks it, as root. ``limits``: shell in the command's own process, such as ``ulimit``."""

    setup: str = ":"
    limits: str = ":"
    user: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@functools.cache
def _unshare() -> tuple[str, ...] | None:
    own_users = () if os.geteuid() == 0 else ("--map-root-user",)
    command = ("unshare", *own_users, "--mount", "--propagation", "private")
    try:
        done = subprocess.run([*command, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return command if done.returncode == 0 else None


def require_namespaces() -> None:
    """Skip the test that calls this, or fail it in CI, where no mount namespace can be made."""
    if _unshare() is None:
        lack("mount namespaces cannot be made here (root, or `sysctl kernel.unprivileged_userns_clone=1`)")


def run(
    machine: Machine, command: Sequence[str], folder: Path, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder`` on that machine; what it says and how it ends."""
    unshare = _unshare()
    assert unshare is not None, "require_namespaces comes first"
    user: list[str] = []
    if machine.user is not None:
        if os.geteuid() != 0:
            lack(f"only root can become the user {machine.user}")
        ids = (f"--reuid={machine.user}", f"--regid={machine.user}", "--clear-groups")
        # Python itself may lie in root's home: read it there, and write nothing.
        read = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        user = ["setpriv", *ids, *read]
    environment = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251
        if name not in {"NUMBA_CACHE_DIR", *machine.without}
    } | {"PYTHONDONTWRITEBYTECODE": "1", **machine.variables}
    inner = f"cd {shlex.quote(str(folder))}; {machine.limits}; exec {shlex.join(user + list(command))}"
    script = f"set -e; {machine.setup}; exec bash -c {shlex.quote(inner)}"
    return subprocess.run(
        [*unshare, *machine.flags, "bash", "-c", script],
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
