"""A client and an auditor in Go, written from the contract's texts and vectors alone, agree with the code bit for bit.

What it had to guess would be an error of ``schemas/README.md``, ``documents.md`` or ``meaning.md``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED
from aggregation.layout import Layout
from aggregation.partitioning import partition_of
from aggregation.policy import Policy
from aggregation.selection import Candidate, is_selected
from schemas.manifests import NEWEST_GENESIS, Genesis, Region, decode_genesis
from schemas.topics import updates_topic
from tests import factories
from tests.factories import BUFFERED, LAYOUT, NOW_MS, TASK, Site, model_sha, sha
from tests.strangers.program import HERE, SCHEMAS, Stranger
from tests.vectors.__main__ import FILES
from tests.vectors.wire import authorities

pytestmark = pytest.mark.needs("go")

FEDERATION = HERE.parent / "golden" / "federation.v1"
EXPECTED = json.loads((FEDERATION / "expected.json").read_text())


def test_it_agrees_with_every_vector(stranger: Stranger) -> None:
    found = stranger("vectors", SCHEMAS)
    assert found["problems"] == []
    cases = {name: len(json.loads((SCHEMAS / "vectors" / name).read_text())["cases"]) for name in FILES}
    assert found["cases"] == cases


def spoiled(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            digit = value[-1:]
            return value[:-1] + ("1" if digit != "1" else "2")
        case list():
            return [*value[:-1], spoiled(value[-1])]
        case _:
            raise TypeError(type(value))


SPOILED = {
    "buckets.json": ["buckets.32"],
    "buffers.json": ["digits"],
    "certificates.json": ["identity.not_after_ms", "reason", "identity.region"],
    "checks.json": ["verdicts.outcome", "verdicts.reason", "verdicts.v2"],
    "codecs.json": ["levels"],
    "defences.json": ["norm_deviations", "reason", "clip", "weight"],
    "digests.json": ["sha256"],
    "encodings.json": ["reason"],
    "envelopes.json": ["signed", "signature", "envelope"],
    "examples.json": ["weighs"],
    "genesis.json": ["good", "sum_elements", "slots"],
    "heads.json": ["signed", "verdicts_sha256", "header"],
    "lateness.json": ["weight"],
    "logs.json": ["windows.state", "verdicts.norm", "windows.sums", "windows.closed_by"],
    "lots.json": ["selected"],
    "manifests.json": ["sha256", "good"],
    "merges.json": ["optimizer", "model", "reference"],
    "names.json": ["keys.facts"],
    "norms.json": ["cosine", "norm", "added", "clip"],
    "partitions.json": ["murmur2", "partitions.64"],
    "policies.json": ["good", "sha256"],
    "rates.json": ["rate"],
    "records.json": ["bytes"],
    "robust.json": ["total", "coefficients", "bucket_weights"],
    "schemas.json": ["header", "sha256", "canonical_form"],
    "scores.json": ["norm_deviations", "anomalous"],
    "signatures.json": ["valid"],
    "staleness.json": ["weights"],
    "usual.json": ["bucket", "middle"],
}
"""Of each file's first case what is changed, one after another."""


def spoil(case: dict[str, Any], path: str) -> None:
    first, _, rest = path.partition(".")
    if not rest:
        case[first] = spoiled(case[first])
        return
    inner = case[first][-1] if isinstance(case[first], list) else case[first]
    spoil(inner, rest)


@pytest.mark.parametrize("turn", range(max(map(len, SPOILED.values()))))
def test_it_would_say_so_if_a_vector_were_another(stranger: Stranger, tmp_path: Path, turn: int) -> None:
    for folder in ("avsc", "vectors"):
        shutil.copytree(SCHEMAS / folder, tmp_path / folder)
    assert set(SPOILED) == set(FILES)
    changed = {name: paths[turn] for name, paths in SPOILED.items() if turn < len(paths)}
    for name, path in changed.items():
        file = tmp_path / "vectors" / name
        content = json.loads(file.read_text())
        spoil(content["cases"][0], path)
        file.write_text(json.dumps(content))
    problems = stranger("vectors", tmp_path)["problems"]
    assert {problem.partition(",")[0] for problem in problems} == set(changed)


def test_it_recomputes_the_recorded_federation_to_the_audit_s_digest(stranger: Stranger) -> None:
    found = stranger("audit", SCHEMAS, FEDERATION, EXPECTED["task"], EXPECTED["genesis_sha256"])
    assert found["problems"] == []
    assert found["digest"] == EXPECTED["digest"]
    assert found["models"] == [one["model_sha256"] for one in EXPECTED["versions"][1:]]
    audit = EXPECTED["audit"]
    assert (found["versions"], found["records"]) == (audit["versions"], audit["records"])
    assert found["announcements"] == audit["announcements"]
    assert found["windows"] == sum(one["aggregates"] for one in audit["partitions"])


@pytest.mark.parametrize("name", ["versions/3/model.safetensors", "versions/5/manifest.json", "objects"])
def test_it_finds_what_was_changed_in_the_store(stranger: Stranger, tmp_path: Path, name: str) -> None:
    shutil.copytree(FEDERATION, tmp_path / "federation")
    store = tmp_path / "federation" / "store" / EXPECTED["task"]
    file = store / name
    if name == "objects":
        manifest = json.loads((store / "versions" / "4" / "manifest.json").read_text())
        sums = next(one["sum_sha256"] for one in manifest["inputs"] if one["sum_sha256"])
        file = store / name / sums[:2] / sums
    data = file.read_bytes()
    at = data.index(b'"weight_total":') + len(b'"weight_total":') if name.endswith("json") else len(data) - 1
    file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    found = stranger("audit", SCHEMAS, tmp_path / "federation", EXPECTED["task"], EXPECTED["genesis_sha256"])
    assert found["problems"] != []


def asked(rules: Policy, layout: Layout, device: str, codec: str) -> tuple[bytes, dict[str, Any]]:
    """A genesis document, and what the program is asked for: an update of this device to its version 0."""
    pems = authorities()
    genesis = Genesis(
        task=TASK,
        regions={"eu": Region(3, pems["eu"]), "us": Region(1, pems["us"])},
        control_authority=pems["control"],
        layout=factories.entries(layout),
        policy=json.loads(rules.canonical()),
        model_sha256=model_sha(0),
        optimizer_sha256=sha("optimizer"),
        nonce=factories.NONCE,
        format=NEWEST_GENESIS,
    ).canonical()
    values, edges = factories.delta(7, layout), layout.starts.tolist()
    return genesis, {
        "genesis": genesis.decode(),
        "certificate": factories.device_signer(device).certificate.hex(),
        "private_key": factories.key(f"eu/device/{device}").private_bytes_raw().hex(),
        "base_version": 0,
        "base_sha256": model_sha(0),
        "update_id": "u-1",
        "codec": codec,
        "created_at_ms": NOW_MS,
        "change": {
            name: values[edges[t] : edges[t + 1]].astype(float).tolist()
            for t, name in enumerate(layout.names)
        },
    }


@pytest.mark.parametrize("layout", [LAYOUT, BUFFERED], ids=["weights", "with buffers"])
@pytest.mark.parametrize("codec", ["int8", "int4", "float32"])
def test_the_fold_accepts_what_it_signs(stranger: Stranger, codec: str, layout: Any) -> None:
    rules = factories.policy(updates={"codecs": [codec], "norm_clip": 0.25})
    device = "d-0042"
    genesis, told = asked(rules, layout, device, codec)
    made = stranger("update", SCHEMAS, told=told)
    home = partition_of(device, 3)
    assert (made["topic"], made["partition"], made["key"]) == (updates_topic(TASK, "eu"), home, device)
    first = decode_genesis(genesis)
    state = factories.state_of(first.first_policy, partition=home, partitions=3, layout=first.tensor_layout)
    verdict = Site(state, first.trust).append(bytes.fromhex(made["value"]))
    assert isinstance(verdict, Verdict)
    assert (verdict.outcome, verdict.device_id, verdict.update_id) == (ACCEPTED, device, "u-1"), (
        verdict.detail
    )
    assert verdict.norm == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(
    "selection", [{"kind": "share", "share": 0.5}, {"kind": "slots", "slots": 2}], ids=["share", "slots"]
)
def test_it_publishes_only_where_it_is_selected(stranger: Stranger, selection: dict[str, Any]) -> None:
    """The client draws its lot as the fold does: what it does not publish would have been refused."""
    rules = factories.policy(format="fluvial/policy/v5", selection=selection, buffer={"seconds_max": 4.0})
    place = {"base_version": 1, "base_sha256": model_sha(1)}
    told = {device: asked(rules, LAYOUT, device, "int8")[1] for device in factories.devices(6)}

    def published(**changed: Any) -> list[str]:
        return [
            device
            for device, one in told.items()
            if "value" in stranger("update", SCHEMAS, told=one | changed)
        ]

    def selected(turns: int) -> list[str]:
        lots = {device: Candidate(TASK, device, 1, model_sha(1), turns) for device in told}
        return [device for device, lot in lots.items() if is_selected(rules.selection, lot)]

    assert published(**place) == published(**place, waited_s=3.99) == selected(0)
    assert 0 < len(selected(0)) < len(told)
    assert published(**place, waited_s=4.0) == selected(1) == list(told)
    assert published() == list(told), "version 0 is everybody's"
