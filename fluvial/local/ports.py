"""Free ports on 127.0.0.1, below the range that the system hands to outgoing connections."""

from __future__ import annotations

import contextlib
import fcntl
import random
import socket
import time
from typing import Final, TextIO

from aggregation.errors import EnvironmentProblem
from backends.environment import cache_dir

LOOPBACK: Final = "127.0.0.1"
# Linux gives ports from 32768 on to outgoing connections: one of those could be taken while the broker
# restarts.
_FIRST, _LAST = 20_000, 32_000
_LOOPBACK_TIMEOUT_S: Final = 5.0
_ATTEMPTS_MAX: Final = 200
# A server that was just killed may hold its port a moment longer than its process seems to live.
_GRACE_S: Final = 2.0
_CLAIMS_MAX: Final = 64
_claims: Final[list[TextIO]] = []


def is_free(port: int) -> bool:
    """Whether a server could bind the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connection lingers in TIME_WAIT is free, one with a listener is
        # not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def is_listening(port: int, timeout_s: float = 1.0) -> bool:
    """Whether something accepts connections on the port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def choose(preferred: int = 0, *, avoid: frozenset[int] = frozenset()) -> int:
    """The preferred port if it is given and free, else a random free one.

    Raises EnvironmentProblem: FLV-1013, no free port in many tries.
    """
    if preferred and preferred not in avoid and _becomes_free(preferred):
        return preferred
    for _ in range(_ATTEMPTS_MAX):
        port = random.randint(_FIRST, _LAST)  # not a secret  # noqa: S311
        if port not in avoid and is_free(port) and _claim(port):
            return port
    raise EnvironmentProblem(
        "FLV-1013",
        f"no free port between {_FIRST} and {_LAST} on {LOOPBACK} in {_ATTEMPTS_MAX} tries",
        hint="see who listens with `ss -ltnp`, stop what you do not need",
    )


def require_loopback() -> None:
    """See that this machine reaches itself. EnvironmentProblem FLV-1023: it does not, and so no service of ours."""
    try:
        with (
            socket.create_server((LOOPBACK, 0)) as server,
            socket.create_connection(server.getsockname(), timeout=_LOOPBACK_TIMEOUT_S),
        ):
            return
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-1023",
            f"this machine does not reach itself at {LOOPBACK}: {error.strerror or error}",
            hint="bring its loopback interface up: `sudo ip link set lo up`",
        ) from error


def _claim(port: int) -> bool:
    """Whether no other process of this user has chosen the port; then it is this one's until it ends.

    Seconds may pass before a server binds a port that was chosen for it. Where the cache cannot be written, no port
    is claimed.
    """
    folder = cache_dir() / "ports"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        claim = (folder / f"{port}.lock").open("w")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            claim.close()
            return False
        _claims.append(claim)
        if len(_claims) > _CLAIMS_MAX:
            _claims.pop(0).close()
    return True


def _becomes_free(port: int) -> bool:
    deadline = time.monotonic() + _GRACE_S
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
