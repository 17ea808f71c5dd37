"""Who may do what with Kafka: the least, and nothing of another task or region."""

from __future__ import annotations

from schemas.access import OF_A_REGION, ROLES, access_of
from schemas.topics import topics_of

REGIONS = {"eu": 2, "us": 1}
GRANTS = access_of("digits", REGIONS, guided=True)


def test_every_role_has_something_and_every_topic_is_known() -> None:
    known = {topic.name for topic in topics_of("digits", REGIONS, guided=True)}
    assert {grant.role for grant in GRANTS} == set(ROLES)
    assert {grant.name for grant in GRANTS if grant.kind == "topic"} == known


def test_no_topic_is_granted_by_a_prefix() -> None:
    """``fl.a.`` would be all of a task ``a``, whatever topics it gets later."""
    assert [grant for grant in GRANTS if grant.is_prefix and grant.kind == "topic"] == []
    assert all(grant.name.startswith("fluvial-digits-") for grant in GRANTS if grant.kind == "group")


def test_a_region_reaches_no_other() -> None:
    for grant in GRANTS:
        assert bool(grant.region) == (grant.role in OF_A_REGION)
        others = REGIONS.keys() - {grant.region}
        if grant.region:
            assert not any(grant.name.endswith(f".{other}") for other in others)


def test_who_writes_derived_topics() -> None:
    """What A7 of the guarantees rests on."""
    writers: dict[str, set[str]] = {}
    for grant in GRANTS:
        if "Write" in grant.operations:
            writers.setdefault(grant.name.split(".")[2], set()).add(grant.role)
    assert writers == {
        "updates": {"device", "worker", "merger", "operator"},
        "verdicts": {"worker"},
        "aggregates": {"worker"},
        "models": {"merger", "operator"},
        "guides": {"guardian"},
        "metrics": {"worker", "merger", "evaluator"},
    }


def test_a_task_without_guides_has_no_guardians() -> None:
    without = access_of("digits", REGIONS)
    assert {grant.role for grant in without} == set(ROLES) - {"guardian"}
    assert set(without) < set(GRANTS)
    assert {grant.name for grant in set(GRANTS) - set(without)} == {
        "fl.digits.guides",
        "fl.digits.models",
        "fluvial-digits-guardian-",
    }


def test_of_heartbeats_devices_write_their_own_and_operators_read() -> None:
    more = set(access_of("digits", REGIONS, guided=True, heartbeats=True)) - set(GRANTS)
    assert {grant.name for grant in more} == {"fl.digits.heartbeats"}
    assert {(grant.role, grant.region, grant.operations[0]) for grant in more} == {
        ("device", "eu", "Write"),
        ("device", "us", "Write"),
        ("reader", "", "Read"),
        ("operator", "", "Read"),
    }


def test_a_merger_reads_what_it_folds_again() -> None:
    readable = {grant.name for grant in GRANTS if grant.role == "merger" and "Read" in grant.operations}
    assert {"fl.digits.updates.eu", "fl.digits.updates.us"} <= readable


def test_readers_write_nothing_and_join_no_group() -> None:
    for grant in GRANTS:
        if grant.role == "reader":
            assert "Write" not in grant.operations
            assert grant.kind == "topic" or grant.operations == ("Describe",)


def test_devices_reach_what_they_need_and_no_group() -> None:
    assert {grant.name for grant in GRANTS if grant.role == "device" and grant.region == "eu"} == {
        "fl.digits.updates.eu",
        "fl.digits.verdicts.eu",
        "fl.digits.models",
    }
