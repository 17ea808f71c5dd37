"""Why Kafka cannot be used: ``refusal`` goes the way of every client, step by step, and says where it is turned back.

Clients' libraries try for ever, and some say only that a connection broke. So whoever gets no answer asks here: an
AccessProblem is what waiting does not mend; None may be an outage, or all is well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiokafka import errors
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from confluent_kafka import KafkaError

from aggregation.errors import AccessProblem, FluvialError
from backends.kafka.configuration import addresses, client_options
from backends.kafka.problems import AWAY, problem_of
from backends.kafka.refusals import denied_of, other_protocol, refusal_in
from backends.settings import Settings

STEP_TIMEOUT_S: Final = 5.0
PATIENCE_S: Final = 20.0
SOON_S: Final = 3.0
NODES_ASKED_MAX: Final = 8
"""Brokers that a cluster names, which are asked as well: their names may be others than the first one's."""
AGAIN_S: Final = 3.0
_CLIENT: Final = "fluvial-diagnosis"
_Address = tuple[str, int]
_Visit = tuple[AccessProblem | None, list[_Address]]
"""What turns us back at one broker, and the brokers that it names if it lets us in."""
_TLS_ALERT: Final = b"\x15\x03"
_TLS_HANDSHAKE: Final = b"\x16\x03"
"""How a record of TLS begins: its type, and the first half of its version (RFC 8446, section 5.1)."""
_CORRELATION: Final = b"flv1"
_APIS_OF_KAFKA: Final = bytes.fromhex("0000000d00120000") + _CORRELATION + b"\x00\x03flv"
"""ApiVersions, version 0, with its length before it: every listener without TLS answers it, SASL or not."""

log = logging.getLogger("fluvial")


def refusal(settings: Settings, timeout_s: float = PATIENCE_S) -> AccessProblem | None:
    """Why the brokers refuse us; None where one lets us in, or none answers in time. Blocks.

    Raises UsageProblem FLV-3119: a file of ours is wrong.
    """
    with ThreadPoolExecutor(1) as apart:  # the caller's thread may have an event loop of its own
        return apart.submit(asyncio.run, refusal_async(settings, timeout_s)).result()


def require_no_refusal(settings: Settings, timeout_s: float = SOON_S) -> None:
    """AccessProblem FLV-3110 to FLV-3118 where the brokers refuse us: before a library would try for long."""
    found = refusal(settings, timeout_s)
    if found is not None:
        raise found


async def refusal_async(settings: Settings, timeout_s: float = PATIENCE_S) -> AccessProblem | None:
    """As ``refusal``."""
    ends_s = asyncio.get_running_loop().time() + timeout_s
    asked = addresses(settings)
    client_options(settings, _CLIENT)  # what is wrong with a file of ours is no broker's fault
    seen = await _visits(settings, asked, ends_s, lambda visit: bool(visit[1]))
    named = next((names for _, names in seen if names), None)
    if named is not None:
        others = [one for one in named if one not in asked][:NODES_ASKED_MAX]
        seen = await _visits(settings, others, ends_s, lambda visit: visit[0] is not None)
    return next((turned_back for turned_back, _ in seen if turned_back is not None), None)


async def _visits(
    settings: Settings, where: Sequence[_Address], ends_s: float, is_enough: Callable[[_Visit], bool]
) -> list[_Visit]:
    """Brokers visited side by side: what was seen until it is enough, or ``ends_s`` of the loop's clock is there."""
    loop = asyncio.get_running_loop()
    waiting = {asyncio.create_task(_visit(settings, *address)) for address in where}
    seen: list[_Visit] = []
    try:
        while waiting and not any(is_enough(one) for one in seen):
            done, waiting = await asyncio.wait(
                waiting, timeout=max(0.0, ends_s - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            seen += [one.result() for one in done]
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return seen


def problem_at(error: KafkaError, action: str, settings: Settings) -> FluvialError:
    """As ``problem_of``; where librdkafka only knows that nobody answers, it is seen why."""
    found = refusal(settings) if error.code() in AWAY else None
    return found or problem_of(error, action, settings.bootstrap_servers)


def writer_refusal(settings: Settings) -> AccessProblem | None:
    """Why a producer has failed for good, where that is a permission: FLV-3117 without one to write to any topic.

    confluent-kafka loses librdkafka's own reason where another callback comes in between.
    """
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(asyncio.run, _writer_refusal(settings)).result()


async def _writer_refusal(settings: Settings) -> AccessProblem | None:
    for host, port in addresses(settings):
        with contextlib.suppress(errors.KafkaError, OSError, TimeoutError, EOFError, FluvialError):
            async with asyncio.timeout(2 * STEP_TIMEOUT_S):
                connection = await create_conn(host, port, **client_options(settings, _CLIENT))
                try:
                    answer: Any = await connection.send(InitProducerIdRequest(None, 0))
                finally:
                    connection.close()
            return denied_of(answer.error_code, "write", f"broker {host}:{port}")
    return None


class RefusalWatch:
    """For a client whose library goes on in silence: given each of its errors, it tells ``on_refusal`` of a refusal.

    One look at a time, and the next one ``AGAIN_S`` after it at the soonest.
    """

    def __init__(self, settings: Settings, on_refusal: Callable[[FluvialError], None] | None = None) -> None:
        self._settings = settings
        self._on_refusal = on_refusal
        self._lock = threading.Lock()
        self._looks = False
        self._looked_s = -AGAIN_S
        self._said = False

    def __call__(self, _error: object) -> None:
        """Look why, on a thread of its own."""
        if self._begin():
            threading.Thread(target=self._look_and_tell, name="fluvial-diagnosis", daemon=True).start()

    def look(self, timeout_s: float = SOON_S) -> FluvialError | None:
        """Why the brokers refuse us, or what is wrong with our settings; None where it is not known. Blocks."""
        return self._look(timeout_s) if self._begin() else None

    def _begin(self) -> bool:
        with self._lock:
            if self._looks or time.monotonic() - self._looked_s < AGAIN_S:
                return False
            self._looks = True
            return True

    def _look_and_tell(self) -> None:
        found = self._look(PATIENCE_S)
        if found is not None and self._on_refusal is not None:
            self._on_refusal(found)

    def _look(self, timeout_s: float) -> FluvialError | None:
        try:
            return refusal(self._settings, timeout_s)
        except FluvialError as problem:
            return problem
        except Exception:
            if not self._said:
                log.exception("why Kafka does not answer cannot be seen")
            self._said = True
            return None
        finally:
            self._looked_s = time.monotonic()
            self._looks = False


async def _visit(settings: Settings, host: str, port: int) -> _Visit:
    where = f"broker {host}:{port}"
    options = client_options(settings, _CLIENT) | {"request_timeout_ms": int(STEP_TIMEOUT_S * 1000)}
    connection: AIOKafkaConnection | None = None
    try:
        async with asyncio.timeout(2 * STEP_TIMEOUT_S):
            connection = await create_conn(host, port, **options)
            answer = await connection.send(MetadataRequest([], allow_auto_topic_creation=False))
        return None, [(name, number) for _, name, number, *_ in answer.brokers]
    except FluvialError as error:
        return (error if isinstance(error, AccessProblem) else None), []
    except ConnectionRefusedError:
        return None, []
    except (errors.KafkaError, OSError, TimeoutError, EOFError) as error:
        known = refusal_in(error, "get in", where)
        return known or await _mismatch(settings, host, port, where, reached=connection is not None), []
    finally:
        if connection is not None:
            connection.close()


async def _mismatch(
    settings: Settings, host: str, port: int, where: str, *, reached: bool
) -> AccessProblem | None:
    """FLV-3114 where the listener is seen to speak otherwise; a connection that broke may be an outage as well."""
    kafka = settings.kafka
    if reached:  # it knows our protocol, and yet hung up on the first question
        wants_sasl = not kafka.has_sasl and await _asks_for_sasl(settings, host, port)
        return other_protocol("it asks for SASL, and we are not set to it", where) if wants_sasl else None
    if kafka.has_tls and await _speaks_plainly(host, port):
        return other_protocol("it does not speak TLS, and we are set to it", where)
    if not kafka.has_tls and await _speaks_tls(host, port):
        return other_protocol("it speaks TLS, and we are not set to it", where)
    return None


async def _asks_for_sasl(settings: Settings, host: str, port: int) -> bool:
    """A listener without SASL answers this with ILLEGAL_SASL_STATE."""
    with contextlib.suppress(errors.KafkaError, OSError, TimeoutError, EOFError):
        connection = await create_conn(host, port, **client_options(settings, _CLIENT))
        try:
            answer: Any = await connection.send(SaslHandShakeRequest("PLAIN"))
        finally:
            connection.close()
        return bool(answer.error_code in {errors.NoError.errno, errors.UnsupportedSaslMechanismError.errno})
    return False


async def _speaks_plainly(host: str, port: int) -> bool:
    answer = await _answer(host, port, _APIS_OF_KAFKA, len(_CORRELATION) + 4)
    return answer[4:] == _CORRELATION


async def _speaks_tls(host: str, port: int) -> bool:
    """It begins a handshake, or is heard to complain about ours."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    hello = ssl.MemoryBIO()
    handshake = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=None)
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return await _answer(host, port, hello.read(), 2) in {_TLS_ALERT, _TLS_HANDSHAKE}


async def _answer(host: str, port: int, question: bytes, length: int) -> bytes:
    """The first bytes that are answered; b"" where none are."""
    with contextlib.suppress(OSError, TimeoutError, EOFError):
        async with asyncio.timeout(STEP_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(question)
                return await reader.readexactly(length)
            finally:
                writer.close()
    return b""
