"""Whose records count: a process whose certificate nobody would believe does not start, and ends when it expires."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregation.errors import FluvialError
from schemas.certificates import Role
from stream_apps.credentials import own_identity, require_valid
from tests import factories

if TYPE_CHECKING:
    from schemas.envelope import Signer


@pytest.mark.parametrize(
    "signer",
    [
        factories.device_signer("d-0001"),
        factories.merger_signer(),
        factories.worker_signer("w-1", "us"),
        factories.signer("eu", Role.WORKER, "w-1", secret="another CA"),
    ],
    ids=["a device", "a merger", "another region", "another CA"],
)
def test_a_process_whose_records_nobody_would_believe_does_not_start(signer: Signer) -> None:
    with pytest.raises(FluvialError) as caught:
        own_identity(signer, factories.trust(), region="eu", role=Role.WORKER)
    assert (caught.value.error_id, caught.value.exit_code) == ("FLV-3203", 4)


def test_a_process_ends_when_its_certificate_does() -> None:
    old = factories.signer("eu", Role.WORKER, "w-1", not_after=factories.NOT_BEFORE.replace(year=2026, day=2))
    identity = own_identity(old, factories.trust(), region="eu", role=Role.WORKER)
    with pytest.raises(FluvialError) as caught:
        require_valid(identity)
    assert caught.value.error_id == "FLV-3203"
    assert "has expired" in caught.value.message
