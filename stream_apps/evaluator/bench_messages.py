"""What the evaluator and its bench say to each other: msgpack behind its length, over two pipes."""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

import msgspec

_LENGTH: Final = struct.Struct(">Q")


class MetricSaid(msgspec.Struct, frozen=True):
    """A task's metric."""

    name: str
    higher_is_better: bool


class Opening(msgspec.Struct, frozen=True):
    """Which task's models are evaluated: its genesis document, and the frozen object that it names, or none.

    ``data``: the place of held-out examples of one's own; "" for the task's.
    """

    genesis: bytes
    frozen: bytes | None = None
    data: str = ""


class Request(msgspec.Struct, frozen=True):
    """Evaluate ``model``, the bytes of a flat model of ``dtype``; with a ``metric`` its parts, by that metric."""

    model: bytes
    dtype: str
    metric: MetricSaid | None = None


class Trouble(msgspec.Struct, frozen=True):
    """What went wrong, as a ``FluvialError`` says it. ``not_finite``: the loss is no finite number."""

    error_id: str
    message: str
    where: str = ""
    hint: str = ""
    exit_code: int = 4
    not_finite: bool = False
    users_traceback: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Numbers by name, trouble, or both. The first answer says that the task and its data are there, and its METRIC."""

    numbers: dict[str, float] = {}
    trouble: Trouble | None = None
    metric: MetricSaid | None = None


def send(stream: BinaryIO, message: Opening | Request | Answer) -> None:
    """Write one message. OSError when nobody reads any more."""
    data = msgspec.msgpack.encode(message)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> bytes | None:
    """The next message's bytes; None at the end of the stream, also in the middle of a message."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    return data if len(data) == length else None
