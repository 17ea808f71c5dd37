"""One device, in a few calls.

::

    with Device.open(task="digits", region="eu", key=path) as device:
        base = device.fetch()                            # the newest announced version, hash-checked
        trained = my_training(device.arrays(base))       # arrays by name; any framework, or none
        outcome = device.contribution(base, trained, num_examples=100, loss=0.3)
        receipt = device.publish(base, outcome)          # clipped, quantized, signed, acknowledged by the broker
        verdict = device.verdict(receipt)                # accepted, or refused and why

With a task file and torch, ``outcome = device.train(base, task, examples)`` is the whole middle. Everything blocks.
A refused update is a verdict, not an exception.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from aggregation.codecs import DEFAULT_CODEC, update_of
from aggregation.errors import FluvialError, TimeoutProblem
from aggregation.partitioning import murmur2
from backends.clock import SYSTEM_CLOCK, Clock
from backends.environment import load_settings
from backends.kafka.writing import LogWriter
from backends.keys import load_key_pair
from backends.log import Position, RecordWriter
from backends.observer import UNOBSERVED, Observer
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from producers.sdk.announcements import Announcements
from producers.sdk.bases import Base, Bases, arrays_of, flat_of
from producers.sdk.eligibility import CanRun, Eligibility
from producers.sdk.heart import Heart
from producers.sdk.pace import Turn, heard_of, next_turn
from producers.sdk.turns import check_cohort_known, not_its_turn
from producers.sdk.updates import (
    Author,
    Contribution,
    Outcome,
    Publication,
    check_size,
    honest_record,
    seal_update,
)
from producers.sdk.verdict_wait import await_verdict
from producers.sdk.whose_key import holder_of_key
from schemas.states import base_as_held, frozen_of, state_file, update_of_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt

    from aggregation.codecs import CodecName
    from aggregation.fold.events import Verdict
    from backends.settings import Settings
    from learning import Examples, Task
    from learning.training import LocalResult
    from schemas.tensor_files import RawTensor

log = logging.getLogger("fluvial.device")

ANNOUNCEMENT_TIMEOUT_S: Final = 60.0
VERDICT_TIMEOUT_S: Final = 60.0
TURN_ASKED_EVERY_S: Final = 1.0  # a device that waits for its turn looks at least so often


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where the broker put an update."""

    topic: str
    partition: int
    offset: int
    update_id: str

    @property
    def place(self) -> str:
        """``topic[partition]@offset``."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Device:
    """A device of one region. Not thread-safe; many devices may share a writer, announcements and bases."""

    def __init__(
        self,
        settings: Settings,
        author: Author,
        *,
        bases: Bases,
        writer: RecordWriter,
        announcements: Announcements,
        codec: CodecName = DEFAULT_CODEC,
        clock: Clock = SYSTEM_CLOCK,
        observer: Observer = UNOBSERVED,
        can_run: CanRun | None = None,
        heart: Heart | None = None,
    ) -> None:
        self.author = author
        self.heart = heart or Heart(author, writer, clock, 0.0)
        self.eligibility = Eligibility(can_run, f"device {author.device_id}")
        self.codec: CodecName = codec
        self._settings = settings
        self._bases = bases
        self._writer = writer
        self._announcements = announcements
        self._owns_announcements = False
        self._bound: tuple[Task, Task] | None = None
        self._frozen: Mapping[str, RawTensor] | None = None
        self._clock = clock
        self._observer = observer

    @classmethod
    def open(
        cls,
        settings: Settings | None = None,
        *,
        task: str,
        region: str,
        key: Path | str,
        genesis_sha256: str | None = None,
        codec: CodecName = DEFAULT_CODEC,
        seed: int = 0,
        writer: RecordWriter | None = None,
        announcements: Announcements | None = None,
        observer: Observer = UNOBSERVED,
        can_run: CanRun | None = None,
        heartbeat_s: float = 0.0,
    ) -> Device:
        """A device by its key; its id and region stand in the certificate. A region may be an edge: its Kafka is asked.

        ``key``: a file (``fluvial ca issue`` writes one), plain or encrypted, or the ``pkcs11:`` URI of one in a token.

        ``can_run`` says whether the device may take part now (``producers.sdk.eligibility``; ``Conditions`` is one); it
        is asked before fetching and before training, and ``device.eligibility.why_not()`` asks it at any other time.

        With ``heartbeat_s`` above 0 it says that it is there, so often while it waits or trains, to a task that was
        made with a topic for that.

        Without ``settings``, the addresses come from FLUVIAL_* variables or the stack on this machine (FLV-1001).
        ``genesis_sha256`` is the trust anchor: without it, the store is believed. UsageProblem FLV-2407 (region),
        FLV-2506 (a certificate that does not fit); FLV-2302 to FLV-2319 (the key); what the store raises. Where a token
        goes away, publishing raises AccessProblem FLV-2318.
        """
        settings = settings or load_settings(role="device")
        store = TaskStore(open_object_store(settings.store), task)
        genesis = store.genesis(genesis_sha256)
        key_pair = load_key_pair(key, settings.key)
        holder = holder_of_key(key_pair, genesis, region, key)
        signer = key_pair.of_task(genesis.domain)
        author = Author(genesis, region, holder.name, signer, seed, holder.cohort)
        device = cls(
            settings,
            author,
            bases=Bases(store, genesis),
            writer=writer or LogWriter(settings, f"fluvial-device-{author.device_id}"),
            announcements=announcements or Announcements(settings, genesis, region=region),
            codec=codec,
            observer=observer,
            can_run=can_run,
            heart=Heart.of(settings, author, SYSTEM_CLOCK, heartbeat_s) if heartbeat_s > 0.0 else None,
        )
        device._owns_announcements = announcements is None
        return device

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Deliver what is under way and release what this device opened itself."""
        self._writer.flush()
        self.heart.stop()
        if self._owns_announcements:
            self._announcements.close()

    @property
    def device_id(self) -> str:
        """The id that the certificate says."""
        return self.author.device_id

    def fetch(self, *, newer_than: int = -1, timeout_s: float = ANNOUNCEMENT_TIMEOUT_S) -> Base:
        """The newest announced version, once it is above ``newer_than``. TimeoutProblem FLV-2502 if there is none.

        Announcements of the past are read first, so a device that just started gets the newest, not the first.
        NotNowProblem FLV-2512 where the device may not take part now.
        """
        self.eligibility.require()
        announcement = self._announcements.wait_for(self.author.region, newer_than + 1, timeout_s)
        return self._bases.announced(announcement)

    def fetch_selected(self, *, newer_than: int = -1, timeout_s: float = ANNOUNCEMENT_TIMEOUT_S) -> Base:
        """The newest version above ``newer_than`` that this device may answer, see ``is_selected``; waits for its turn.

        TimeoutProblem FLV-2502 if there is no such version in time, FLV-2508 if there is, and it is not its turn;
        FLV-2512 (NotNowProblem) if the device may not take part all the time, or not any more.
        """
        clock, base, known_at = self._clock, None, 0.0
        until = clock.monotonic() + timeout_s
        while base is None or not self.is_selected(base, clock.monotonic() - known_at):
            held = newer_than if base is None else base.version
            may_wait_s = max(0.0, until - clock.monotonic())
            self.eligibility.wait(clock, may_wait_s, partial(self.heart.beat, "declined", held))
            left_s = until - clock.monotonic()
            self.heart.beat("waiting", held)
            if base is not None and left_s <= 0.0:
                raise not_its_turn(self.author, base, timeout_s)
            step_s = (
                left_s if base is None else min(left_s, base.policy.buffer.seconds_max, TURN_ASKED_EVERY_S)
            )
            try:
                newest = self._announcements.wait_for(self.author.region, held + 1, step_s)
                base = self._bases.announced(newest)
            except TimeoutProblem:
                if base is None:
                    raise
            else:
                known_at = clock.monotonic()
        return base

    def fetch_version(self, version: int) -> Base:
        """An earlier version, by its manifest. UsageProblem FLV-2507 when there is none of that number."""
        return self._bases.at(version)

    def is_selected(self, base: Base, waited_s: float = 0.0) -> bool:
        """Whether this device may answer ``base``, by the lot of the task's policy: ask before training.

        Where it may not, what it publishes is ``not_selected``. Then fetch a newer version and ask again; or, where
        none comes, ask again with ``waited_s``, for how many seconds this device has known ``base``: a selection
        widens with every ``buffer.seconds_max`` of the policy.
        """
        return self.author.is_selected(base, waited_s)

    def next_turn(self, *, newer_than: int = -1) -> Turn:
        """When to come back: how long until this device may be selected, or a version above ``newer_than`` be expected.

        By the times of announcements, the policy and the lot, all of which are public; a guess, which binds nobody. A
        device may sleep so long (``wait_s``) in the place of asking again and again. TimeoutProblem FLV-2502 where
        nothing is announced yet.
        """
        heard = heard_of(self._announcements, self.author.region, self._clock, ANNOUNCEMENT_TIMEOUT_S)
        policy, who = self._bases.policy(heard.policy_sha256), self.author
        return next_turn(policy, who.genesis.task, who.device_id, who.cohort, heard, newer_than=newer_than)

    def train(
        self,
        base: Base,
        task: Task,
        examples: Examples,
        private: Mapping[str, RawTensor] | None = None,
    ) -> LocalResult:
        """Train the task's model from ``base`` on this device's examples; what ``learning.training`` raises.

        NotNowProblem FLV-2512, before anything is done, where the device may not take part now. Where the task has
        private layers or control variates, ``private`` are those that the last round gave, as ``result.private``: they
        are the device's, and whoever makes it keeps them (``producers.sdk.private_layers.PrivateLayers`` in a folder).
        """
        from learning.binding import bind
        from learning.training import train_locally

        self.eligibility.require()
        self.heart.beat("training", base.version)
        seed = murmur2(self.device_id.encode()) ^ self.author.seed
        if self._bound is None or self._bound[0] is not task:
            self._bound = (task, bind(task, self._bases.genesis, self._bases.store.get_object))
        return train_locally(
            self._bound[1],
            base.parameters,
            examples,
            task.config.at(seed=seed, version=base.version),
            private=private,
        )

    def arrays(self, base: Base) -> dict[str, npt.NDArray[np.float32]]:
        """``base`` as read-only arrays by tensor name, in the model's shapes: for training in any framework.

        Of a task with control variates it has the model's own tensors.
        """
        return arrays_of(base.parameters, self._bases.layout.without_control())

    def contribution(
        self,
        base: Base,
        trained: Mapping[str, Any],
        *,
        num_examples: int,
        loss: float,
        metrics: Mapping[str, float] | None = None,
    ) -> Contribution:
        """What to publish of ``trained``, after training from ``base``: arrays by name, all that ``arrays`` gives.

        Or the ``state_dict()`` of the task's torch module, whatever else is in it. What a model held in bfloat16 or
        float16 changed is its difference to the base's nearest such values.

        UsageProblem FLV-2504 when arrays are not the layout's tensors, FLV-4111 when a state is not the model's.
        """
        if any(hasattr(value, "detach") for value in trained.values()):
            from learning.kinds.torch_module import raw_state

            state = raw_state(trained)
            found, notes = self.contribution_of_state(base, state, num_examples=num_examples, loss=loss)
            for note in notes:
                log.warning(note)
            return replace(found, metrics=metrics or {})
        layout = self._bases.layout
        local = flat_of(trained, layout.without_control())
        held = base_as_held(self.author.genesis, local, base.parameters)
        update = update_of(local, held, layout)
        return Contribution(update, num_examples, loss, metrics or {})

    def state_file(self, base: Base) -> bytes:
        """All of the model ``base``, frozen and tied tensors as well: safetensors that torch loads strictly."""
        return state_file(
            self.author.genesis, base.version, base.sha256, base.parameters, self._frozen_tensors()
        )

    def contribution_of_state(
        self, base: Base, state: Mapping[str, RawTensor], *, num_examples: int, loss: float
    ) -> tuple[Contribution, list[str]]:
        """What to publish of a state of the task's model, trained from ``base``; and in words what that leaves out.

        UsageProblem FLV-4111, naming the tensor, when it is no state of the task's model: see ``update_of_state``.
        """
        update, notes = update_of_state(self.author.genesis, state, base.parameters, self._frozen_tensors())
        return Contribution(update, num_examples, loss), notes

    def _frozen_tensors(self) -> Mapping[str, RawTensor]:
        if self._frozen is None:
            self._frozen = frozen_of(self.author.genesis, self._bases.store.get_object)
        return self._frozen

    def publish(self, base: Base, outcome: Outcome) -> Receipt:
        """Clip, quantize, sign and append; returns when the broker has it.

        UsageProblem FLV-2501 (too large, before anything is sent), FLV-2504 (not a delta of this layout), FLV-2509 (its
        certificate names a cohort, and the policy knows none);
        ConnectionProblem FLV-3100 and TimeoutProblem FLV-3102 when the broker does not confirm. Publishing again
        after those is safe: a second copy is a ``duplicate``.
        """
        check_cohort_known(base.policy, self.author.cohort)
        created_at_ms = round(self._clock.time() * 1000)
        record = honest_record(
            self.author,
            base,
            self._bases.layout,
            codec=self.codec,
            outcome=outcome,
            created_at_ms=created_at_ms,
        )
        value = seal_update(self.author, record)
        check_size(value, base.policy, self._settings.message_bytes_max)
        what = self.author.publication(value, record["update_id"])
        position = self._append(what)
        return Receipt(position.topic, position.partition, position.offset, what.update_id)

    def _append(self, what: Publication) -> Position:
        observer, began_s = self._observer, self._clock.monotonic()
        headers = observer.publishing(what.region, self.codec, len(what.value))
        try:
            position = self._writer.append_now(
                what.topic, what.value, key=what.key, partition=what.partition, headers=headers
            )
        except FluvialError as error:
            observer.unacknowledged(what.region, error)
            observer.placed(headers, None)
            raise
        observer.acknowledged(what.region, self._clock.monotonic() - began_s)
        observer.placed(headers, position)
        return position

    def verdict(self, receipt: Receipt, *, timeout_s: float = VERDICT_TIMEOUT_S) -> Verdict:
        """What became of an update; TimeoutProblem FLV-2503 when no worker has judged it in time."""
        where, place = (receipt.partition, receipt.offset), receipt.place
        return await_verdict(self._settings, self.author, *where, place=place, timeout_s=timeout_s)
