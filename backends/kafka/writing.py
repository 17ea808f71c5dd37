"""Appending to Kafka with confirmation, by librdkafka. All producers are idempotent, with ``acks=all``.

Methods block; asynchronous callers use ``asyncio.to_thread``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import groupby
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from aggregation.errors import FluvialError, TimeoutProblem
from backends.kafka.configuration import DELIVERY_TIMEOUT_S, REQUEST_TIMEOUT_S, producer_configuration
from backends.kafka.diagnosis import RefusalWatch, writer_refusal
from backends.kafka.problems import ended_problem, problem_of
from backends.kafka.refusals import denied_of
from backends.log import Headers, Outgoing, Position, Together
from backends.observer import UNOBSERVED, Observer
from backends.settings import Settings

POLL_S: Final = 0.25
POLL_EVERY_S: Final = 0.005
"""How often appending asks for answers: no answer comes sooner than a batch has lingered."""
# librdkafka's own codes have an underscore and are public all the same.
FATAL: Final = KafkaError._FATAL  # noqa: SLF001
_GIVEN_UP: Final = frozenset(
    {
        FATAL,
        KafkaError._PURGE_QUEUE,  # noqa: SLF001
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
    }
)
"""Of records that were never sent."""
_AFTER_FATAL: Final = frozenset({FATAL, KafkaError._PURGE_QUEUE})  # noqa: SLF001
"""Of records that librdkafka had when it gave up by itself: we purge with a reason only."""


Delivered = Callable[[KafkaError | None, Message], None]
Answered = Callable[[Outgoing | None, KafkaError | None], None]


class LogWriter:
    """An idempotent producer. ``append`` returns at once with a future; the record is safe when it resolves."""

    def __init__(
        self, settings: Settings, client_id: str, *, give_up: bool = True, observer: Observer = UNOBSERVED
    ) -> None:
        """With ``give_up`` false a record waits for its broker as long as it takes: for workers and mergers."""
        self._observer = observer
        self._bootstrap = settings.bootstrap_servers
        self._polled_s = 0.0
        self._settings = settings
        self._refusal: FluvialError | None = None
        self._refused_s = 0.0
        self._ended: FluvialError | None = None
        self._waiting: set[Future[Position] | Together] = set()
        self._lock = threading.Lock()
        """Of ``_waiting``: several threads poll, and whoever takes one out of it answers it."""
        self._watch = RefusalWatch(settings, self._refuse)
        self._producer = Producer(
            producer_configuration(settings, client_id, give_up=give_up) | {"error_cb": self._watch}
        )

    def _refuse(self, problem: FluvialError) -> None:
        """The brokers turn us back, and waiting does not mend it: what waits fails at once, with the reason."""
        self._refusal, self._refused_s = problem, time.perf_counter()
        self._producer.purge(in_queue=True, in_flight=False, blocking=False)

    def _taken(self, began_s: float) -> None:
        """The brokers took a record: a refusal that is older than it is over."""
        if self._refusal is not None and began_s > self._refused_s:
            self._refusal = None

    def _take(self, waiting: Future[Position] | Together) -> bool:
        """Whether the caller is the one to answer it."""
        with self._lock:
            is_ours = waiting in self._waiting
            self._waiting.discard(waiting)
            return is_ours

    def _wait_for(self, waiting: Future[Position] | Together) -> None:
        with self._lock:
            self._waiting.add(waiting)

    def _serve(self, call: Callable[[], int]) -> int:
        """Let librdkafka tell what it has to: how many records still wait. A fatal error fails all of them."""
        try:
            return call()
        except:  # noqa: E722 - confluent-kafka raises a fatal error as a KafkaError, which is no exception of Python's
            fatal = _fatal_in(sys.exc_info()[1])
            if fatal is None:
                raise
        problem = self._of_fatal(fatal)
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for one in waiting:  # confluent-kafka may have dropped what was to be told of them
            _fail(one, problem)
        return 0

    def _of_fatal(self, error: KafkaError) -> FluvialError:
        """What ended this producer: it takes no record any more."""
        if self._ended is None:
            self._ended = (
                self._refusal
                or denied_of(error.code(), "write", f"broker {self._bootstrap}")
                or writer_refusal(self._settings)
                or ended_problem(error, self._bootstrap)
            )
        return self._ended

    def _told(self, error: KafkaError, action: str) -> FluvialError:
        try:
            code = error.code()
        except SystemError as pending:  # a fatal error was raised before this callback, in the same call
            return self._of_fatal(_fatal_in(pending) or error)
        if self._ended is not None or code == FATAL or (code in _AFTER_FATAL and self._refusal is None):
            return self._of_fatal(error)
        return self._problem(error, action)

    def _problem(self, error: KafkaError, action: str) -> FluvialError:
        if error.code() in _GIVEN_UP and self._refusal is not None:
            return self._refusal
        return problem_of(error, action, self._bootstrap)

    def append(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Future[Position]:
        """Append one record; -1 lets the key choose (murmur2, the same as ``aggregation.partitioning``)."""
        future: Future[Position] = Future()
        self._wait_for(future)
        began_s = time.perf_counter()

        def delivered(error: KafkaError | None, message: Message) -> None:
            problem = self._told(error, f"append to {topic}") if error is not None else None
            self._observer.produced(topic, time.perf_counter() - began_s, problem)
            if problem is None:
                self._taken(began_s)
            if not self._take(future):
                return  # it was told of a fatal error before
            if problem is not None:
                future.set_exception(problem)
            else:
                future.set_result(
                    Position(message.topic() or topic, message.partition() or 0, message.offset() or 0)
                )

        try:
            self._produce(topic, Outgoing(key, value, headers), partition, delivered)
        except KafkaException as error:
            self._take(future)
            raise self._told(error.args[0], f"append to {topic}") from error
        if began_s - self._polled_s >= POLL_EVERY_S:
            self._polled_s = began_s
            self._serve(lambda: self._producer.poll(0))
        return future

    def append_together(self, topic: str, records: Sequence[Outgoing], *, partition: int) -> Together:
        """Begin to append records to one partition, in their order, at a fraction of the cost of one after another.

        Nothing is raised: what librdkafka refuses at once is among ``refused``, as what the broker refuses later.
        """
        together = Together(records)
        if records:
            self._wait_for(together)
        began_s = time.perf_counter()

        def answered(record: Outgoing | None = None, error: KafkaError | None = None) -> None:
            problem = None if error is None else self._told(error, f"append to {topic}")
            is_last = self._answer(together, record, problem, began_s)
            if problem is not None:
                self._observer.produced(topic, time.perf_counter() - began_s, problem)
            if is_last and (taken := len(records) - len(together.refused)):
                self._observer.produced(topic, time.perf_counter() - began_s, None, taken)

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                answered()
            else:
                answered(Outgoing(message.key(), message.value() or b""), error)

        for has_headers, some in groupby(records, lambda record: bool(record.headers)):
            if has_headers:  # which librdkafka's batches cannot hold
                for record in some:
                    self._produce_one(topic, record, partition, answered)
            else:
                self._produce_batch(topic, list(some), partition, delivered, answered)
        self._serve(lambda: self._producer.poll(0))
        return together

    def _answer(
        self, together: Together, record: Outgoing | None, problem: FluvialError | None, began_s: float
    ) -> bool:
        """Whether it was the last answer; what was told of a fatal error is not told again."""
        if problem is None:
            self._taken(began_s)
        is_last = together.answer(record, problem)
        if is_last:
            self._take(together)
        return is_last

    def _produce_one(self, topic: str, record: Outgoing, partition: int, answered: Answered) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            answered(record, error)

        try:
            self._produce(topic, record, partition, delivered)
        except KafkaException as error:
            answered(record, error.args[0])

    def _produce_batch(
        self,
        topic: str,
        records: Sequence[Outgoing],
        partition: int,
        delivered: Delivered,
        answered: Answered,
    ) -> None:
        waiting: list[dict[str, Any]] = [{"key": record.key, "value": record.value} for record in records]
        while waiting:
            if self._producer.produce_batch(topic, waiting, partition, delivered) == len(waiting):
                return
            full = []
            for one in waiting:
                error: KafkaError | None = one.pop("_error", None)
                if error is None:
                    continue
                if error.code() == KafkaError._QUEUE_FULL:  # noqa: SLF001 - public, as all of librdkafka's own
                    full.append(one)
                else:
                    answered(Outgoing(one["key"], one["value"]), error)
            if full:
                self._serve(lambda: self._producer.poll(POLL_S))  # let deliveries make room
            waiting = full

    def _produce(self, topic: str, record: Outgoing, partition: int, delivered: Delivered) -> None:
        """Hand one record over, once there is room for it. Raises KafkaException."""
        headers: Any = list(record.headers) or None
        while True:
            try:
                self._producer.produce(
                    topic, record.value, record.key, partition, on_delivery=delivered, headers=headers
                )
            except BufferError:
                self._serve(
                    lambda: self._producer.poll(POLL_S)
                )  # the queue is full: let deliveries make room
            else:
                return

    def append_now(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int = -1,
        headers: Headers = (),
    ) -> Position:
        """Append one record and wait until the broker has it."""
        future = self.append(topic, value, key=key, partition=partition, headers=headers)
        self.flush()
        return future.result(timeout=REQUEST_TIMEOUT_S)

    def poll(self) -> None:
        """Run the delivery callbacks that are due."""
        self._serve(lambda: self._producer.poll(0))

    def flush(self, timeout_s: float = DELIVERY_TIMEOUT_S) -> None:
        """Wait until every record was delivered or has failed; TimeoutProblem (FLV-3102) after ``timeout_s``."""
        left = self._serve(lambda: self._producer.flush(timeout_s))
        if left:
            raise self._watch.look() or TimeoutProblem(
                "FLV-3102",
                f"{left} records were not acknowledged by {self._bootstrap} within {timeout_s:g} s",
                hint="see whether the broker runs with `fluvial doctor`",
            )


def _fatal_in(raised: object) -> KafkaError | None:
    """Librdkafka's fatal error in what was raised: as it is, in an exception, or pending when Python was called.

    Where a callback came in between, confluent-kafka has lost it, and says only that something is wrong.
    """
    if isinstance(raised, SystemError):
        raised = raised.__cause__ or KafkaError(FATAL)
    if isinstance(raised, KafkaException):
        raised = raised.args[0]
    return raised if isinstance(raised, KafkaError) else None


def _fail(waiting: Future[Position] | Together, problem: FluvialError) -> None:
    if isinstance(waiting, Future):
        waiting.set_exception(problem)
    else:
        waiting.fail(problem)
