"""How a run's parts get into its Kafka: every listener asks for the same, and a policy says who there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aggregation.errors import UsageProblem
from backends.environment import load_settings
from backends.settings import StackFile, StoreSettings
from fluvial import cli
from fluvial.local import files
from fluvial.proof.chaos.links import choose_links
from fluvial.proof.chaos.parts import Cast
from fluvial.proof.chaos.plan import SECURITIES, ChaosPlan, Security
from fluvial.proof.chaos.schedule import plan_faults
from fluvial.proof.chaos.verify import is_within_reach
from fluvial.proof.chaos.ways_in import WaysIn
from schemas.access import ROLES

GUIDE = 'format = "fluvial/policy/v3"\n[defence]\nkind = "guide"\nguide_missing = "wait"\n'


def plan(**changed: object) -> ChaosPlan:
    known = {"seconds": 1.0, "seed": 0, "kinds": ("kill",), "devices": 8, "regions": {"eu": 1}, "workers": 1}
    return ChaosPlan(**(known | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("security", SECURITIES)
def test_every_listener_asks_for_the_same(security: Security, *, linked: bool) -> None:
    links = choose_links(["worker-eu-0", "fleet"]) if linked else []
    listeners = WaysIn(security, links).listeners
    behind = {one.name: (one.port, one.advertised_port) for one in listeners}
    for link in links:
        assert behind[link.listener.name] == (link.listener_port, link.broker_port)
    if security == "scram":
        assert len(listeners) == len(links) + 1, "one that is no process's"
        for one in listeners:
            prefix = f"listener.name.{one.name.lower()}."
            assert one.protocol == "SASL_SSL"
            assert all(line.startswith(prefix) for line in one.properties)
            assert f"{prefix}sasl.enabled.mechanisms=SCRAM-SHA-512" in one.properties
    else:
        assert len(listeners) == len(links)
        assert all((one.protocol, one.properties) == ("", ()) for one in listeners), "the stack's own"


@pytest.mark.parametrize("security", SECURITIES)
def test_each_role_has_a_way_of_its_own(tmp_path: Path, security: Security) -> None:
    ways = WaysIn(security, [])
    state = StackFile(store_kind="file", running=True, kafka_port=9092, cluster_id="c", secured=ways.has_tls)
    files.write_stack_file(tmp_path, state)
    kafka = {role: ways.settings(tmp_path, role).kafka for role in ROLES}
    match security:
        case "none":
            assert {one.security_protocol for one in kafka.values()} == {"PLAINTEXT"}
        case "tls":
            assert {role: one.certificate_file for role, one in kafka.items()} == {
                role: tmp_path / "tls" / f"{role}.pem" for role in ROLES
            }
        case "scram":
            assert {role: one.sasl_username for role, one in kafka.items()} == {role: role for role in ROLES}
            assert len({one.sasl_password for one in kafka.values()}) == len(ROLES)
            assert all(one.certificate_file is None for one in kafka.values())
    assert all(not one.has_tls or one.ca_file == tmp_path / "tls" / "ca.pem" for one in kafka.values())


@pytest.mark.parametrize(
    ("changed", "guided"),
    [
        ({}, False),
        ({"defence": "median"}, False),
        ({"defence": "guide"}, True),
        ({"policy_text": GUIDE}, True),
        ({"policy_text": GUIDE.replace("guide", "none", 1), "defence": "guide"}, False),
    ],
)
def test_a_policy_that_is_guided_has_guardians(changed: dict[str, object], *, guided: bool) -> None:
    asked = plan(**changed)
    assert asked.is_guided == guided
    crew = Cast(asked.regions, asked.workers, store=True, guided=asked.is_guided)
    assert bool(crew.guardians) == guided
    assert {name for name, role in crew.roles.items() if role == "guardian"} == set(crew.guardians)
    assert crew.roles["fleet"] == "device"
    assert set(crew.targets().processes) == set(crew.processes)


def test_a_policy_that_is_none_is_refused_before_anything_is_started() -> None:
    with pytest.raises(UsageProblem) as caught:
        _ = plan(policy_text="[buffer]\nupdates = -1\n").is_guided
    assert caught.value.error_id in {"FLV-2001", "FLV-2002"}


@pytest.mark.parametrize(
    "options", [["--security", "tls"], ["--security", "scram"], ["--faults", "disk,network,corrupt"]]
)
def test_what_has_no_effect_on_a_cluster_that_is_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert (
        cli.main(["--home", str(tmp_path / "home"), "chaos", "--on-cluster", *options])
        == UsageProblem.exit_code
    )
    assert "error[FLV-6001]" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_a_cluster_that_is_there_has_no_ground_to_hit_and_a_task_of_its_own() -> None:
    crew = Cast({"eu": 1}, 1, store=False, broker=False)
    assert (crew.ground, crew.targets().ground) == ((), ())
    faults = plan_faults(1, 600.0, ["kill", "pause"], crew.targets())
    assert faults and not any(fault.on_ground for fault in faults)
    one, two = (plan(cluster=lambda role: load_settings(role=role)) for _ in range(2))
    assert one.task == one.task != two.task
    assert plan().task == "digits"


KEYS: dict[str, Any] = {"access_key": "a", "secret_key": "b"}


@pytest.mark.parametrize(
    ("store", "within"),
    [
        (StoreSettings(kind="minio", endpoint="127.0.0.1:9000", **KEYS), True),
        (StoreSettings(kind="s3", endpoint="s3.example:443", secure=True, **KEYS), True),
        (StoreSettings(kind="file", path=Path("/data")), False),
        (StoreSettings(kind="s3", endpoint="s3.example:443"), False),
        (StoreSettings(kind="s3", endpoint="s3.example:443", profile="one"), False),
        (StoreSettings(kind="s3", endpoint="s3.example:443", session_token="t", **KEYS), False),
        (StoreSettings(kind="s3", endpoint="s3.example:443", proxy="http://proxy:1", **KEYS), False),
        (StoreSettings(kind="s3", endpoint="s3.example:443", addressing="virtual", **KEYS), False),
    ],
)
def test_the_checker_reads_a_store_by_its_own_client_where_that_gets_in(
    store: StoreSettings, *, within: bool
) -> None:
    assert is_within_reach(store) == within
