"""Builders that all tests share. Everything is deterministic: equal arguments give equal bytes.

A task of two regions (``eu``, ``us``), a layout of three tensors, CAs and certificates made with
``cryptography``, signers, and signed bytes of every record kind. ``Site`` joins them, and drives one
partition's fold from bytes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from aggregation import codecs
from aggregation.fold.events import Barrier, Effect, Event, Tick, Update, Verdict, WindowClosed
from aggregation.fold.rules import CANONICAL_RULES, TASK_RULES, RecordRules
from aggregation.fold.state import PartitionState, initial
from aggregation.fold.transition import fold_into
from aggregation.layout import BUFFERS, Layout, TensorSpec
from aggregation.partitioning import partition_of
from aggregation.policy import Policy, policy_from_mapping
from aggregation.server.aggregates import Aggregate
from schemas.certificates import Role, Trust
from schemas.envelope import Signer
from schemas.manifests import TensorEntry
from schemas.records import decode_record
from schemas.signing import FIRST_DOMAIN, SignatureDomain
from schemas.verdicts import encode_verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aggregation.codecs import CodecName, Direction, EncodedTensor

TASK = "digits"
REGION = "eu"
CONTROL = "control"
NOW_MS = 1_790_000_000_000
"""LogAppendTime of the tests' records: 2026-09-21, inside every ordinary certificate's life."""
NOT_BEFORE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOT_AFTER = dt.datetime(2036, 1, 1, tzinfo=dt.UTC)
LAYOUT = Layout.of([("bias", ()), ("hidden.weight", (3, 5)), ("out.weight", (7,))])
BUFFERED = Layout.of(
    [
        *LAYOUT.tensors,
        TensorSpec("mean", (3,), BUFFERS),
        TensorSpec("variance", (3,), BUFFERS, nonnegative=True),
    ]
)
"""The same weights, with a batch norm's running statistics."""
BYTES_MAX = 8 << 20


def sha(text: str) -> str:
    """A hash that stands for some object."""
    return hashlib.sha256(text.encode()).hexdigest()


def model_sha(version: int) -> str:
    """The hash of the tests' model of that version."""
    return sha(f"model {version}")


def policy(**sections: Any) -> Policy:
    """A policy: defaults, but for the given sections' keys; of v2, unless they name a ``format``.

    Under v2 a device answers every base, and no barrier says what is usual: that is one thing less in a test of others.
    """
    return policy_from_mapping(sections, default_format="fluvial/policy/v2")


@cache
def key(name: str) -> Ed25519PrivateKey:
    """A private key that depends on its name only."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"key of {name}".encode()).digest())


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """A key of the wrong kind (the one thing here that is not deterministic)."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _serial(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") | 1


@cache
def authority(region: str, *, secret: str = "") -> x509.Certificate:
    """A region's CA. Another ``secret`` is another CA of the same name."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(f"fluvial {region} CA"))
        .issuer_name(_name(f"fluvial {region} CA"))
        .public_key(key(f"ca {region}{secret}").public_key())
        .serial_number(_serial(f"ca {region}{secret}"))
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return builder.sign(key(f"ca {region}{secret}"), None)


def spiffe(region: str, role: Role, name: str) -> str:
    """The URI that a certificate carries."""
    return f"spiffe://{region}/{role.value}/{name}"


@cache
def certificate(
    region: str,
    role: Role,
    name: str,
    *,
    uris: tuple[str, ...] | None = None,
    issuer: str = "",
    secret: str = "",
    not_before: dt.datetime = NOT_BEFORE,
    not_after: dt.datetime = NOT_AFTER,
    is_authority: bool | None = False,
    with_rsa: bool = False,
    serial: int = 0,
) -> bytes:
    """A certificate (DER). By default a good one; every argument spoils one thing."""
    issuer = issuer or region
    uris = (spiffe(region, role, name),) if uris is None else uris
    public = rsa_key().public_key() if with_rsa else key(f"{region}/{role.value}/{name}").public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(f"fluvial {issuer} CA"))
        .public_key(public)
        .serial_number(serial or _serial(f"{uris}{issuer}{secret}{not_before}{not_after}{is_authority}"))
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if is_authority is not None:
        builder = builder.add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=None), critical=True
        )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key(f"ca {issuer}{secret}"), None).public_bytes(Encoding.DER)


def certificate_sha256_signed() -> bytes:
    """A certificate signed with RSA and SHA-256, for a CA that is none of ours."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("d"))
        .issuer_name(_name("fluvial eu CA"))
        .public_key(key("eu/device/d").public_key())
        .serial_number(7)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://eu/device/d")]),
            critical=False,
        )
    )
    return builder.sign(rsa_key(), hashes.SHA256()).public_bytes(Encoding.DER)


DOMAIN = SignatureDomain.of(TASK_RULES, sha("genesis"))
"""Of a new task, whose genesis document nobody has written."""
NONCE = sha("nonce")
"""In the genesis documents of the tests' tasks."""


def trust(
    *regions: str, rules: RecordRules = CANONICAL_RULES, domain: SignatureDomain = FIRST_DOMAIN
) -> Trust:
    """What a task of v4 trusts: the CAs of ``regions`` (eu and us by default) and of ``control``."""
    authorities = {region: authority(region) for region in (*(regions or ("eu", "us")), CONTROL)}
    return Trust(authorities, rules, domain)


def signer(region: str, role: Role, name: str, **spoiled: Any) -> Signer:
    """A key and its certificate, signing for tasks before v5; ``of_task`` for one of v5."""
    der = certificate(region, role, name, **spoiled)
    return Signer(der, key(f"{region}/{role.value}/{name}"), FIRST_DOMAIN)


def device_signer(device_id: str, region: str = REGION, **spoiled: Any) -> Signer:
    """A device's signer."""
    return signer(region, Role.DEVICE, device_id, **spoiled)


def worker_signer(name: str = "w-1", region: str = REGION) -> Signer:
    """A regional worker's signer."""
    return signer(region, Role.WORKER, name)


def merger_signer(name: str = "m-1") -> Signer:
    """A merger's signer."""
    return signer(CONTROL, Role.MERGER, name)


def operator_signer(name: str = "op-1") -> Signer:
    """An operator's signer."""
    return signer(CONTROL, Role.OPERATOR, name)


def guardian_signer(name: str = "g-1", **spoiled: Any) -> Signer:
    """A guardian's signer."""
    return signer(CONTROL, Role.GUARDIAN, name, **spoiled)


def devices(count: int, *, partition: int = 0, partitions: int = 1, start: int = 0) -> list[str]:
    """The first ``count`` device ids, from number ``start`` on, that belong to a partition."""
    found: list[str] = []
    number = start
    while len(found) < count:
        name = f"d-{number:04d}"
        if partition_of(name, partitions) == partition:
            found.append(name)
        number += 1
    return found


class HashRandom:
    """Uniform numbers in [0, 1) out of SHA-256: unlike numpy's generators, the same in every release for
    ever."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._blocks = 0

    def random(self, size: int) -> npt.NDArray[np.float64]:
        """float64[size], multiples of 2**-32."""
        data = b""
        while len(data) < 4 * size:
            data += hashlib.sha256(f"{self._seed}/{self._blocks}".encode()).digest()
            self._blocks += 1
        return np.frombuffer(data[: 4 * size], dtype="<u4") / 2.0**32


def delta(seed: int, layout: Layout = LAYOUT, *, size: float = 0.1) -> npt.NDArray[np.float32]:
    """A random delta float32[P]; where an element may not be below 0, it is not."""
    # Four uniform numbers add up to something near a bell curve, with + and * only: the same bits everywhere.
    parts = HashRandom(seed).random(4 * layout.parameters).reshape(4, -1)
    centred = parts[0] + parts[1] + parts[2] + parts[3] - 2.0
    values: npt.NDArray[np.float32] = (centred * (size * 1.7320508)).astype(np.float32)
    edges = layout.starts.tolist()
    for t, spec in enumerate(layout.tensors):
        if spec.nonnegative:
            values[edges[t] : edges[t + 1]] = np.abs(values[edges[t] : edges[t + 1]])
    return values


def entries(layout: Layout) -> tuple[TensorEntry, ...]:
    """A layout as a genesis document has it; those of before v3 cannot say buffers."""
    return tuple(
        TensorEntry(spec.name, spec.shape, spec.section, nonnegative=spec.nonnegative)
        for spec in layout.tensors
    )


def encoded(
    values: npt.NDArray[np.float32], codec: CodecName = "int8", seed: int = 0, layout: Layout = LAYOUT
) -> list[EncodedTensor]:
    """A delta as it travels."""
    return codecs.encode_update(values, layout, codec, cast("np.random.Generator", HashRandom(seed)))


def update(
    device_id: str,
    *,
    seed: int = 0,
    base: int = 0,
    codec: CodecName = "int8",
    tensors: Sequence[EncodedTensor] | None = None,
    layout: Layout = LAYOUT,
    **changed: Any,
) -> Update:
    """An authenticated update, without the bytes."""
    tensors = encoded(delta(seed, layout), codec, seed, layout) if tensors is None else tensors
    fields: dict[str, Any] = {
        "task": TASK,
        "region": REGION,
        "device_id": device_id,
        "certificate_serial": "ab12",
        "base_version": base,
        "base_sha256": model_sha(base),
        "update_id": f"u-{device_id}-{base}-{seed}",
        "num_examples": 10,
        "codec": codec,
        "names": tuple(tensor.name for tensor in tensors),
        "shapes": tuple(tensor.shape for tensor in tensors),
        "scales": tuple(tensor.scale for tensor in tensors),
        "data": tuple(tensor.data for tensor in tensors),
        "signature": hashlib.sha512(f"{device_id} {base} {seed}".encode()).digest(),
        "record_bytes": 500,
    }
    return Update(**(fields | changed))


def barrier(
    version: int, rules: Policy, reference: Direction | None = None, *, floor: int = 0, **changed: Any
) -> Barrier:
    """An authenticated barrier with its objects loaded."""
    fields: dict[str, Any] = {
        "task": TASK,
        "region": REGION,
        "version": version,
        "manifest_sha256": sha(f"manifest {version}"),
        "model_sha256": model_sha(version),
        "reference_sha256": "" if reference is None else sha(f"reference {version}"),
        "policy_sha256": rules.sha256,
        "floor": floor,
        "reason": "version",
        "policy": rules,
        "reference": reference,
    }
    return Barrier(**(fields | changed))


def update_record(
    device_id: str,
    *,
    seed: int = 0,
    base: int = 0,
    codec: CodecName = "int8",
    tensors: Sequence[EncodedTensor] | None = None,
    layout: Layout = LAYOUT,
    **changed: Any,
) -> dict[str, Any]:
    """A ClientUpdate's fields."""
    tensors = encoded(delta(seed, layout), codec, seed, layout) if tensors is None else tensors
    entries = [{"name": t.name, "shape": list(t.shape), "scale": t.scale, "data": t.data} for t in tensors]
    return {
        "task": TASK,
        "region": REGION,
        "device_id": device_id,
        "base_version": base,
        "base_sha256": model_sha(base),
        "update_id": f"u-{device_id}-{base}-{seed}",
        "num_examples": 10,
        "local_loss": 0.5,
        "codec": codec,
        "tensors": entries,
        "client_metrics": {"epochs": 1.0},
        "created_at": NOW_MS - 500,
    } | changed


def update_bytes(device_id: str, *, by: Signer | None = None, **fields: Any) -> bytes:
    """A signed ClientUpdate."""
    return (by or device_signer(device_id)).sign("ClientUpdate", update_record(device_id, **fields))


def barrier_bytes(version: int, rules: Policy, *, by: Signer | None = None, **changed: Any) -> bytes:
    """A signed Barrier."""
    fields = {
        "task": TASK,
        "region": REGION,
        "version": version,
        "manifest_sha256": sha(f"manifest {version}"),
        "model_sha256": model_sha(version),
        "reference_sha256": "",
        "policy_sha256": rules.sha256,
        "floor": 0,
        "reason": "version",
    }
    return (by or merger_signer()).sign("Barrier", fields | changed)


def tick_bytes(
    window_first_offset: int, *, partition: int = 0, by: Signer | None = None, **changed: Any
) -> bytes:
    """A signed Tick."""
    fields = {
        "task": TASK,
        "region": REGION,
        "partition": partition,
        "window_first_offset": window_first_offset,
    }
    return (by or worker_signer()).sign("Tick", fields | changed)


def revoke_bytes(
    device_id: str = "", serial: str = "", *, by: Signer | None = None, task: str = TASK
) -> bytes:
    """A signed Revoke."""
    fields = {"task": task, "device_id": device_id, "certificate_serial": serial, "reason": "stolen"}
    return (by or operator_signer()).sign("Revoke", fields)


def state_of(
    rules: Policy | None = None, *, partition: int = 0, partitions: int = 1, layout: Layout = LAYOUT
) -> PartitionState:
    """A partition's state before offset 0."""
    return initial(
        task=TASK,
        region=REGION,
        partition=partition,
        partitions=partitions,
        layout=layout,
        policy=rules or policy(),
        model_sha256=model_sha(0),
    )


def verdict_bytes(verdict: Verdict, rules: RecordRules = CANONICAL_RULES) -> bytes:
    """A verdict as it stands in its topic, by default in a new task's."""
    return encode_verdict(verdict, rules)


def snapshot(state: PartitionState) -> dict[str, Any]:
    """Everything a state holds, as values that compare and that later folding does not change."""
    window = state.window
    return {
        "next_offset": state.next_offset,
        "version": state.version,
        "floor": state.floor,
        "policy": state.policy,
        "policy_sha256": state.policy_sha256,
        "reference": state.reference and (state.reference.q.tobytes(), state.reference.scales),
        "reference_sha256": state.reference_sha256,
        "models": dict(state.models),
        "counted": {version: set(devices) for version, devices in state.counted.items()},
        "revoked": set(state.revoked),
        "norms": state.history.values(),
        "sequence": state.sequence,
        "previous_sha256": state.previous_sha256,
        "window.first_offset": window.first_offset,
        "window.counts": {outcome: count for outcome, count in window.counts.items() if count},
        "window.weight_total": window.weight_total,
        "window.staleness": (window.staleness_total, window.staleness_max),
        "window.update_bytes": window.update_bytes,
        "window.sums": None if window.sums is None else window.sums.tobytes(),
        "window.contributors": window.contributors.hexdigest(),
        "window.histograms": window.counting.closed(),
        "superseded": dict(state.superseded),
        "shares": [(device, replace(share)) for device, share in state.shares],
        "quarantined": dict(state.shares.quarantined),
        "usual": state.usual,
        "guide": (state.guide_sha256, state.guide and (state.guide.q.tobytes(), state.guide.scales)),
    }


@dataclass
class Site:
    """One partition, driven from bytes: appends records to a log, decodes and folds them, keeps the
    effects."""

    state: PartitionState = field(default_factory=state_of)
    trust: Trust = field(default_factory=trust)
    log: list[bytes | None] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)

    def event(self, value: bytes | None, timestamp_ms: int = NOW_MS) -> Event:
        """What a record says; objects of a barrier are filled in (the policy in force, no reference)."""
        event = decode_record(value, timestamp_ms, self.trust, self.state.policy)
        if isinstance(event, Barrier):
            fields = {name: getattr(event, name) for name in event.__slots__}
            event = Barrier(**(fields | {"policy": self.state.policy}))
        return event

    def append(self, value: bytes | None, timestamp_ms: int = NOW_MS) -> Verdict:
        """Append one record, fold it, check the state's rules; returns its verdict."""
        return self.fold(self.event(value, timestamp_ms))

    def fold(self, event: Event) -> Verdict:
        """Fold one event at the next offset."""
        effects = fold_into(self.state, self.state.next_offset, event)
        self.state.validate()
        self.effects += effects
        verdict = effects[0]
        assert isinstance(verdict, Verdict)
        return verdict

    @property
    def closed(self) -> list[WindowClosed]:
        """The windows that have closed so far."""
        return [effect for effect in self.effects if isinstance(effect, WindowClosed)]

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts so far, one an offset."""
        return [effect for effect in self.effects if isinstance(effect, Verdict)]


def tick(first_offset: int, **changed: Any) -> Tick:
    """An authenticated tick."""
    fields: dict[str, Any] = {
        "task": TASK,
        "region": REGION,
        "partition": 0,
        "window_first_offset": first_offset,
    }
    return Tick(**(fields | changed))


def aggregate(
    region: str,
    partition: int,
    sequence: int,
    *,
    accepted: int = 4,
    previous: str | None = None,
    salt: str = "",
) -> Aggregate:
    """An aggregate in a chain: its hash and its predecessor's follow from slot, sequence and ``salt``."""
    if previous is None:
        previous = sha(f"{region}{partition}/{sequence - 1}") if sequence else ""
    return Aggregate(
        task=TASK,
        region=region,
        partition=partition,
        sequence=sequence,
        first_offset=sequence * 10,
        next_offset=sequence * 10 + 10,
        version=0,
        policy_sha256=sha("policy"),
        counts={"accepted": accepted},
        accepted=accepted,
        weight_total=accepted << 16,
        staleness_total=0,
        staleness_max=0,
        update_bytes=500 * accepted,
        sum_sha256=sha("sum") if accepted else "",
        state_sha256=sha("state"),
        contributors_sha256=sha("contributors"),
        previous_sha256=previous,
        sha256=sha(f"{region}{partition}/{sequence}{salt}"),
    )


def windows_tile(closed: Iterable[WindowClosed]) -> bool:
    """Whether windows are numbered from 0 and each begins where the one before ended."""
    expected_offset = 0
    for number, window in enumerate(closed):
        if (window.sequence, window.first_offset) != (number, expected_offset):
            return False
        expected_offset = window.next_offset
    return True
