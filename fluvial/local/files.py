"""What the stack keeps in its home folder beside the data: description, keys, and the lock of ``up``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING, Final

import msgspec

from aggregation.errors import EnvironmentProblem, TimeoutProblem
from backends.environment import read_credentials_file
from backends.folders import PRIVATE_MODE as FOLDER_MODE
from backends.folders import make_private
from backends.settings import ADMIN, CredentialsFile, StackFile, StackRole, credentials_path, stack_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fluvial.terminal.output import Reporter
    from schemas.access import AccessRole

LOCK_TIMEOUT_S: Final = 900.0
PRIVATE_MODE: Final = 0o600


def prepare_home(home: Path) -> None:
    """Make the folder, for this user alone, and keep it out of every git work tree.

    One that is there keeps its mode, but others get into neither the data nor the keys: MinIO's data has keys, too.

    Raises EnvironmentProblem: FLV-1015, it cannot be written.
    """
    try:
        make_private(home)
        (home / "run").mkdir(exist_ok=True)
        (home / "logs").mkdir(exist_ok=True)
        if (home / "data").is_dir():  # of a release that left it open
            (home / "data").chmod(FOLDER_MODE)
        (home / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-1015",
            f"cannot write to the home folder: {error.strerror}",
            where=str(home),
            hint="choose another with `--home DIR` or FLUVIAL_HOME, or mend its owner, mode or disk",
        ) from error


def write_stack_file(home: Path, state: StackFile) -> None:
    """Replace ``stack.json`` in one step."""
    _replace(stack_path(home), msgspec.json.format(msgspec.json.encode(state), indent=2), mode=0o644)


def ensure_credentials(home: Path, role: StackRole = ADMIN) -> tuple[CredentialsFile, bool]:
    """A role's keys of the store, random the first time: (keys, whether new). Mends a mode that is too open."""
    existing, path = read_credentials_file(home, role), credentials_path(home, role)
    if existing is not None:
        path.chmod(PRIVATE_MODE)
        return existing, False
    # The administrator's name stands in the server's own settings.
    name = f"fluvial-{secrets.token_hex(6)}" if role == ADMIN else store_user(home, role)
    fresh = CredentialsFile(store_access_key=name, store_secret_key=secrets.token_urlsafe(30))
    make_private(path.parent)
    _replace(path, msgspec.json.format(msgspec.json.encode(fresh), indent=2), mode=PRIVATE_MODE)
    return fresh, True


def store_user(home: Path, role: AccessRole) -> str:
    """A role's user of the store, which it has whatever its key is, and before there is one."""
    existing = read_credentials_file(home, role)
    return f"fluvial-{role}" if existing is None else existing.store_access_key


@contextlib.contextmanager
def locked(home: Path, reporter: Reporter) -> Iterator[None]:
    """One ``up`` or ``down`` at a time for a home. The lock ends with its process, so it cannot go stale.

    Raises TimeoutProblem: FLV-1016.
    """
    what = "another `fluvial up` or `down` on this home to finish"
    with exclusive(home / "run" / "lock", reporter, what, timeout_s=LOCK_TIMEOUT_S):
        yield


@contextlib.contextmanager
def exclusive(lock: Path, reporter: Reporter, what: str, *, timeout_s: float) -> Iterator[None]:
    """Hold the file ``lock`` alone; while another process has it, say that we wait for ``what``.

    Raises TimeoutProblem: FLV-1016.
    """
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE)
    try:
        if not _try_lock(handle):
            with reporter.waiting(what) as waiting:
                while not _try_lock(handle):
                    if waiting.seconds > timeout_s:
                        raise TimeoutProblem(
                            "FLV-1016",
                            f"another process has held {lock.name} for {timeout_s:.0f} s",
                            where=str(lock),
                            hint=f"see which with `fuser -v {lock}`",
                        )
                    time.sleep(0.2)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replace(path: Path, data: bytes, *, mode: int) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    # The mode is set when the file is made, so the secret is never readable by others, not even for a moment.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
