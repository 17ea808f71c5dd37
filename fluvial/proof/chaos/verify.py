"""The offline check and the audit of a run, on the real ports, when nothing moves any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.kafka.configuration import checker_connection
from backends.object_store import ObjectNotFound, ObjectStore
from backends.store.factory import open_object_store
from fluvial.proof.audit import AuditReport, audit_task
from fluvial.proof.checker import Acknowledged, CheckReport, CheckRequest, StoreAddress, check, check_logs
from fluvial.proof.checker.reading import KafkaLogs
from producers.fleet.journal import read_journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings, StoreSettings
    from backends.tasks import TaskFile
    from fluvial.terminal.output import Output


def acknowledged_of(journal: Path) -> tuple[Acknowledged, ...]:
    """What the broker has acknowledged to the fleet."""
    entries = read_journal(journal) if journal.exists() else []
    return tuple(
        Acknowledged(
            region=entry.region,
            partition=entry.partition,
            offset=entry.offset,
            update_id=entry.update_id,
            device=entry.device,
            honest=entry.behaviour == "honest",
        )
        for entry in entries
    )


def check_offline(settings: Settings, task_file: TaskFile, journal: Path, output: Output) -> CheckReport:
    """The eight invariants, by the reader that shares no code with the workers."""
    told = ""

    def follow(what: str, done: int, total: int) -> None:
        nonlocal told
        if what != told:
            told = what
            output.say(f"checking {what} ({done} of {total})")

    acknowledged = acknowledged_of(journal)
    store = settings.store
    if not is_within_reach(store):
        with KafkaLogs(checker_connection(settings), task_file.task) as logs:
            return check_logs(
                logs,
                _Objects(open_object_store(store)),
                task_file.task,
                task_file.genesis_sha256,
                acknowledged,
                drained=True,
                heads=logs.heads,
                strangers=False,
                on_progress=follow,
            )
    address = StoreAddress(
        endpoint=store.endpoint,
        bucket=store.bucket,
        access_key=store.access_key,
        secret_key=store.secret_key,
        secure=store.secure,
        region=store.region,
        ca_file=str(store.ca_file or ""),
    )
    request = CheckRequest(
        kafka=checker_connection(settings),
        store=address,
        task=task_file.task,
        genesis_sha256=task_file.genesis_sha256,
        acknowledged=acknowledged,
        strangers=False,
    )
    return check(request, on_progress=follow)


def is_within_reach(store: StoreSettings) -> bool:
    """Whether the checker's own client gets into it, which knows two keys and the store's address, and no more."""
    plain = not (store.session_token or store.profile or store.proxy or store.addressing == "virtual")
    return store.kind != "file" and bool(store.access_key) and plain


class _Objects:
    """The objects of a store, a folder or one that only our own client gets into, as the checker reads them."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get(self, key: str, /) -> bytes | None:
        """An object's bytes; None where there is none."""
        try:
            return self._store.get(key)
        except ObjectNotFound:
            return None

    def keys(self, prefix: str, /) -> Iterator[str]:
        """The keys that begin with a prefix."""
        return self._store.list(prefix)


def audit(settings: Settings, task_file: TaskFile, output: Output) -> AuditReport:
    """What ``fluvial audit`` says."""
    return audit_task(settings, task_file, output=output)
