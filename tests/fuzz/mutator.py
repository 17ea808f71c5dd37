"""Bad records made from good ones: pure, seeded, and each with the outcomes that it may get.

A mutation takes what an honest device would send (or keys that it should not have) and spoils one thing. It knows which
verdicts may come of that, so whoever publishes the record can tell a wrong verdict from a right one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

from aggregation.layout import Layout
from schemas import avro as codec
from schemas.envelope import Signer
from tests import factories

CODECS: Final = ("snappy", "gzip", "lz4", "zstd")
"""Ways to compress a batch; the first packs zeros too badly for a bomb to pass the broker."""
BOMB_BYTES: Final = (1 << 20, 40 << 20)
COMPRESSED_SHARE: Final = 0.05
BOMB_EVERY: Final = 400
"""One record in so many is a bomb: unpacking is what it costs everybody, the broker first."""

UNAUTHENTIC: Final = frozenset({"undecodable", "unknown_schema", "bad_certificate", "bad_signature"})
"""What a record may get whose bytes were changed after signing: everything but being believed."""
STALE: Final = frozenset({"too_stale"})
"""An authentic record's base may grow old between the making and the folding."""


@dataclass(frozen=True)
class Device:
    """A device with a certificate, and the partition that it belongs to."""

    device_id: str
    partition: int
    signer: Signer


@dataclass(frozen=True)
class Cast:
    """Who signs: devices that never count, devices that may, and keys for every wrong purpose."""

    idle: Sequence[Device]
    loose: Sequence[Device]
    foreign: Device
    expired: Device
    revoked: Device
    elsewhere: Device
    worker: Signer
    merger: Signer
    operator: Signer


@dataclass(frozen=True)
class Moment:
    """Where the next record goes, and what is true there now.

    ``honest`` are updates that already stand in this partition, ``controls`` its control records.
    """

    partition: int
    version: int
    model_sha256: str
    honest: Sequence[bytes] = ()
    controls: Sequence[bytes] = ()


@dataclass(frozen=True)
class Fuzzed:
    """A bad record: from which mutation, what it may get, and how its batch is to be compressed ("" not at all)."""

    mutation: str
    value: bytes | None
    outcomes: frozenset[str]
    compression: str = ""


Make = Callable[["Mutator", Moment], bytes | None]
_MUTATIONS: dict[str, tuple[Make, frozenset[str]]] = {}


def mutation(*outcomes: str) -> Callable[[Make], Make]:
    """Register a way to spoil a record, and what may come of it."""

    def register(make: Make) -> Make:
        _MUTATIONS[make.__name__] = (make, frozenset(outcomes))
        return make

    return register


def names() -> tuple[str, ...]:
    """Every mutation, bombs included."""
    return (*_registered(), "bomb")


def _registered() -> dict[str, tuple[Make, frozenset[str]]]:
    """All of them: the modules that hold them register them when they are imported."""
    for module in ("tests.fuzz.mutations", "tests.fuzz.mutations_signed"):
        import_module(module)
    return _MUTATIONS


@dataclass
class Mutator:
    """A seeded source of bad records. The same seed and moments give the same mutations of the same content."""

    seed: int
    task: str
    region: str
    partitions: int
    layout: Layout
    bytes_max: int
    cast: Cast
    made: int = 0
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def next(self, moment: Moment) -> Fuzzed:
        """The next bad record; mutations come in turn, each as often as the others, bombs rarely."""
        self.made += 1
        if self.made % BOMB_EVERY == 0:
            return self.bomb()
        every = list(_registered())
        return self.make(every[self.made % len(every)], moment)

    def make(self, name: str, moment: Moment) -> Fuzzed:
        """One record of a certain mutation."""
        if name == "bomb":
            return self.bomb()
        make, outcomes = _registered()[name]
        compression = self.random.choice(CODECS) if self.random.random() < COMPRESSED_SHARE else ""
        return Fuzzed(name, make(self, moment), outcomes, compression)

    def bomb(self) -> Fuzzed:
        """Zeros, small on the wire and large behind it."""
        compression = self.random.choice(CODECS[1:])
        value = bytes(self.random.randint(*BOMB_BYTES))
        return Fuzzed("bomb", value, frozenset({"too_large"}), compression)

    # -- parts

    def device(self, moment: Moment, *, loose: bool = False) -> Device:
        """A certified device of this partition: one that never counts, or a ``loose`` one that may."""
        pool = self.cast.loose if loose else self.cast.idle
        return self.random.choice([device for device in pool if device.partition == moment.partition])

    def record(self, device_id: str, moment: Moment, **changed: Any) -> dict[str, Any]:
        """What an honest device would send."""
        fields: dict[str, Any] = {
            "task": self.task,
            "region": self.region,
            "base_sha256": moment.model_sha256,
            "layout": self.layout,
            "seed": self.random.randrange(64),
        }
        return factories.update_record(device_id, **({"base": moment.version} | fields | changed))

    def signed(self, moment: Moment, **changed: Any) -> bytes:
        """An update that is good but for ``changed``, by a device that never counts."""
        device = self.device(moment)
        return device.signer.sign("ClientUpdate", self.record(device.device_id, moment, **changed))

    def with_tensor(self, moment: Moment, **changed: Any) -> bytes:
        """An update in which one tensor has another field."""
        device = self.device(moment)
        record = self.record(device.device_id, moment)
        record["tensors"][self.random.randrange(len(record["tensors"]))] |= changed
        return device.signer.sign("ClientUpdate", record)

    def envelope(self, moment: Moment) -> dict[str, Any]:
        """The fields of a signed update's envelope."""
        return codec.decode(self.signed(moment))[1]

    def noise(self, size: int) -> bytes:
        """Random bytes."""
        return self.random.randbytes(size)

    def place(self, data: bytes | bytearray) -> int:
        """Somewhere in it."""
        return self.random.randrange(len(data))


def long(value: int) -> bytes:
    """Avro's zigzag varint."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value & ~0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    return bytes(out + bytes((value,)))


LENGTHS: Final = (-1, -2, -(1 << 31), -(1 << 62), 1 << 20, 1 << 31, 1 << 40, (1 << 62) + 1)
