"""What goes between Fluvial and a Flower app's process: one frame there, one back. Standard library and numpy only.

A frame is ``>4sII``: b"FLFL", the lengths of a JSON document and of arrays as ``numpy.save`` writes them, one behind
the other; then these two. A request's document says what to ``do``:

``open``      client and server by ``module:attribute``, folder, run_config, nodes → the first model's names and arrays
``train``     node (its node_config), version, a model's names and arrays → those that the client returns, ``metrics``
``evaluate``  the same, node null for the app's own central evaluation → ``metrics``

Each has a ``seed``. An answer that is none has ``refused`` (a kind), ``message``, ``where`` and ``traceback``.
"""

from __future__ import annotations

import io
import json
import struct
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HEAD: Final = struct.Struct(">4sII")
MAGIC: Final = b"FLFL"
DOCUMENT_BYTES_MAX: Final = 1 << 24
ARRAYS_BYTES_MAX: Final = (1 << 32) - 1

Document = dict[str, Any]
Arrays = list[np.ndarray]


class FrameError(Exception):
    """What came is no frame, or is cut off."""


def write_frame(stream: IO[bytes], document: Mapping[str, Any], arrays: Iterable[np.ndarray] = ()) -> None:
    """Write one frame and flush. ValueError for an array of objects, and for what is larger than a frame may be."""
    body = io.BytesIO()
    for array in arrays:
        np.save(body, np.asarray(array), allow_pickle=False)
    text = json.dumps(document, allow_nan=True).encode()
    if len(text) > DOCUMENT_BYTES_MAX or body.tell() > ARRAYS_BYTES_MAX:
        raise ValueError(f"too large for one message: {body.tell()} bytes of arrays")
    stream.write(HEAD.pack(MAGIC, len(text), body.tell()))
    stream.write(text)
    stream.write(body.getbuffer())
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[Document, Arrays] | None:
    """The next frame; None at the stream's end. Raises FrameError."""
    head = stream.read(HEAD.size)
    if not head:
        return None
    if len(head) < HEAD.size or head[:4] != MAGIC:
        raise FrameError(f"expected a frame, got {head[:16]!r}")
    _, text_bytes, body_bytes = HEAD.unpack(head)
    if text_bytes > DOCUMENT_BYTES_MAX:
        raise FrameError(f"a document of {text_bytes} bytes")
    text, body = stream.read(text_bytes), stream.read(body_bytes)
    if len(text) < text_bytes or len(body) < body_bytes:
        raise FrameError("a frame that is cut off")
    arrays, rest = [], io.BytesIO(body)
    while rest.tell() < body_bytes:
        arrays.append(np.load(rest, allow_pickle=False))
    document = json.loads(text)
    if not isinstance(document, dict):
        raise FrameError("a document that is no object")
    return document, arrays
