"""Vectors of heads: what a worker signs beside its verdicts, and what is none (ADR 34)."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.fold.events import Verdict
from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES, RecordRules
from aggregation.reasons import Reason, because
from schemas.certificates import Role
from schemas.verdicts import encode_verdict
from schemas.vouching import HEADER, HeadPlace, Stretch, head_in, mark_of, sign_head
from tests import factories
from tests.vectors.writing import document

GENESIS: Final = bytes.fromhex(factories.sha("genesis"))
PLACE: Final = HeadPlace(GENESIS, ("eu", 3))
SIGNER: Final = factories.worker_signer("w-1")
VERDICTS: Final = (
    Verdict(40, "accepted", device_id="d-0001", update_id="u-é-1", base_version=2, weight=65536, clip=1.0),
    Verdict(41, "control"),
    Verdict(42, "skipped", because(Reason.PARKED, 44, "it raises")),
    Verdict(43, "undecodable", because(Reason.NO_VALUE)),
)


def _good(rules: RecordRules, first: int, after: int) -> dict[str, Any]:
    digest, values, skipped = hashlib.sha256(), [], []
    for verdict in VERDICTS:
        if first <= verdict.offset < after:
            values.append(encode_verdict(verdict, rules))
            digest.update(mark_of(verdict, values[-1], rules))
            skipped += [verdict.offset] if verdict.outcome == "skipped" else []
    stretch = Stretch(first, after, digest.digest(), tuple(skipped))
    return {
        "verdicts": [value.hex() for value in values],
        "first_offset": first,
        "next_offset": after,
        "skipped": skipped,
        "verdicts_sha256": stretch.verdicts_sha256.hex(),
        "signed": PLACE.signed(stretch.body()).hex(),
        "header": sign_head(stretch, SIGNER, PLACE).hex(),
        "good": True,
    }


def _bad() -> dict[str, bytes]:
    stretch = Stretch(40, 44, bytes(32), (42,))
    good = sign_head(stretch, SIGNER, PLACE)

    def by(role: Role, region: str = "eu", **spoiled: Any) -> bytes:
        return sign_head(stretch, factories.signer(region, role, "w-1", **spoiled), PLACE)

    return {
        "of another genesis": sign_head(stretch, SIGNER, HeadPlace(bytes(32), PLACE.slot)),
        "of another partition": sign_head(stretch, SIGNER, HeadPlace(GENESIS, ("eu", 2))),
        "of another region": sign_head(stretch, SIGNER, HeadPlace(GENESIS, ("us", 3))),
        "by a device": by(Role.DEVICE),
        "by a worker of another region": by(Role.WORKER, "us"),
        "by another CA": by(Role.WORKER, secret="x"),
        "expired": by(Role.WORKER, not_after=factories.NOT_BEFORE),
        "cut short": good[:-1],
        "a byte more": good + b"\0",
        "another format": b"\2" + good[1:],
        "no offsets": sign_head(Stretch(40, 40, bytes(32)), SIGNER, PLACE),
        "below 0": sign_head(Stretch(-1, 44, bytes(32)), SIGNER, PLACE),
        "skipped outside": sign_head(Stretch(40, 44, bytes(32), (44,)), SIGNER, PLACE),
        "skipped twice": sign_head(Stretch(40, 44, bytes(32), (42, 42)), SIGNER, PLACE),
        "more skipped than one head names": sign_head(
            Stretch(0, 99, bytes(32), tuple(range(65))), SIGNER, PLACE
        ),
        "empty": b"",
    }


def heads() -> dict[str, Any]:
    """Heads that a worker made, with the verdicts that they speak of; and what says nothing."""
    cases = [
        _good(CANONICAL_RULES, 40, 44),
        _good(CANONICAL_RULES, 43, 44),
        _good(FIRST_RULES, 40, 44),
    ]
    trust = factories.trust()
    for name, value in _bad().items():
        claimed = head_in([(HEADER, value)])
        assert claimed is None or claimed.voucher(factories.NOW_MS, trust, PLACE) is None, name
        cases.append({"name": name, "header": value.hex(), "good": False})
    authorities = {
        region: factories.authority(region).public_bytes(Encoding.PEM).decode()
        for region in ("eu", "us", factories.CONTROL)
    }
    return document(
        f"the values of the Kafka header {HEADER}",
        cases,
        authorities=authorities,
        genesis_sha256=GENESIS.hex(),
        region=PLACE.slot[0],
        partition=PLACE.slot[1],
        timestamp_ms=factories.NOW_MS,
        private_key=SIGNER.key.private_bytes_raw().hex(),
        certificate=SIGNER.certificate.hex(),
    )
