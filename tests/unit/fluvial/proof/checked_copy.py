"""The logs and objects of a federation as plain data, which the offline checker reads and tests can damage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fluvial.proof.checker import Acknowledged, CheckReport, check_logs
from schemas.signing import FIRST_DOMAIN, SignatureDomain
from tests import factories

if TYPE_CHECKING:
    from tests.small_federation import SmallFederation

Entry = tuple[int, int, bytes | None, bytes | None]


@dataclass
class Copy:
    """The logs and objects of a federation as plain data, to be damaged."""

    task: str
    genesis_sha256: str
    logs: dict[tuple[str, int], list[Entry]]
    objects: dict[str, bytes]
    acknowledged: list[Acknowledged] = field(default_factory=list)
    domain: SignatureDomain = FIRST_DOMAIN

    def check(self, *, drained: bool = True, **options: Any) -> CheckReport:
        return check_logs(
            self.logs,
            self.objects,
            self.task,
            self.genesis_sha256,
            self.acknowledged,
            drained=drained,
            **options,
        )

    def edit(self, topic: str, at: int, value: bytes | None, partition: int = 0) -> None:
        """Put another value in the place of a topic's record number ``at``."""
        log = self.logs[topic, partition]
        offset, timestamp_ms, key, _ = log[at]
        log[at] = (offset, timestamp_ms, key, value)

    def append(self, topic: str, value: bytes, partition: int = 0) -> int:
        """Append a record after all others, in time too; returns its offset."""
        log = self.logs[topic, partition]
        log.append((len(log), factories.NOW_MS * 2 if not log else log[-1][1], None, value))
        return len(log) - 1


def copy_of(federation: SmallFederation) -> Copy:
    """Read everything, by the project's own reader."""
    task = federation.task
    logs: dict[tuple[str, int], list[Entry]] = {
        (topic.name, p): [
            (r.offset, r.timestamp_ms, r.key, r.value) for r in federation.records(topic.name, p)
        ]
        for topic in federation.topics
        for p in range(topic.partitions)
    }
    store = federation.objects.store
    objects = {key: store.get(key) for key in store.list(f"{task}/")}
    return Copy(task, federation.task_file.genesis_sha256, logs, objects, domain=federation.genesis.domain)


def broken(report: CheckReport) -> set[int]:
    return {one.invariant for one in report.violations}
