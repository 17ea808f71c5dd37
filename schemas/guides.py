"""Guides: directions that a guardian signs. An object in the store, under the hash that a barrier names; pure.

The object is the whole signed envelope, so whoever has it can tell who vouches for the direction: a merger that names
one can leave guides out, and make none up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from aggregation.codecs import Direction
from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Guide
from schemas.avro import CodecError
from schemas.certificates import BadCertificateError, Role, Trust
from schemas.checkpoints import decode_direction, encode_direction
from schemas.envelope import read_envelope

if TYPE_CHECKING:
    from aggregation.layout import Layout
    from schemas.envelope import Envelope, Signer


NORM_MIN: Final = 1e-100
NORM_MAX: Final = 1e100
"""Of a guide: squares of it are numbers, and not 0."""
ENVELOPE_BYTES_MAX: Final = 16_384
"""What a guide has beside its direction: a certificate, a signature, names, the head of a safetensors file."""


def guide_bytes_max(layout: Layout) -> int:
    """How many bytes a guide of a layout has at most: a byte a weight, a scale a tensor, and what is around them."""
    weights = layout.trainable
    return weights.parameters + 8 * len(weights.tensors) + ENVELOPE_BYTES_MAX


class NoGuideError(ValueError):
    """Bytes that are no guide of a task; the message says why, in words that go on from "the guide"."""


def signed_guide(
    signer: Signer, *, task: str, version: int, model_sha256: str, examples: int, direction: Direction
) -> bytes:
    """The object: a guardian's envelope of a direction that ``examples`` of a root set give at a version."""
    record = {
        "task": task,
        "version": version,
        "model_sha256": model_sha256,
        "examples": examples,
        "direction": encode_direction(direction),
    }
    return signer.sign("Guide", record)


def guide_in(data: bytes, trust: Trust, task: str, layout: Layout) -> Guide:
    """The guide in an object. Raises ``NoGuideError`` for one that no guardian of the task signed, or is not whole.

    When its certificate was valid is not asked: an object has no time. Mergers ask, when they take a guide.
    """
    if len(data) > guide_bytes_max(layout):
        raise NoGuideError(f"has {len(data)} bytes, one of this layout {guide_bytes_max(layout)} at most")
    envelope, serial = _signed(data, trust)
    record = envelope.record
    if record["task"] != task:
        raise NoGuideError(f"is for the task {record['task'][:64]!r}")
    try:
        direction = decode_direction(record["direction"], layout)
    except IntegrityProblem as problem:
        raise NoGuideError(f"does not fit the task's layout: {problem.message}") from problem
    if encode_direction(direction) != record["direction"]:
        raise NoGuideError("has a direction that is not in the one form of such a file")
    if not all(math.isfinite(scale) and scale >= 0.0 for scale in direction.scales):
        raise NoGuideError("has a scale that is no number, or negative")
    if not NORM_MIN <= direction.norm <= NORM_MAX:
        raise NoGuideError("points nowhere: all of it is 0, or out of all bounds")
    return Guide(record["version"], record["model_sha256"], direction, trust.rules.certificate_name(serial))


def _signed(data: bytes, trust: Trust) -> tuple[Envelope, str]:
    try:
        closed = read_envelope(data, trust.rules)
        signer = trust.identify(closed.certificate)
        if closed.kind != "Guide" or signer.role is not Role.GUARDIAN:
            raise NoGuideError(f"is a {closed.kind} of a {signer.role.value}")
        if not closed.signed_by(signer.public_key, trust.domain):
            raise NoGuideError(f"is not signed by {signer.name} for this task")
        return closed.open(trust.rules), signer.serial
    except CodecError as error:
        raise NoGuideError(f"cannot be decoded: {error}") from error
    except BadCertificateError as error:
        raise NoGuideError(f"is signed by nobody of this task: {error}") from error


def flaw_of_guide(guide: Guide, version: int, versions_max: int, model_sha256: str) -> str:
    """Why the manifest of ``version`` may not name a guide, in words that go on from "its guide"; "" where it may.

    ``model_sha256`` is that of the version that the guide is for; "" where there is no such version.
    """
    age = version - guide.version
    if not 0 < age <= versions_max:
        return f"is for version {guide.version}, {age} before this one: 1 to {versions_max} are allowed"
    if guide.model_sha256 != model_sha256:
        return f"is for another model of version {guide.version} than that version has"
    return ""


def guide_facts(data: bytes, trust: Trust) -> dict[str, Any]:
    """Who signed a guide, for which version, with how many examples: for people. Raises ``NoGuideError``."""
    envelope, serial = _signed(data, trust)
    record = envelope.record
    return {
        "version": record["version"],
        "examples": record["examples"],
        "model_sha256": record["model_sha256"],
        "certificate_serial": serial,
    }
