"""The object store as a folder: for machines without MinIO, and for tests that need no server.

Atomic creation is ``link(2)``: it fails if the name exists, in one step, also between processes. Every write
goes to a temporary file first, is fsynced, takes its name, and then its folder is fsynced: a crash leaves the
old object, the new one or a stray file under ``.tmp``, never half an object. Only for file systems with hard
links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backends.object_limits import ObjectLimits, ObjectTooLarge
from backends.object_store import (
    ObjectNotFound,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    check_key,
    check_prefix,
    wrong_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class FileStore:
    """An ``ObjectStore`` under one folder; key segments are folders."""

    def __init__(self, root: Path) -> None:
        """Open the store at ``root``, making the folder if need be.

        Raises StoreRefused, StoreUnavailable: the folder cannot be made.
        """
        self.limits = ObjectLimits()
        self._root = root
        self._temporary = root / ".tmp"
        if root.exists() and not root.is_dir():
            raise StoreUnavailable(
                "FLV-4002",
                "the file store's folder is a file",
                where=self.describe(),
                hint="move the file away, or choose another folder with FLUVIAL_STORE_PATH",
            )
        with self._outages("opening"):
            self._temporary.mkdir(parents=True, exist_ok=True)

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        """See ``ObjectStore.get``."""
        path = self._path(key)
        with self._outages(key):
            try:
                with path.open("rb") as file:
                    limit = self.limits.of(key, bytes_max)
                    if os.fstat(file.fileno()).st_size > limit:
                        raise ObjectTooLarge(key, limit, where=self.describe())
                    return file.read()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise ObjectNotFound(key, where=self.describe()) from None

    def put(self, key: str, data: bytes) -> None:
        """See ``ObjectStore.put``."""
        path = self._path(key)
        with self._outages(key), self._written(data) as temporary:
            self._make_folder(path.parent)
            temporary.replace(path)
            _sync_folder(path.parent)

    def create(self, key: str, data: bytes) -> bool:
        """See ``ObjectStore.create``."""
        path = self._path(key)
        with self._outages(key), self._written(data) as temporary:
            self._make_folder(path.parent)
            try:
                os.link(temporary, path)
            except FileExistsError:
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, "is a prefix", str(path)) from None
                created = False
            else:
                created = True
            # In both cases: whoever is told that the key exists may rely on it after a crash.
            _sync_folder(path.parent)
            return created

    def exists(self, key: str) -> bool:
        """See ``ObjectStore.exists``."""
        path = self._path(key)
        with self._outages(key):
            return path.is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """See ``ObjectStore.list``."""
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        return self._walk(folder, prefix)

    def remove(self, prefix: str) -> int:
        """Delete every object below the folder ``prefix``; how many."""
        keys = list(self._walk(prefix.rstrip("/"), prefix))
        with self._outages(prefix):
            for key in keys:
                (self._root / key).unlink(missing_ok=True)
            top = self._root / prefix.rstrip("/")
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # somebody has put an object there meanwhile
                    os.rmdir(folder)  # noqa: PTH106 (one call)
        return len(keys)

    def describe(self) -> str:
        """See ``ObjectStore.describe``."""
        return f"file store {self._root}"

    def _walk(self, folder: str, prefix: str) -> Iterator[str]:
        base = f"{folder}/" if folder else ""
        with self._outages(prefix):
            try:
                with os.scandir(self._root / folder) as entries:
                    # A folder sorts as its name with the slash: then the walk is in the order of whole keys.
                    names = sorted(base + entry.name + ("/" if entry.is_dir() else "") for entry in entries)
            except (FileNotFoundError, NotADirectoryError):
                return
        for name in names:
            if name.startswith(".tmp/"):
                continue
            if name.endswith("/"):
                if name.startswith(prefix) or prefix.startswith(name):
                    yield from self._walk(name[:-1], prefix)
            elif name.startswith(prefix):
                yield name

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)

    @contextlib.contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """A temporary file that durably holds ``data``; gone at the end, whatever happened."""
        handle, name = tempfile.mkstemp(dir=self._temporary)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _outages(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise wrong_key(key, "a key that is not also a prefix of other keys") from None
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in _FULL:
                raise StoreFull(
                    "FLV-4004",
                    f"the file store is full: {reason}",
                    where=self.describe(),
                    hint=f"make room on the disk of {self._root}; work goes on by itself once there is some",
                ) from error
            if error.errno in _REFUSED:
                raise StoreRefused(
                    "FLV-4003",
                    f"the file store refuses access to {key!r}: {reason}",
                    where=self.describe(),
                    hint=f"check owner and mode with `ls -ld {self._root}`",
                ) from error
            raise StoreUnavailable(
                "FLV-4002",
                f"the file store cannot be used: {reason}",
                where=self.describe(),
                hint="check the disk, then `fluvial doctor`",
            ) from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
