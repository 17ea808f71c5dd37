"""Make golden files. A file that is there already was released: it is never written again.

Run ``python -m tests.golden.make`` after adding a new record version; commit what it adds. A file that no
longer agrees with the code means that the contract was broken, not that the file is old.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aggregation.codecs import direction_of
from aggregation.fold.events import Barrier, Guide, Verdict, WindowClosed
from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES
from aggregation.fold.transition import fold_into
from aggregation.optimizers import initial_state
from aggregation.policy import Policy, policy_from_toml
from aggregation.server.aggregates import Aggregate
from aggregation.server.merge import Checkpoint, merge
from aggregation.server.totals import add_sums
from schemas import avro as codec
from schemas.checkpoints import decode_sums, encode_direction, encode_model, encode_optimizer
from schemas.guides import signed_guide
from schemas.objects import sha256_hex
from schemas.records import decode_record
from schemas.verdicts import encode_verdict
from schemas.windows import encode_state, encode_window
from tests.factories import (
    LAYOUT,
    NOW_MS,
    TASK,
    Edge,
    Site,
    barrier_bytes,
    delta,
    device_signer,
    devices,
    edge_policy,
    encoded,
    guardian_signer,
    merger_signer,
    model_sha,
    operator_signer,
    revoke_bytes,
    sha,
    state_of,
    tick_bytes,
    trust,
    update_bytes,
    worker_signer,
)
from tests.golden.odd_records import vectors

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
POLICY_TOML = """
format = "fluvial/policy/v1"
[updates]
norm_clip = 0.4
norm_max = 100.0
[staleness]
versions_max = 3
[window]
updates_max = 6
records_max = 50
[buffer]
updates = 12
[server]
learning_rate = 0.5
momentum = 0.9
[anomaly]
history_updates_min = 8
[fixed_point]
exponent = 36
"""
GUIDED_TOML = """
format = "fluvial/policy/v3"
[updates]
bytes_max = 8388608
norm_clip = 0.4
norm_max = 100.0
codecs = ["int8"]
[staleness]
kind = "constant"
versions_max = 3
seconds_max = 60.0
exponent = 0.5
hinge_versions = 4
hinge_slope = 1.0
[window]
updates_max = 6
records_max = 50
seconds_max = 2.0
[buffer]
updates = 12
seconds_max = 10.0
late_windows = true
[shares]
per_version = 1
saved_max = 2
[server]
optimizer = "sgd"
learning_rate = 0.5
momentum = 0.9
beta_1 = 0.9
beta_2 = 0.99
adaptivity = 0.001
divide_by = "weights"
[defence]
kind = "guide"
norm_clip_medians = 1.5
norm_clip_floor = 0.1
norm_deviations_max = 6.0
cosine_min = -0.5
history_updates = 64
history_updates_min = 8
guide_cosine_min = -0.1
guide_versions_max = 2
step_cosine_min = 0.9
guide_missing = "go_on"
quarantine_refusals = 1
quarantine_versions = 32
[fixed_point]
exponent = 36
"""
USUAL_TOML = """[defence]
usual_norm_by = "squares"
"""
MERGE_TOML = """
[merge]
kind = "mean"
buckets = 1
byzantine = 0
iterations = 8
"""


def rules() -> Policy:
    """The fixed policy of the golden log; every key that matters is written out."""
    return policy_from_toml(POLICY_TOML)


def log() -> list[bytes]:
    """A fixed log of one partition: good updates of both codecs, a flip, refused records, control records."""
    one, records = rules(), list[bytes]()
    names = devices(20)
    for n, name in enumerate(names[:14]):
        codec_name = "float32" if n % 3 == 0 else "int8"
        tensors = encoded(delta(n), codec_name, n)
        records.append(update_bytes(name, codec=codec_name, tensors=tensors))
    records.insert(4, records[2])  # a duplicate
    records.insert(7, records[3][:-9])  # cut short
    records.insert(9, revoke_bytes(names[13]))
    records.append(tick_bytes(8))
    records.append(barrier_bytes(1, one))
    records += [update_bytes(name, seed=n + 40, base=n % 2) for n, name in enumerate(names[:13])]
    records.append(barrier_bytes(2, one, by=device_signer(names[0])))  # forged
    records.append(tick_bytes(24))
    records.append(tick_bytes(30))
    return records


def replay(records: list[bytes]) -> tuple[list[Verdict], list[Aggregate], list[bytes], Checkpoint]:
    """Fold the log and merge all its windows: verdicts, aggregates, their payloads, and the model."""
    state, trusted = state_of(rules()), trust(rules=FIRST_RULES)
    verdicts: list[Verdict] = []
    aggregates: list[Aggregate] = []
    payloads: list[bytes] = []
    sums = []
    for offset, value in enumerate(records):
        event = decode_record(value, NOW_MS, trusted, rules())
        if hasattr(event, "policy"):
            event = type(event)(**{n: getattr(event, n) for n in event.__slots__} | {"policy": rules()})
        for effect in fold_into(state, offset, event):
            if isinstance(effect, WindowClosed):
                encoded = encode_window(state, effect)
                aggregates.append(encoded.aggregate)
                payloads.append(encoded.payload)
                if encoded.aggregate.sum_sha256:
                    sums.append(decode_sums(encoded.objects[encoded.aggregate.sum_sha256], LAYOUT))
            else:
                verdicts.append(effect)
    start = Checkpoint(delta(500), initial_state(rules().server, LAYOUT.parameters))
    step = merge(
        start,
        add_sums(sums, LAYOUT.parameters),
        updates=sum(a.accepted for a in aggregates),
        weight_total=sum(a.weight_total for a in aggregates),
        policy=rules(),
        server=rules().server,
        layout=LAYOUT,
    )
    again = merge(
        step.checkpoint,
        sums[0],
        updates=1,
        weight_total=1,
        policy=rules(),
        server=rules().server,
        layout=LAYOUT,
    )
    return verdicts, aggregates, payloads, Checkpoint(again.checkpoint.model, again.checkpoint.optimizer)


def hashes() -> dict[str, Any]:
    """What the golden log comes to."""
    records = log()
    verdicts, aggregates, _, checkpoint = replay(records)
    reference = merge(
        checkpoint,
        np.arange(LAYOUT.parameters, dtype=np.int64) << 30,
        updates=1,
        weight_total=1,
        policy=rules(),
        server=rules().server,
        layout=LAYOUT,
    ).reference
    return {
        "log": sha256_hex(b"".join(records)),
        "outcomes": [verdict.outcome for verdict in verdicts],
        "verdicts": sha256_hex(b"".join(encode_verdict(verdict, FIRST_RULES) for verdict in verdicts)),
        "aggregates": [aggregate.sha256 for aggregate in aggregates],
        "model": sha256_hex(encode_model(checkpoint.model, LAYOUT)),
        "optimizer": sha256_hex(encode_optimizer(checkpoint.optimizer)),
        "reference": sha256_hex(encode_direction(reference)),
    }


def skip() -> bytes:
    """A signed Skip."""
    fields = {"task": TASK, "region": "eu", "partition": 0, "offset": 7, "reason": "the fold raises on it"}
    return operator_signer().sign("Skip", fields)


def pardon() -> bytes:
    """A signed Pardon."""
    fields = {
        "task": TASK,
        "region": "eu",
        "device_id": "d-0007",
        "until": 40,
        "reason": "its data is mended",
    }
    return operator_signer().sign("Pardon", fields)


def v4() -> bytes:
    """The payload of the same window under a policy of v4."""
    newer = GUIDED_TOML.replace("policy/v3", "policy/v4").replace("[defence]\n", USUAL_TOML)
    return v3(newer + MERGE_TOML)[0]


def v6() -> tuple[bytes, bytes]:
    """The same under a policy of v6, and the state behind it."""
    newer = GUIDED_TOML.replace("policy/v3", "policy/v6").replace("[defence]\n", USUAL_TOML)
    return v3(newer + MERGE_TOML)


def v3(toml: str = GUIDED_TOML) -> tuple[bytes, bytes]:
    """The payload of a window under a policy of v3 with a guide, and the state behind it."""
    one = policy_from_toml(toml)
    site, direction = Site(state_of(one)), delta(5)
    site.append(update_bytes("d-0001", tensors=encoded(direction)))
    barrier = site.event(
        barrier_bytes(1, one, usual_norm=0.25, usual_cosine=21, usual_share=1, guide_sha256=sha("guide"))
    )
    assert isinstance(barrier, Barrier)
    guide = Guide(0, model_sha(0), direction_of(direction.astype(np.float64), LAYOUT))
    site.fold(replace(barrier, policy=one, guide=guide))
    site.append(update_bytes("d-0001", base=1, tensors=encoded(direction)))
    site.append(update_bytes("d-0002", base=1, tensors=encoded(-direction)))
    site.append(tick_bytes(2))
    sealed = encode_window(site.state, site.closed[-1])
    return sealed.payload, sealed.objects[sealed.aggregate.state_sha256]


def later_barrier() -> bytes:
    """A signed Barrier v2."""
    usual: dict[str, Any] = {
        "usual_norm": 0.25,
        "usual_cosine": 21,
        "usual_share": 3,
        "guide_sha256": sha("guide 1"),
    }
    return barrier_bytes(2, rules(), **usual)


def guide() -> bytes:
    """A guide's object."""
    direction = direction_of(delta(5).astype(np.float64), LAYOUT)
    fields: dict[str, Any] = {"task": TASK, "version": 2, "model_sha256": model_sha(2), "examples": 200}
    return signed_guide(guardian_signer(), direction=direction, **fields)


def announcement() -> bytes:
    """A signed announcement."""
    fields = {
        "task": TASK,
        "region": "eu",
        "version": 1,
        "manifest_sha256": sha("manifest 1"),
        "model_sha256": sha("model 1"),
        "policy_sha256": sha("policy"),
    }
    return merger_signer().sign("ModelAnnouncement", fields)


def guide_announcement() -> bytes:
    """A signed announcement of a guide."""
    fields = {
        "task": TASK,
        "version": 1,
        "model_sha256": sha("model 1"),
        "guide_sha256": sha("guide 1"),
        "guide_bytes": 5432,
    }
    return guardian_signer().sign("GuideAnnouncement", fields)


def edge_aggregate() -> bytes:
    """A signed window of an edge."""
    edge = Edge(edge_policy())
    edge.window(*devices(3))
    return edge.bytes()


def records_by_version() -> dict[str, Callable[[], bytes]]:
    """One golden record for every released version of every schema, by file name."""
    payloads = replay(log())[2]
    return {
        "client_update.v1.int8.avro": lambda: update_bytes("d-0001"),
        "client_update.v1.float32.avro": lambda: update_bytes("d-0001", codec="float32"),
        "client_update.v2.later.avro": lambda: update_bytes(
            "d-0001", codec="a-later-one", tensors=encoded(delta(0))
        ),
        "client_update.v2.int4.avro": lambda: update_bytes("d-0001", codec="int4"),
        "barrier.v1.avro": lambda: barrier_bytes(1, rules()),
        "tick.v1.avro": lambda: tick_bytes(3),
        "revoke.v1.avro": lambda: revoke_bytes("d-0001", "ab12"),
        "skip.v1.avro": skip,
        "pardon.v1.avro": pardon,
        "model_announcement.v1.avro": announcement,
        "guide_announcement.v1.avro": guide_announcement,
        "regional_aggregate.v1.avro": lambda: worker_signer().sign_payload("RegionalAggregate", payloads[0]),
        "verdict.v1.avro": lambda: encode_verdict(replay(log())[0][0], FIRST_RULES),
        "verdict.v2.avro": lambda: encode_verdict(replay(log())[0][-1], CANONICAL_RULES),
        "partition_state.v1.avro": lambda: encode_state(state_of(rules())),
        "barrier.v2.avro": later_barrier,
        "regional_aggregate.v2.avro": lambda: worker_signer().sign_payload("RegionalAggregate", v3()[0]),
        "regional_aggregate.v3.avro": lambda: worker_signer().sign_payload("RegionalAggregate", v4()),
        "partition_state.v2.avro": lambda: v3()[1],
        "regional_aggregate.v4.avro": lambda: worker_signer().sign_payload("RegionalAggregate", v6()[0]),
        "partition_state.v3.avro": lambda: v6()[1],
        "guide.v1.avro": guide,
        "edge_aggregate.v1.avro": edge_aggregate,
    }


def files() -> dict[str, Callable[[], bytes]]:
    """Every golden file and what makes it."""
    return {
        **records_by_version(),
        "policy.v1.json": lambda: rules().canonical(),
        "log.v1.json": lambda: json.dumps([value.hex() for value in log()], indent=0).encode() + b"\n",
        "odd_records.v1.json": vectors,
        "hashes.v1.json": lambda: json.dumps(hashes(), indent=1).encode() + b"\n",
    }


def main() -> int:
    """Write the files that are not there yet; 1 if one that is there would come out otherwise today."""
    changed = 0
    for name, make in files().items():
        path, data = HERE / name, make()
        if not path.exists():
            path.write_bytes(data)
            sys.stdout.write(f"made     {name}  {len(data)} bytes\n")
        elif path.read_bytes() == data:
            sys.stdout.write(f"as it was {name}\n")
        else:
            changed += 1
            sys.stderr.write(f"RELEASED, and the code now gives other bytes: {name} (left as it is)\n")
    sys.stdout.write(f"{len(codec.registry())} schemas, {len(files())} golden files\n")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
