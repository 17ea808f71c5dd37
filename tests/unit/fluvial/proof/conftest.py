"""A federation's logs and objects, read once for a file of tests, and a copy of them for each test."""

from __future__ import annotations

import copy

import pytest

from fluvial.proof.checker import Acknowledged
from schemas.certificates import Role
from schemas.envelope import Signer, open_envelope
from schemas.topics import models_topic, updates_topic
from tests import factories
from tests.small_federation import SmallFederation
from tests.unit.fluvial.proof.checked_copy import Copy, copy_of


@pytest.fixture(scope="module")
def original() -> Copy:
    """Four versions over three partitions, with garbage, a stranger's barrier and a stranger's announcement."""
    federation = SmallFederation()
    federation.append("eu", 0, b"garbage")
    der = factories.certificate("control", Role.MERGER, "x", secret="z")
    stranger = Signer(der, factories.key("x"), federation.genesis.domain)
    federation.append(
        "eu", 1, factories.barrier_bytes(9, federation.policy, by=stranger, task=federation.task)
    )
    federation.writer.append_now(models_topic(federation.task), b"junk", partition=0)
    federation.rounds(4)
    federation.fold()
    data = copy_of(federation)
    log = data.logs[updates_topic(federation.task, "us"), 0]
    for offset, _, _, value in log:
        envelope = open_envelope(value or b"")
        if envelope.kind == "ClientUpdate":
            said = envelope.record
            data.acknowledged.append(Acknowledged("us", 0, offset, said["update_id"], said["device_id"]))
    return data


@pytest.fixture
def data(original: Copy) -> Copy:
    return copy.deepcopy(original)
