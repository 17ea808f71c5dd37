"""Manifests: what a version is. Canonical JSON (RFC 8785); its SHA-256 is the version's identity.

A manifest records the merger's one decision, which aggregates went in, and the hashes of everything derived
from it. Version 0's is the *genesis*: its hash is what an auditor has to trust beforehand, and nothing else.

These are the documents as the rest of the system sees them, whatever format they were read from; ``schemas.documents``
has the formats. A document is written in the format that it was read in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import rfc8785

from aggregation.defences import defence_named
from aggregation.fold.rules import FIRST_RULES, RecordRules
from aggregation.layout import DTYPE, WEIGHTS, Layout, TensorSpec
from aggregation.policy import Policy, policy_from_canonical
from aggregation.weights.fixed_point import WEIGHT_ONE
from schemas.certificates import Trust
from schemas.documents import genesis_rules, genesis_v1, genesis_v4, manifest_v1, manifest_v2
from schemas.documents.reading import GENESIS_FORMATS, MANIFEST_FORMATS, decode_document, encode_document
from schemas.objects import sha256_hex
from schemas.signing import SignatureDomain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.server.aggregates import Slot


class Region(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One region: how many partitions its topics have, and its CA certificate (PEM)."""

    partitions: int
    authority: str


class TensorEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the layout. ``section``: where in the layout it stands; v1 documents know ``weights`` only.

    dtype: what a device holds it in. nonnegative: an element below 0 makes no sense. Both are said since v3.
    """

    name: str
    shape: tuple[int, ...]
    section: str = WEIGHTS
    dtype: str = DTYPE
    nonnegative: bool = False


class StoredObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object of the task's store: the hex SHA-256 of its bytes, and how many they are."""

    sha256: str
    size: int


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a task's model stands outside the layout.

    kind: by which library it is made. tied: names that are another tensor, by that tensor's name. frozen: a
    safetensors file of the tensors that no device changes.
    """

    kind: str = "torch"
    tied: dict[str, str] = {}
    frozen: StoredObject | None = None


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The archive of the task's program: an object, and which file in it is the task's."""

    sha256: str
    size: int
    entry: str


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which of its metrics the task is judged."""

    name: str
    higher_is_better: bool


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version of another task whose model is this task's first one."""

    task: str
    genesis_sha256: str
    version: int
    manifest_sha256: str


class Records(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rules hold for records, as a document says it.

    canonical: records count in their one encoding only; always true. verdicts: the version that workers write.
    """

    canonical: bool = True
    verdicts: Literal[1, 2] = 2


BEFORE_V3: Final = genesis_rules.BEFORE_V3
BEFORE_V4: Final = genesis_rules.BEFORE_V4
BEFORE_V5: Final = genesis_rules.BEFORE_V5
BEFORE_V6: Final = genesis_rules.BEFORE_V6
NEWEST_GENESIS: Final = genesis_rules.NEWEST_GENESIS
CONTROL_GENESIS: Final = genesis_rules.CONTROL_GENESIS
_KEYS_SINCE_V3: Final = ("model", "code", "metric", "parent")


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Version 0: everything that the meaning of the logs depends on, and what else a task is made of.

    model, code, metric and parent are said since v3; earlier documents leave them at their defaults. ``records`` is
    said since v4, where it is by default what new tasks have; see ``rules``. ``nonce``, 32 random bytes in hex, is said
    since v5.
    """

    task: str
    regions: dict[str, Region]
    control_authority: str
    layout: tuple[TensorEntry, ...]
    policy: dict[str, Any]
    model_sha256: str
    optimizer_sha256: str
    model: Model = Model()
    code: Code | None = None
    metric: Metric | None = None
    parent: Parent | None = None
    records: Records | None = None
    nonce: str | None = None
    version: int = 0
    format: str = genesis_v1.FORMAT

    def __post_init__(self) -> None:
        """ValueError for what the format cannot say: an older document would lose it in silence."""
        genesis_rules.require_sayable_layout(self.format, self.layout)
        given = [key for key in _KEYS_SINCE_V3 if getattr(self, key) != _DEFAULTS[key]]
        genesis_rules.require_sayable_keys(
            self.format, given, records=self.records is not None, nonce=self.nonce
        )
        if self.format not in BEFORE_V4 and self.records is None:
            msgspec.structs.force_setattr(self, "records", Records())
        if self.records is not None:
            genesis_v4.require_canonical(canonical=self.records.canonical)

    def canonical(self) -> bytes:
        """The document's bytes, in its format."""
        keys = msgspec.to_builtins(self)
        said = genesis_rules.KEYS_OF_A_TENSOR[self.format]
        keys["layout"] = [{key: tensor[key] for key in said} for tensor in keys["layout"]]
        if self.format in BEFORE_V3:
            keys = {key: value for key, value in keys.items() if key not in _KEYS_SINCE_V3}
        if self.format in BEFORE_V4:
            del keys["records"]
        if self.format in BEFORE_V5:
            del keys["nonce"]
        return encode_document(keys, GENESIS_FORMATS)

    @property
    def can_say_metric(self) -> bool:
        """Whether its format has a place for a metric."""
        return self.format not in BEFORE_V3

    @property
    def rules(self) -> RecordRules:
        """Which rules hold for the task's records."""
        if self.format in BEFORE_V4:
            return FIRST_RULES
        assert self.records is not None, "since v4 it is always said"
        signatures = 1 if self.format in BEFORE_V5 else 2
        return RecordRules(self.records.canonical, self.records.verdicts, signatures)

    @property
    def sha256(self) -> str:
        """The hash of the document, hex: the task's identity."""
        return sha256_hex(self.canonical())

    @property
    def domain(self) -> SignatureDomain:
        """For which task its records are signed."""
        return SignatureDomain.of(self.rules, self.sha256)

    @property
    def trust(self) -> Trust:
        """By which CAs and rules the task's records are judged, and for which task they have to be signed."""
        return Trust.from_pem(self.authorities, self.rules, self.domain)

    @property
    def tensor_layout(self) -> Layout:
        """The layout as the pure core wants it.

        Before v3 a section had no meaning: what such a document calls a buffer was folded as a weight, and is.
        """
        if self.format in BEFORE_V3:
            return Layout.of((tensor.name, tensor.shape) for tensor in self.layout)
        return Layout.of(
            TensorSpec(tensor.name, tensor.shape, tensor.section, tensor.nonnegative)
            for tensor in self.layout
        )

    @property
    def first_policy(self) -> Policy:
        """The policy in force until a barrier brings another."""
        return policy_from_canonical(rfc8785.dumps(self.policy))

    @property
    def is_guided(self) -> bool:
        """Whether its first policy weighs updates by a guardian's guide: then it has a topic of guides."""
        return defence_named(self.first_policy.defence.kind).guided

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every partition of the task, in the fixed order (region, partition)."""
        return tuple(
            (name, p) for name, region in sorted(self.regions.items()) for p in range(region.partitions)
        )

    @property
    def partitions(self) -> dict[str, int]:
        """Partitions by region."""
        return {name: region.partitions for name, region in sorted(self.regions.items())}

    @property
    def authorities(self) -> dict[str, str]:
        """CA certificates (PEM) by region, and ``control``."""
        return {name: r.authority for name, r in self.regions.items()} | {"control": self.control_authority}


_DEFAULTS: Final[Mapping[str, Any]] = {"model": Model(), "code": None, "metric": None, "parent": None}


NOT_SAID: Final = -1
"""Stands for what a manifest's format does not say of an input."""


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One aggregate that went into a version. ``sha256`` names its Avro payload.

    Said since v3: ``version``, under which it was folded; ``weight_total``, what its updates weighed then; and
    ``weight``, what lateness leaves of it, in units of 1/65536, 0 for one that was dropped.
    """

    region: str
    partition: int
    sequence: int
    first_offset: int
    next_offset: int
    accepted: int
    sum_sha256: str
    sha256: str
    version: int = NOT_SAID
    weight_total: int = 0
    weight: int = WEIGHT_ONE

    @property
    def is_dropped(self) -> bool:
        """Whether it came too late."""
        return not self.weight


class Pools(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is usual after a version: pooled histograms, [bucket, count] each. See ``aggregation.defences.usual``."""

    norms: tuple[tuple[int, int], ...] = ()
    cosines: tuple[tuple[int, int], ...] = ()
    shares: tuple[tuple[int, int], ...] = ()


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who made a version: the merger's certificate (DER) and signature, base64 both. See ``manifest_seals``."""

    certificate: str
    signature: str


MANIFESTS_BEFORE_V3: Final = frozenset({manifest_v1.FORMAT, manifest_v2.FORMAT})
"""Formats that say nothing of lateness, of what is usual and of guides."""
_MANIFEST_KEYS_SINCE_V3: Final = ("dropped", "usual", "guide_sha256")
_INPUT_KEYS_SINCE_V3: Final = ("version", "weight_total", "weight")
_WHOLE: Final = (NOT_SAID, 0, WEIGHT_ONE)


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version above 0.

    ``cursors[region][partition]`` is the next aggregate sequence that no version holds yet. ``merger`` is said since
    v2, and None until its merger has signed it. ``dropped``, ``usual`` and ``guide_sha256`` are said since v3:
    accepted updates of windows that came too late, what is usual, and the guide that its barriers name or "".
    ``accepted`` to ``update_bytes`` are of the windows that count, ``weight_total`` after lateness.
    """

    task: str
    version: int
    parent_sha256: str
    policy_sha256: str
    inputs: tuple[Input, ...]
    cursors: dict[str, tuple[int, ...]]
    counts: dict[str, int]
    accepted: int
    weight_total: int
    staleness_total: int
    staleness_max: int
    update_bytes: int
    model_sha256: str
    optimizer_sha256: str
    reference_sha256: str
    floor: int
    reason: str = "version"
    dropped: int = 0
    usual: Pools = Pools()
    guide_sha256: str = ""
    merger: Seal | None = None
    format: str = manifest_v1.FORMAT

    def __post_init__(self) -> None:
        """ValueError for what the format cannot say."""
        if self.format == manifest_v1.FORMAT and self.merger is not None:
            raise ValueError(f"{self.format} cannot say who made it")
        if self.says_lateness:
            return
        late = any((one.version, one.weight_total, one.weight) != _WHOLE for one in self.inputs)
        if late or self.dropped or self.usual != Pools() or self.guide_sha256:
            raise ValueError(f"{self.format} cannot say how late a window was, what is usual, or a guide")

    @property
    def says_lateness(self) -> bool:
        """Whether its format says how late windows were, and what is usual."""
        return self.format not in MANIFESTS_BEFORE_V3

    def canonical(self) -> bytes:
        """The document's bytes, in its format."""
        return encode_document(self._keys(), MANIFEST_FORMATS)

    def unsigned(self) -> bytes:
        """The canonical bytes of all keys but ``merger``: what a merger signs."""
        return rfc8785.dumps({key: value for key, value in self._keys().items() if key != "merger"})

    def _keys(self) -> dict[str, Any]:
        """What its format says."""
        keys: dict[str, Any] = msgspec.to_builtins(self)
        if self.merger is None:
            del keys["merger"]
        if not self.says_lateness:
            for key in _MANIFEST_KEYS_SINCE_V3:
                del keys[key]
            for one in keys["inputs"]:
                for key in _INPUT_KEYS_SINCE_V3:
                    del one[key]
        return keys

    def late_versions(self, named: Input) -> int | None:
        """How many versions late one of its windows came; None where its format does not say."""
        return max(0, self.version - 1 - named.version) if self.says_lateness else None

    @property
    def slot_cursors(self) -> dict[Slot, int]:
        """``cursors`` by slot."""
        return {(region, p): c for region, row in self.cursors.items() for p, c in enumerate(row)}


def decode_genesis(data: bytes) -> Genesis:
    """Read a genesis document of any released format; raises IntegrityProblem (FLV-4102)."""
    return msgspec.convert(decode_document(data, GENESIS_FORMATS, "genesis"), Genesis)


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest of any released format; raises IntegrityProblem (FLV-4102)."""
    return msgspec.convert(decode_document(data, MANIFEST_FORMATS, "manifest"), Manifest)
