"""From a trained delta to signed bytes: clip, quantize, encode, sign, and where to append them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from aggregation.codecs import VALUE_BYTES, CodecName, EncodedTensor, below_zero, data_bytes, encode_update
from aggregation.errors import UsageProblem
from aggregation.partitioning import murmur2, partition_of
from aggregation.selection import Candidate, is_selected, turns_after
from schemas import avro
from schemas.certificates import CERTIFICATE_BYTES_MAX
from schemas.edges import partitions_of
from schemas.topics import updates_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from producers.sdk.bases import Base
    from schemas.envelope import Signer
    from schemas.manifests import Genesis

TURNS_LATE: Final = 1
"""How many turns a device that was not selected at first lets pass before it takes its own."""
UPDATE_ID_HEX: Final = 32
_FRAMING_BYTES_MAX: Final = CERTIFICATE_BYTES_MAX + 2048
_TENSOR_FRAMING_BYTES: Final = 40
_DIMENSION_BYTES: Final = 10
_WIDTH_ELEMENTS: Final = 1 << 10
"""How many elements codecs are compared by: enough that no padding counts."""


class Outcome(Protocol):
    """What local training gives: ``learning``'s LocalResult is one, a ``Contribution`` of one's own another."""

    @property
    def delta(self) -> npt.NDArray[np.float32]:
        """float32[P]: local - base of the weights, then the local values of the buffers: ``codecs.update_of``."""
        ...

    @property
    def num_examples(self) -> int:
        """Examples trained on."""
        ...

    @property
    def loss(self) -> float:
        """Mean training loss."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Whatever else the device reports."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """An ``Outcome`` from training that is not ``learning``'s: any framework, or none. ``delta``: see ``Outcome``."""

    delta: npt.NDArray[np.float32]
    num_examples: int
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Publication:
    """Bytes, and where to append them. ``region`` is the region of the log that they go to."""

    region: str
    topic: str
    partition: int
    key: bytes
    value: bytes
    update_id: str


@dataclass(frozen=True, slots=True)
class Author:
    """A device as it signs: its id, its region, its key, and the task it works for.

    ``cohort`` is what its certificate names, "" for none.
    """

    genesis: Genesis
    region: str
    device_id: str
    signer: Signer
    seed: int = 0
    cohort: str = ""

    def rng(self, base_version: int, purpose: int = 0) -> np.random.Generator:
        """The generator of this device's random choices on one base, such as stochastic rounding."""
        entropy = [self.seed, murmur2(self.device_id.encode()), abs(base_version), purpose]
        return np.random.default_rng(entropy)

    def update_id(self, base: Base) -> str:
        """The id of this device's one contribution to ``base``: a retry has the same."""
        text = f"{self.genesis.task}/{self.region}/{self.device_id}/{base.version}/{base.sha256}"
        return hashlib.sha256(text.encode()).hexdigest()[:UPDATE_ID_HEX]

    def is_selected(self, base: Base, waited_s: float = 0.0) -> bool:
        """Whether the task's policy lets this device answer ``base``; see ``may_answer``."""
        return may_answer(self.genesis.task, self.device_id, base, waited_s, self.cohort)

    def publication(self, value: bytes, update_id: str, region: str | None = None) -> Publication:
        """``value``, addressed to this device's partition of its own region's log, or of ``region``'s."""
        there = region or self.region
        partition = partition_of(self.device_id, partitions_of(self.genesis, there))
        topic = updates_topic(self.genesis.task, there)
        return Publication(there, topic, partition, self.device_id.encode(), value, update_id)


def may_answer(task: str, device_id: str, base: Base, waited_s: float, cohort: str = "") -> bool:
    """Whether the task's policy lets a device answer ``base``: an update of one that it does not is refused.

    ``waited_s``: for how long the device knows that ``base`` is the newest version, at the least. The log counts turns
    by its own times, which may step back where a broker gives way to another: so a device that waits for its turn comes
    ``TURNS_LATE`` turns after it.
    """
    turns = max(0, turns_after(waited_s, base.policy.buffer.seconds_max) - TURNS_LATE)
    candidate = Candidate(task, device_id, base.version, base.sha256, turns, cohort)
    return base.version == 0 or is_selected(base.policy.selection, candidate)


def clipped_update(
    update: npt.NDArray[np.float32], layout: Layout, norm_clip: float
) -> npt.NDArray[np.float32]:
    """``update`` float32[P] with its weights ``clipped``; all else stays as it is: buffers are values, and the
    fold clips control deltas.
    """
    weights = layout.trainable.parameters
    if weights == update.size:
        return clipped(update, norm_clip)
    return np.concatenate([clipped(update[:weights], norm_clip), update[weights:]])


def clipped(delta: npt.NDArray[np.float32], norm_clip: float) -> npt.NDArray[np.float32]:
    """``delta`` float32[P], scaled down to the L2 norm ``norm_clip`` if it is above."""
    norm = float(np.linalg.norm(delta.astype(np.float64)))
    if norm <= norm_clip:
        return delta
    return (delta.astype(np.float64) * (norm_clip / norm)).astype(np.float32)


def check_delta(delta: npt.NDArray[np.float32], layout: Layout) -> None:
    """Raise UsageProblem FLV-2504 unless ``delta`` is finite float32[P], and no buffer below 0 that may not be."""
    if delta.shape != (layout.parameters,) or delta.dtype != np.float32:
        raise UsageProblem(
            "FLV-2504",
            f"the delta is {delta.dtype}{list(delta.shape)}, the model's layout takes float32[{layout.parameters}]",
            hint="publish local parameters minus base parameters, buffers as they are, flat, in the layout's order",
        )
    broken = int(np.count_nonzero(~np.isfinite(delta)))
    if broken:
        raise UsageProblem(
            "FLV-2504",
            f"the delta has {broken} values that are NaN or infinite, every value has to be finite",
            hint='lower CONFIG["learning_rate"] in the task file, or scale the inputs to about 0 … 1',
        )
    below = below_zero(delta[layout.trainable.parameters : layout.model_parameters], layout.buffers)
    if below:
        raise UsageProblem(
            "FLV-2504",
            f"buffer {below} has an element below 0, none of it may be",
            hint="publish buffers as they stand after training, not their change: `device.contribution` does",
        )


def choose_codec(policy: Policy, wanted: CodecName) -> CodecName:
    """``wanted`` where the policy takes it, else the first that it takes."""
    return wanted if wanted in policy.updates.codecs else policy.updates.codecs[0]


def update_record(
    author: Author,
    base: Base,
    tensors: list[EncodedTensor],
    layout: Layout,
    *,
    codec: CodecName,
    outcome: Outcome,
    created_at_ms: int,
) -> dict[str, Any]:
    """A ClientUpdate as the Avro schema wants it."""
    delta_norm = float(np.linalg.norm(outcome.delta[: layout.trainable.parameters]))
    return {
        "task": author.genesis.task,
        "region": author.region,
        "device_id": author.device_id,
        "base_version": base.version,
        "base_sha256": base.sha256,
        "update_id": author.update_id(base),
        "num_examples": outcome.num_examples,
        "local_loss": outcome.loss,
        "codec": codec,
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "scale": t.scale, "data": t.data} for t in tensors
        ],
        "client_metrics": {**outcome.metrics, "delta_norm": delta_norm},
        "created_at": created_at_ms,
    }


def honest_record(
    author: Author, base: Base, layout: Layout, *, codec: CodecName, outcome: Outcome, created_at_ms: int
) -> dict[str, Any]:
    """Clip, quantize and describe an honest update. UsageProblem FLV-2504: the delta is not the layout's."""
    check_delta(outcome.delta, layout)
    chosen = choose_codec(base.policy, codec)
    update = clipped_update(outcome.delta, layout, base.policy.updates.norm_clip)
    tensors = encode_update(update, layout, chosen, author.rng(base.version))
    return update_record(
        author, base, tensors, layout, codec=chosen, outcome=outcome, created_at_ms=created_at_ms
    )


def seal_update(author: Author, record: dict[str, Any]) -> bytes:
    """The signed envelope of a ClientUpdate."""
    return author.signer.sign_payload("ClientUpdate", avro.encode("ClientUpdate", record))


def record_bytes_max(policy: Policy, message_bytes_max: int) -> int:
    """The largest record that both the policy and the broker take, in bytes."""
    return min(policy.updates.bytes_max, message_bytes_max)


def check_size(value: bytes, policy: Policy, message_bytes_max: int) -> None:
    """Raise UsageProblem FLV-2501 when a record is larger than the policy or the broker takes."""
    limit = record_bytes_max(policy, message_bytes_max)
    if len(value) > limit:
        which = "policy's updates.bytes_max" if limit == policy.updates.bytes_max else "broker's limit"
        narrow = min(policy.updates.codecs, key=_width)
        share = size_beside(narrow, max(policy.updates.codecs, key=_width))
        narrower = f"use the {narrow} codec (`--codec {narrow}`), {share}, or" if share else "use"
        raise UsageProblem(
            "FLV-2501",
            f"the update is {len(value)} bytes, the {which} is {limit}",
            hint=f"{narrower} a smaller model",
        )


def size_beside(narrow: CodecName, wide: CodecName) -> str:
    """What part of the codec ``wide``'s bytes ``narrow`` takes, in words; "" where it takes no fewer."""
    times = _width(wide) // _width(narrow)
    if times <= 1:
        return ""
    return f"{ {2: 'half', 4: 'a quarter', 8: 'an eighth'}.get(times, f'1/{times}') } of {wide}"


def _width(codec: CodecName) -> int:
    return data_bytes(codec, _WIDTH_ELEMENTS)


def largest_update_bytes(layout: Layout, policy: Policy) -> int:
    """An upper bound of one signed update's bytes, in the widest codec that the policy takes."""
    return update_bytes_max(layout, policy.updates.codecs)


def update_bytes_max(layout: Layout, codecs: Iterable[CodecName]) -> int:
    """An upper bound of one signed update's bytes, in the widest of ``codecs``."""
    coded = (*layout.trainable.tensors, *layout.control.tensors)
    elements = VALUE_BYTES * layout.buffers.parameters + max(
        sum(data_bytes(codec, spec.size) for spec in coded) for codec in codecs
    )
    framing = sum(
        len(spec.name.encode()) + _DIMENSION_BYTES * len(spec.shape) + _TENSOR_FRAMING_BYTES
        for spec in layout.tensors
    )
    return elements + framing + _FRAMING_BYTES_MAX
