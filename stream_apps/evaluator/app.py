"""The evaluator.

::

    fl.<task>.models                    announcements of all regions
        │  follow: one actor
        ▼
    Evaluation.catch_up(version)        every version not evaluated yet: load, evaluate on held-out data
        └─▶ fl.<task>.metrics           one flat JSON object a version

It resumes at the newest evaluation that stands in the metrics topic, so no version is left out or published twice
(but for a crash between two appends, where readers keep the first by version). What stands there is told to the
observer, too: its metrics go on where those of the process before ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import faust
from faust.types import TP

from aggregation.errors import FluvialError
from backends.kafka.faust.transport import create_app, log_record, raw_topic
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.log import LogRecord
from backends.object_store import StoreUnavailable
from backends.observer import UNOBSERVED, Observer
from backends.outages import UNREADABLE, retry_through_outage
from backends.settings import Settings
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from learning.slices import Slices
from learning.task import load_task
from learning.training import evaluate_parameters
from schemas.avro import CodecError
from schemas.certificates import Role, Trust
from schemas.checkpoints import decode_model
from schemas.envelope import open_envelope
from schemas.manifests import Genesis
from schemas.metrics import SCHEMA_VERSION, encode_metric
from schemas.records import authenticate
from schemas.topics import metrics_topic, models_topic
from stream_apps.evaluator.published_evaluations import read_evaluations
from stream_apps.running import tell

ANNOUNCEMENT_BYTES = 2048
FLUSH_TIMEOUT_S = 10.0

log = logging.getLogger("fluvial.evaluator")


class Evaluation:
    """Evaluates versions in order and publishes what it finds. Blocking; one call at a time."""

    def __init__(
        self,
        settings: Settings,
        store: TaskStore,
        genesis: Genesis,
        reference: str,
        name: str,
        *,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._observer = observer
        self._store = store
        self._genesis = genesis
        self._layout = genesis.tensor_layout
        self._task = load_task(reference)
        self._held_out = self._task.data().test
        self._slices = Slices(self._task, self._held_out)
        self._writer = LogWriter(settings, f"fluvial-{name}", give_up=False, observer=observer)
        self._trust = Trust.from_pem(genesis.authorities)
        with LogReader(settings, f"fluvial-{name}-resume") as reader:
            standing = retry_through_outage(
                "read the newest evaluations", lambda: read_evaluations(reader, metrics_topic(genesis.task))
            )
        self.evaluated = standing[-1]["version"] if standing else -1
        self._created_at_ms = standing[-1]["created_at_ms"] if standing else 0
        observer.recalled(standing)

    def take(self, record: LogRecord) -> None:
        """Take one record of the models topic: evaluate up to the version that it announces, if a merger signed it."""
        try:
            envelope = open_envelope(record.value or b"")
        except CodecError as error:
            log.warning("ignored announcement %d: %s", record.offset, error)
            return
        signer = authenticate(envelope, record.timestamp_ms, self._trust)
        if getattr(signer, "role", None) is not Role.MERGER or envelope.kind != "ModelAnnouncement":
            log.warning("ignored announcement %d: not signed by a merger", record.offset)
            return
        if envelope.record["task"] == self._genesis.task:
            self.catch_up(envelope.record["version"])

    def catch_up(self, version: int) -> None:
        """Evaluate and publish every version up to ``version``."""
        while self.evaluated < version:
            number = self.evaluated + 1
            record, seconds = retry_through_outage(
                f"evaluate version {number}", partial(self._timed, number), UNREADABLE
            )
            self._writer.append(
                metrics_topic(self._genesis.task),
                encode_metric(record),
                key=self._genesis.task.encode(),
            )
            retry_through_outage(
                f"publish the evaluation of version {number}", lambda: self._writer.flush(FLUSH_TIMEOUT_S)
            )
            self.evaluated = number
            self._observer.evaluated(record, seconds)
            log.info(
                "version %d: %s",
                number,
                ", ".join(f"{k} {record[k]:.4f}" for k in ("accuracy", "loss") if k in record),
                extra={"version": number},
            )

    def _timed(self, version: int) -> tuple[dict[str, Any], float]:
        """A version's record, and how long loading and evaluating it took; what failed before is not in it."""
        began_s = time.perf_counter()
        return self._evaluate(version), time.perf_counter() - began_s

    def _evaluate(self, version: int) -> dict[str, Any]:
        facts = self._store.facts(version)
        created_at_ms = int(str(facts.get("created_at_ms", 0)))
        record: dict[str, Any] = {
            "kind": "evaluation",
            "schema_version": SCHEMA_VERSION,
            "task": self._genesis.task,
            "version": version,
        }
        if version == 0:
            model_sha256 = self._genesis.model_sha256
        else:
            manifest = self._store.manifest(version)
            model_sha256 = manifest.model_sha256
            seconds = (
                (created_at_ms - self._created_at_ms) / 1000
                if created_at_ms and self._created_at_ms
                else None
            )
            record |= {
                "accepted": manifest.accepted,
                "refused": sum(manifest.counts.values()) - manifest.accepted,
                "staleness_mean": manifest.staleness_total / manifest.accepted,
                "staleness_max": manifest.staleness_max,
                "update_bytes": manifest.update_bytes,
                "seconds": seconds,
            }
            record |= {f"verdicts_{outcome}": count for outcome, count in manifest.counts.items()}
        data = self._store.model_bytes(version, model_sha256)
        model = decode_model(data, self._layout)
        results = evaluate_parameters(self._task, model, self._held_out)
        slices = self._slices.evaluate(model) if "accuracy" in results else {}
        self._created_at_ms = created_at_ms or self._created_at_ms
        now_ms = round(time.time() * 1000)
        return results | slices | record | {
            "at_ms": created_at_ms or now_ms,
            "model_sha256": model_sha256,
            "model_bytes": len(data),
            "created_at_ms": created_at_ms,
            "evaluated_at_ms": now_ms,
        }  # fmt: skip


def build_app(
    settings: Settings,
    *,
    task: str,
    name: str,
    genesis_sha256: str,
    reference: str,
    data_folder: Path,
    observer: Observer = UNOBSERVED,
) -> faust.App:
    """The Faust app of the evaluator; ``reference`` names the task's code, which says how to evaluate."""
    store = TaskStore(open_object_store(settings.store, observer), task)
    genesis = retry_through_outage(
        "read the genesis document", lambda: store.genesis(genesis_sha256), (StoreUnavailable,)
    )
    evaluation = Evaluation(settings, store, genesis, reference, name, observer=observer)
    evaluation.catch_up(0)
    turn = asyncio.Lock()

    async def resume(assigned: Iterable[TP]) -> Mapping[TP, int]:
        observer.adopted(evaluation.evaluated, genesis.partitions)
        return dict.fromkeys(
            assigned, 0
        )  # announcements are small, and all but the new ones are passed over at once

    app = create_app(
        f"fluvial-{task}-evaluator-{name}-{uuid.uuid4().hex[:8]}",
        settings,
        resume,
        data_folder=str(data_folder),
        record_bytes=ANNOUNCEMENT_BYTES,
    )

    tell(app, observer)

    async def take(record: LogRecord) -> None:
        async with turn:
            await asyncio.to_thread(evaluation.take, record)

    @app.agent(raw_topic(app, models_topic(task)), name="follow")
    async def follow(stream: faust.StreamT[bytes]) -> None:
        async for event in stream.events():
            record = log_record(event.message)
            try:
                await asyncio.shield(asyncio.create_task(take(record)))
            except Exception as error:
                known = isinstance(error, FluvialError)
                log.error(  # noqa: TRY400
                    "the evaluator stops after version %d.\n%s",
                    evaluation.evaluated,
                    error,
                    exc_info=not known,
                    extra={"version": evaluation.evaluated},
                )
                await app.crash(error)

    return app
