"""Each mutation, folded in this process: what it gets is among what it may get, and honest records stay welcome."""

from __future__ import annotations

import datetime as dt

import pytest

from aggregation.fold.rejections import ACCEPTED
from schemas.certificates import CONTROL, Role
from tests import factories
from tests.fuzz import mutator
from tests.fuzz.mutator import Cast, Device, Moment, Mutator

BYTES_MAX = 1 << 16
TRIES = 25
POLICY = factories.policy(updates={"bytes_max": BYTES_MAX}, anomaly={"enabled": False})
LONG_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)


def cast() -> Cast:
    def device(name: str, partition: int, region: str = "eu", **spoiled: object) -> Device:
        return Device(name, partition, factories.device_signer(name, region, **spoiled))

    idle, loose = [], []
    for partition in (0, 1):
        found = factories.devices(4, partition=partition, partitions=2)
        idle += [device(name, partition) for name in found[:2]]
        loose += [device(name, partition) for name in found[2:]]
    return Cast(
        idle=idle,
        loose=loose,
        foreign=device("d-foreign", 0, secret="another"),
        expired=device("d-expired", 0, not_after=LONG_AGO, not_before=LONG_AGO - dt.timedelta(1)),
        revoked=device("d-revoked", 0),
        elsewhere=device("d-us", 0, "us"),
        worker=factories.signer("eu", Role.WORKER, "w-1"),
        merger=factories.signer(CONTROL, Role.MERGER, "m-1"),
        operator=factories.signer(CONTROL, Role.OPERATOR, "o-1"),
    )


def source_of(seed: int = 1) -> Mutator:
    return Mutator(seed, factories.TASK, "eu", 2, factories.LAYOUT, BYTES_MAX, cast())


def site(partition: int) -> factories.Site:
    made = factories.Site(factories.state_of(POLICY, partition=partition, partitions=2))
    made.append(factories.revoke_bytes("d-revoked"))
    return made


@pytest.mark.parametrize("partition", [0, 1])
@pytest.mark.parametrize("name", mutator.names())
def test_what_it_gets_is_what_it_may_get(name: str, partition: int) -> None:
    source, log = source_of(partition), site(partition)
    first = factories.devices(1, partition=partition, partitions=2, start=500)[0]
    honest = [factories.update_bytes(first)]
    controls = [factories.barrier_bytes(0, POLICY)]
    moment = Moment(partition, 0, factories.model_sha(0), honest, controls)
    for value in (*honest, *controls):
        log.append(value)
    for number in range(TRIES):
        fuzzed = source.make(name, moment)
        assert log.append(fuzzed.value).outcome in fuzzed.outcomes, (number, log.verdicts[-1])
    after = factories.devices(1, partition=partition, partitions=2, start=600)[0]
    assert log.append(factories.update_bytes(after)).outcome == ACCEPTED


def test_the_same_seed_makes_the_same_records() -> None:
    one, other = source_of(5), source_of(5)
    moment = Moment(0, 0, factories.model_sha(0))
    for _ in range(200):
        assert one.next(moment) == other.next(moment)
    assert source_of(6).next(moment) != source_of(7).next(moment)


def test_all_mutations_take_their_turn() -> None:
    source, moment = source_of(), Moment(0, 0, factories.model_sha(0))
    assert {source.next(moment).mutation for _ in range(mutator.BOMB_EVERY)} == set(mutator.names())
