"""Which certificates a log revokes: what a revoked operator signs revokes nothing more, as in the fold."""

from __future__ import annotations

from cryptography import x509

from aggregation.fold.rules import CERTIFICATE
from backends.revocations import revoked_from
from tests import factories
from tests.small_federation import SmallFederation


def test_a_revoked_operators_revokes_count_for_nothing() -> None:
    federation = SmallFederation(partitions={"eu": 1})
    stolen = factories.operator_signer("op-9")
    serial = f"{x509.load_der_x509_certificate(stolen.certificate).serial_number:x}"
    first = federation.append(
        "eu", 0, factories.revoke_bytes("", serial, by=federation.signer(factories.operator_signer()))
    )
    federation.append("eu", 0, factories.revoke_bytes("", "abc", by=federation.signer(stolen)))

    def found(start: int, *known: str) -> set[str]:
        with federation.open_reader("revoked") as reader:
            return revoked_from(reader, federation.trust, federation.task, ("eu", 0), start, known=known)

    assert found(0) == {serial}
    assert found(first + 1) == {"abc"}
    assert found(first + 1, CERTIFICATE + serial) == {serial}
