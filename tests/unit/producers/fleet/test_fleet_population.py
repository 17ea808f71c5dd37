"""Who is in a fleet: settings with bounds, every rule broken early, attackers who never rest, a journal of it all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.errors import UsageProblem
from backends import keys
from backends.settings import KeySettings
from producers.fleet.behaviours import ATTACKS, MISBEHAVIOURS, Behaviour
from producers.fleet.journal import Entry, Journal, read_journal
from producers.fleet.population import FleetConfig, Member, device_name, next_behaviour, populate
from producers.sdk.updates import Author
from producers.sdk.whose_key import holder_of_key
from schemas.certificates import Role
from schemas.manifests import Genesis, Region
from tests import factories

if TYPE_CHECKING:
    from pathlib import Path


def member(index: int) -> Member:
    genesis = Genesis(
        task="t", regions={}, control_authority="", layout=(), policy={}, model_sha256="", optimizer_sha256=""
    )
    author = Author(genesis, "eu", device_name(index), factories.device_signer("d-0001"))
    return Member(index, author, 1.0, np.random.default_rng(index))


def play(config: FleetConfig, rounds: int) -> dict[int, list[Behaviour]]:
    done: dict[int, list[Behaviour]] = {}
    for index in range(config.devices):
        one = member(index)
        done[index] = []
        for _ in range(rounds):
            done[index].append(next_behaviour(one, config))
            one.rounds += 1
    return done


@pytest.fixture
def authorities(tmp_path: Path) -> tuple[Path, Genesis]:
    pems = {}
    for region in ("control", "eu", "us"):
        pems[region] = keys.certificate_pem(keys.create_authority(tmp_path, region))
    regions = {region: Region(partitions=2, authority=pems[region]) for region in ("eu", "us")}
    genesis = Genesis(
        task="t",
        regions=regions,
        control_authority=pems["control"],
        layout=(),
        policy=json.loads(factories.policy().canonical()),
        model_sha256="",
        optimizer_sha256="",
    )
    return tmp_path, genesis


@pytest.mark.parametrize("misbehaving", [1, 2, 4, 9, 20])
def test_every_rule_is_broken_once_in_the_first_rounds(misbehaving: int) -> None:
    config = FleetConfig(devices=30, attackers=2, misbehaving=misbehaving)
    rounds = -(-len(MISBEHAVIOURS) // misbehaving)
    done = play(config, rounds)
    broken = {behaviour for each in done.values() for behaviour in each} - {Behaviour.HONEST, *ATTACKS}
    assert broken == set(MISBEHAVIOURS)


def test_attackers_attack_every_time_each_in_its_way_and_the_others_stay_honest() -> None:
    done = play(FleetConfig(devices=10, attackers=4, misbehaving=2), 50)
    assert [set(done[index]) for index in range(4)] == [{Behaviour.HONEST}] * 4
    assert [done[index][0] for index in range(6, 10)] == [*ATTACKS, *ATTACKS][:4]
    assert all(len(set(done[index])) == 1 for index in range(6, 10))


def test_later_a_misbehaving_device_is_mostly_honest() -> None:
    done = play(FleetConfig(devices=4, misbehaving=4, misbehaviour_rate=0.25), 400)
    honest = sum(behaviour is Behaviour.HONEST for each in done.values() for behaviour in each)
    assert 0.65 < honest / 1600 < 0.85


@pytest.mark.parametrize(
    "wrong",
    [
        {"devices": 0},
        {"devices": 3, "attackers": 4},
        {"devices": 3, "attackers": 2, "misbehaving": 2},
        {"alpha": 0.0},
        {"alpha": float("nan")},
        {"round_s": -1.0},
        {"misbehaviour_rate": 1.5},
        {"seconds_max": 0.0},
        {"seed": -1},
        {"codec": "int3"},
    ],
    ids=str,
)
def test_a_setting_out_of_bounds_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageProblem, match=list(wrong)[-1]) as caught:
        FleetConfig(**wrong)
    assert caught.value.error_id == "FLV-2505"


def test_devices_are_dealt_out_to_regions_and_keep_their_keys(authorities: tuple[Path, Genesis]) -> None:
    folder, genesis = authorities
    first = populate(genesis, folder, FleetConfig(devices=5))
    again = populate(genesis, folder, FleetConfig(devices=5))
    assert [one.author.region for one in first] == ["eu", "us", "eu", "us", "eu"]
    assert [one.author.signer.certificate for one in first] == [
        one.author.signer.certificate for one in again
    ]
    assert [one.pace for one in first] == [one.pace for one in again]
    for one in first:
        holder = holder_of_key(one.author.signer, genesis, one.author.region, folder)
        assert (holder.name, holder.cohort) == (one.author.device_id, "")


def test_devices_are_issued_by_cas_that_are_encrypted(authorities: tuple[Path, Genesis]) -> None:
    folder, genesis = authorities
    keeping = keys.Keeping(KeySettings(ca_passphrase="of the machine with the CAs"))
    for region in ("eu", "us"):
        keys.create_authority(folder, region, keys.Keeping(keeping.settings, encrypted=True))
    members = populate(genesis, folder, FleetConfig(devices=2), keeping=keeping)
    assert [one.author.region for one in members] == ["eu", "us"]
    with pytest.raises(UsageProblem) as caught:
        populate(genesis, folder, FleetConfig(devices=3))
    assert caught.value.error_id == "FLV-2311"


def test_devices_of_natural_parts_have_the_names_of_the_parts(authorities: tuple[Path, Genesis]) -> None:
    folder, genesis = authorities
    members = populate(genesis, folder, FleetConfig(devices=2), ["shop-0", "shop-1"])
    assert [member.author.device_id for member in members] == ["shop-0", "shop-1"]


@pytest.mark.parametrize(
    ("role", "region", "asked", "error_id"),
    [
        (Role.WORKER, "eu", "eu", "FLV-2506"),
        (Role.DEVICE, "us", "eu", "FLV-2506"),
        (Role.DEVICE, "eu", "mars", "FLV-2407"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused_at_once(
    authorities: tuple[Path, Genesis], role: Role, region: str, asked: str, error_id: str
) -> None:
    folder, genesis = authorities
    path = keys.issue(folder, region, role, "someone")
    with pytest.raises(UsageProblem) as caught:
        holder_of_key(keys.load_key_pair(path), genesis, asked, path)
    assert caught.value.error_id == error_id


def test_a_journal_is_appended_to_and_read_back(tmp_path: Path) -> None:
    entries = [Entry(2.0, 1.0, "d-0001", "eu", 1, offset, "honest", 3, "abc") for offset in (7, 8)]
    for entry in entries:
        with Journal(tmp_path / "runs" / "journal.jsonl") as journal:
            journal.acknowledged(entry)
            assert journal.total == 1
    assert read_journal(tmp_path / "runs" / "journal.jsonl") == entries


def test_a_certificate_of_another_tasks_authority_does_not_fit(authorities: tuple[Path, Genesis]) -> None:
    folder, genesis = authorities
    foreign = factories.authority("eu").public_bytes(Encoding.PEM).decode()
    other = Genesis(
        task="t",
        regions={"eu": Region(partitions=1, authority=foreign)},
        control_authority=genesis.control_authority,
        layout=(),
        policy={},
        model_sha256="",
        optimizer_sha256="",
    )
    path = keys.issue(folder, "eu", Role.DEVICE, "d-0001")
    with pytest.raises(UsageProblem, match="not issued by the CA") as caught:
        holder_of_key(keys.load_key_pair(path), other, "eu", path)
    assert caught.value.error_id == "FLV-2506"


def test_devices_of_a_fleet_have_the_cohorts_of_their_certificates(authorities: tuple[Path, Genesis]) -> None:
    folder, genesis = authorities
    members = populate(genesis, folder, FleetConfig(devices=3), cohorts=["old", "", "3"])
    assert [one.author.cohort for one in members] == ["old", "", "3"]
    again = populate(genesis, folder, FleetConfig(devices=3), cohorts=["new", "new", "new"])
    assert [one.author.cohort for one in again] == ["old", "", "3"], "certificates are not made again"


def test_a_fleet_that_the_policy_never_selects_does_not_begin(authorities: tuple[Path, Genesis]) -> None:
    folder, genesis = authorities
    selection = {"kind": "cohorts", "share": 0.0, "cohorts": {"old": 1.0, "away": 0.0}}
    asked = msgspec.structs.replace(
        genesis,
        policy=json.loads(factories.policy(format="fluvial/policy/v6", selection=selection).canonical()),
    )
    with pytest.raises(UsageProblem) as caught:
        populate(asked, folder, FleetConfig(devices=2), cohorts=["away", ""])
    assert caught.value.error_id == "FLV-2511"
    assert len(populate(asked, folder, FleetConfig(devices=3), cohorts=["", "", "old"])) == 3
