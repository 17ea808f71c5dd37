"""Which implementation of the object store the settings name."""

from __future__ import annotations

from backends.object_store import ObjectStore
from backends.observer import Observer
from backends.settings import StoreSettings
from backends.store.observed import ObservedStore


def open_object_store(settings: StoreSettings, observer: Observer | None = None) -> ObjectStore:
    """The store that the settings name. Opening a store does no I/O except making a file store's folder.

    An ``observer`` is told how long each of its answers took.
    """
    store = _open(settings)
    return store if observer is None else ObservedStore(store, observer)


def _open(settings: StoreSettings) -> ObjectStore:
    # Each is imported where it is used: a device with a file store needs no S3 client.
    if settings.kind == "file":
        from backends.store.file import FileStore

        if settings.path is None:
            message = "a store of kind `file` has no path; Settings.store is validated, so this cannot be"
            raise AssertionError(message)
        return FileStore(settings.path)
    if settings.kind == "minio":
        from backends.store.minio_store import MinioStore

        return MinioStore(settings)
    from backends.store.s3 import S3Store

    return S3Store(settings)
