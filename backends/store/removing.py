"""Deleting what lies under a prefix. It is no part of ``ObjectStore``: nothing that folds or merges can delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.object_store import check_prefix
from backends.store.file import FileStore

if TYPE_CHECKING:
    from backends.settings import StoreSettings


def remove_objects(settings: StoreSettings, prefix: str) -> int:
    """Delete every object whose key begins with ``prefix``, a folder with its slash; how many there were.

    The store's own versions of objects, where a bucket keeps them, are the bucket's: they stay. Raises what the
    store's methods raise.
    """
    if not prefix.endswith("/"):
        message = f"{prefix!r} is no folder: it would also name others that begin like it"
        raise ValueError(message)
    check_prefix(prefix)
    if settings.path is not None:
        return FileStore(settings.path).remove(prefix)
    if settings.kind == "minio":
        from backends.store.minio_store import MinioStore

        return MinioStore(settings).remove(prefix)
    from backends.store.s3 import S3Store

    return S3Store(settings).remove(prefix)
