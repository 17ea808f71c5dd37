"""Records changed at random, judged by the code and by the Go program: one verdict, to the byte where it has one."""

from __future__ import annotations

import json
import random
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES
from schemas.certificates import BadCertificateError, Role
from schemas.envelope import read_envelope
from tests import factories
from tests.certificate_flaws import FLAWS, flawed
from tests.factories import barrier_bytes, certificate, device_signer, devices, tick_bytes, update_bytes
from tests.strangers.program import SCHEMAS, Stranger
from tests.vectors import shares
from tests.vectors.logs import rules, skip_bytes
from tests.vectors.replaying import Log, folded_case
from tests.vectors.wire import authorities
from tests.vectors.writing import document

pytestmark = pytest.mark.needs("go")

RECORDS = 1000
CERTIFICATES = 3000
INTERESTING = [0x00, 0x01, 0x02, 0x7F, 0x80, 0x81, 0xFE, 0xFF]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: a bit, a byte, one more, one less, the end cut off, bytes behind it."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.randrange(len(changed)) if rng.random() < 0.5 else rng.randrange(min(60, len(changed)))
        match rng.randrange(6):
            case 0 | 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                changed[at] = rng.choice(INTERESTING)
            case 3:
                del changed[at]
            case 4:
                changed.insert(at, rng.choice([0x00, 0x80, 0xFF, rng.randrange(256)]))
            case _:
                changed = changed[: at + 1] if rng.random() < 0.5 else changed + bytes(rng.randrange(1, 4))
        if not changed:
            break
    return bytes(changed)


def written(folder: Path, name: str, cases: list[dict[str, Any]]) -> Path:
    """A folder of schemas with one file of vectors."""
    shutil.copytree(SCHEMAS / "avsc", folder / "avsc")
    (folder / "vectors").mkdir()
    text = json.dumps(document("mutated", cases, authorities=authorities()))
    (folder / "vectors" / name).write_text(text)
    return folder


V2, V3 = "fluvial/policy/v2", shares.V3


@pytest.mark.parametrize(
    ("canonical", "name"),
    [(True, V2), (False, V2), (True, V3)],
    ids=["canonical", "first rules", "under v3"],
)
def test_mutated_records_get_one_verdict(
    stranger: Stranger, tmp_path: Path, *, canonical: bool, name: str
) -> None:
    rng, make = random.Random(RECORDS), rules if name == V2 else shares.rules
    policy = make(
        window={"updates_max": 1000, "records_max": 10_000}, updates={"codecs": ["int8", "float32", "int4"]}
    )
    names = devices(3)
    good = [update_bytes(one, codec=codec) for one, codec in zip(names, policy.updates.codecs, strict=True)]
    good += [tick_bytes(0), factories.revoke_bytes("d-x"), skip_bytes(0), barrier_bytes(1, policy)]
    signers = {"Barrier": factories.merger_signer(), "Tick": factories.worker_signer()}
    signers["Guide"] = factories.guardian_signer()
    log = Log(policy)
    log.keep(policy.canonical())
    good += [shares.barrier(0, policy), shares.guide_bytes(0, factories.delta(5))]
    for _ in range(RECORDS):
        base = rng.choice(good)
        if rng.random() < 0.5:
            log.add(mutated(base, rng))
            continue
        envelope = read_envelope(base, CANONICAL_RULES)
        by = device_signer(rng.choice(names)) if envelope.kind == "ClientUpdate" else None
        by = by or signers.get(envelope.kind, factories.operator_signer())
        payload = envelope.payload[:10] + mutated(envelope.payload[10:], rng)
        log.add(by.sign_payload(envelope.kind, payload))
    case = folded_case("mutated", log, CANONICAL_RULES if canonical else FIRST_RULES)
    assert len({verdict["outcome"] for verdict in case["verdicts"]}) >= 8
    folder = written(tmp_path / "schemas", "logs.json", [case | {"canonical": canonical}])
    assert stranger("vectors", folder)["problems"] == []


def test_mutated_certificates_get_one_reason(stranger: Stranger, tmp_path: Path) -> None:
    rng, cases = random.Random(CERTIFICATES), []
    good = [
        certificate("eu", Role.DEVICE, "d-0001"),
        certificate("control", Role.MERGER, "m-1"),
        certificate("eu", Role.DEVICE, "d", is_authority=None),
    ]
    trust = factories.trust(rules=CANONICAL_RULES)
    changed = [mutated(rng.choice(good), rng) for _ in range(CERTIFICATES)]
    changed += [flawed(good[0], *names) for names in combinations(FLAWS, 2)]
    for der in changed:
        reason = 0
        try:
            trust.identify(der)
        except BadCertificateError as error:
            reason = error.because.reason.code
        cases.append({"name": "mutated", "der": der.hex(), "identity": None, "reason": reason})
    assert len({case["reason"] for case in cases}) >= 6
    problems = stranger("vectors", written(tmp_path / "schemas", "certificates.json", cases))["problems"]
    # By the first rules a library reads certificates, and what it takes for one is its own affair.
    assert [problem for problem in problems if "reason" in problem] == []
