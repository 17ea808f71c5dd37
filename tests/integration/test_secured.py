"""Kafka with mutual TLS, SASL and ACLs: who is let in, who is told why not, and that a federation runs on the least."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from aggregation.errors import AccessProblem, FluvialError
from backends.environment import load_settings
from backends.kafka.admin import admin_client, declare_topics, require_broker
from backends.kafka.consumer_groups import describe_groups
from backends.kafka.permissions import forbid, permit
from backends.kafka.reading import LogReader
from backends.kafka.topic_settings import compare_topics
from backends.kafka.writing import LogWriter
from fluvial.local.create import create_task
from fluvial.local.policies import quick_policy
from fluvial.local.stack_access import permit_task
from fluvial.local.tls_keys import principal
from fluvial.terminal.output import quiet_output
from schemas.access import ROLES, Grant, access_of
from schemas.topics import guides_topic, models_topic, topics_of
from tests import factories, warming
from tests.integration.pipeline import Federation, run_command, start_process
from tests.integration.secured import (
    PASSWORD,
    PLAIN_USER,
    SecuredStack,
    foreign_certificate,
    token_endpoint,
)
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import Settings

POLICY = factories.policy(
    window={"updates_max": 4, "seconds_max": 0.5}, buffer={"updates": 4, "seconds_max": 2.0}
)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredStack]:
    warming.archive_classes(tmp_path_factory.mktemp("archive"))
    secured = SecuredStack(tmp_path_factory.mktemp("secured"))
    secured.make_users(["known", *(f"{role}-user" for role in ROLES)])
    yield secured
    secured.stack.end()


@pytest.fixture(scope="module")
def task(secured: SecuredStack) -> str:
    """A guided task's topics, with every permission of the stack's roles."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    declare_topics(secured.admin, topics_of(name, {"eu": 1}, guided=True))
    permit_task(secured.admin, name, ["eu"], guided=True)
    return name


@pytest.fixture(scope="module")
def guided(secured: SecuredStack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A guided task whose first model is announced, and whose guides topic has a record: a guardian reads both.

    Nothing is read of an empty topic, so that nobody would miss the permission.
    """
    file = create_task(
        secured.admin,
        reference="digits",
        name=f"guided-{uuid.uuid4().hex[:8]}",
        regions={"eu": 1},
        policy_defaults=quick_policy(4, defence="guide"),
        output=quiet_output(),
    )
    merger = start_process(
        secured.home, tmp_path_factory.mktemp("guided"), ["merger", "--task", file.task], "merger"
    )
    with LogReader(secured.admin, "guided") as reader:
        until(lambda: reader.bounds(models_topic(file.task), 0)[1] > 0, f"an announcement:\n{merger.log}")
    assert merger.stop() == 0, merger.log
    LogWriter(secured.admin, "guided").append_now(guides_topic(file.task), b"x", partition=0)
    return file.task


def refused(settings: Settings, topic: str) -> set[str]:
    """What reading, writing and administering are refused with: each at once, for an outage would be waited for."""
    writer = LogWriter(settings, "refused", give_up=False)  # which would wait for an outage's end
    with LogReader(settings, "refused") as reader:
        attempts: list[Any] = [
            lambda: require_broker(settings),
            lambda: reader.bounds(topic, 0),
            lambda: writer.append_now(topic, b"x", partition=0),
            lambda: declare_topics(settings, topics_of("another", {"eu": 1})),
            lambda: describe_groups(settings, ["fluvial-another-eu"]),
        ]
        ids = set()
        for attempt in attempts:
            with pytest.raises(AccessProblem) as caught:
                attempt()
            assert caught.value.hint
            ids.add(caught.value.error_id)
            assert PASSWORD not in str(caught.value)
        return ids


def mutual(secured: SecuredStack, **changed: Any) -> dict[str, Any]:
    """How the stack's administrator gets in, with ``changed`` settings."""
    known = {
        "security_protocol": "SSL",
        "ca_file": secured.tls / "ca.pem",
        "certificate_file": secured.tls / "admin.pem",
    }
    return known | changed


def by_another_name(secured: SecuredStack) -> Settings:
    settings = secured.by(**mutual(secured))
    return msgspec.structs.replace(
        settings, bootstrap_servers=settings.bootstrap_servers.replace("127.0.0.1", "127.1")
    )


def by_certificate(secured: SecuredStack, path: Path) -> Settings:
    return secured.by(**mutual(secured, certificate_file=path))


def without_certificate(secured: SecuredStack, port: int | None = None) -> Settings:
    return secured.by(port, security_protocol="SSL", ca_file=secured.tls / "ca.pem")


def with_sasl(secured: SecuredStack) -> Settings:
    sasl = {"sasl_mechanism": "PLAIN", "sasl_username": PLAIN_USER, "sasl_password": PASSWORD}
    return secured.by(**mutual(secured, security_protocol="SASL_SSL", **sasl))


Bad = Callable[[SecuredStack, Path], "Settings"]
BAD: dict[str, tuple[str, Bad]] = {
    "a CA that did not issue the broker's certificate": (
        "FLV-3110",
        lambda s, folder: s.by(**mutual(s, ca_file=foreign_certificate(folder))),
    ),
    "a name that the broker's certificate has not": ("FLV-3111", lambda s, _: by_another_name(s)),
    "no certificate": ("FLV-3112", lambda s, _: without_certificate(s)),
    "a certificate of a foreign CA": (
        "FLV-3112",
        lambda s, folder: by_certificate(s, foreign_certificate(folder)),
    ),
    "a certificate that has expired": (
        "FLV-3112",
        lambda s, folder: by_certificate(s, foreign_certificate(folder, issuer=s.tls, days=-1)),
    ),
    "a wrong password": ("FLV-3113", lambda s, _: s.by_password("SCRAM-SHA-512", "known", "wrong")),
    "a user that is not known": ("FLV-3113", lambda s, _: s.by_password("SCRAM-SHA-256", "stranger")),
    "a wrong password for PLAIN": ("FLV-3113", lambda s, _: s.by_password("PLAIN", PLAIN_USER, "wrong")),
    "TLS to a port without": ("FLV-3114", lambda s, _: s.by(s.plain_port, **mutual(s))),
    "no TLS to a port with it": ("FLV-3114", lambda s, _: s.by()),
    "no SASL to a port with it": ("FLV-3114", lambda s, _: without_certificate(s, s.sasl_port)),
    "SASL to a port without": ("FLV-3114", lambda s, _: with_sasl(s)),
}


@pytest.mark.parametrize("what", BAD)
def test_whoever_is_not_let_in_is_told_why_at_once(
    secured: SecuredStack, task: str, tmp_path: Path, what: str
) -> None:
    error_id, settings_of = BAD[what]
    assert refused(settings_of(secured, tmp_path), f"fl.{task}.updates.eu") == {error_id}


def test_who_is_called_admin_is_none(secured: SecuredStack, task: str, tmp_path: Path) -> None:
    """A certificate of the right CA, whose common name alone says ``admin``."""
    called = foreign_certificate(tmp_path, issuer=secured.tls)
    settings = by_certificate(secured, called)
    require_broker(settings)
    with LogReader(settings, "called-admin") as reader, pytest.raises(AccessProblem, match="not enough"):
        reader.bounds(f"fl.{task}.updates.eu", 0)


GRANTS = access_of("TASK", {"eu": 1}, guided=True)
ONE_BY_ONE = [
    Grant(grant.role, grant.kind, grant.name, (operation,), grant.region, grant.is_prefix)
    for grant in GRANTS
    for operation in grant.operations
    if not (grant.kind == "group" and operation == "Read")  # tried by processes, below
]


def named(grant: Grant, task: str) -> Grant:
    name = grant.name.replace("TASK", task)
    return Grant(grant.role, grant.kind, name, grant.operations, grant.region, grant.is_prefix)


def attempt(settings: Settings, grant: Grant) -> str:
    """Try what a grant permits: the id of what is said, "" where it is done."""
    try:
        match grant.kind, grant.operations:
            case "topic", ("Read",):
                with LogReader(settings, "attempt") as reader:
                    for _ in reader.read(grant.name, 0, 0, 1):
                        return ""
            case "topic", ("Write",):
                LogWriter(settings, "attempt", give_up=False).append_now(grant.name, b"x", partition=0)
            case "topic", ("DescribeConfigs",):
                hidden = compare_topics(admin_client(settings), [grant.name], settings).hidden
                return "hidden" if hidden else ""
            case "group", ("Describe",):
                describe_groups(settings, [grant.name])
            case _:
                raise AssertionError(grant)
    except FluvialError as error:
        return error.error_id
    return ""


def test_each_permission_is_needed_and_enough(secured: SecuredStack, task: str) -> None:
    """All at first; then each is taken away, and is missed by name; then it is given back."""
    for topic in topics_of(task, {"eu": 1}, guided=True):
        LogWriter(secured.admin, "first").append_now(topic.name, b"x", partition=0)
    everybody = {role: secured.as_role(role) for role in ROLES}

    def who(grant: Grant) -> str:
        return principal(grant.role)

    for general in ONE_BY_ONE:
        grant = named(general, task)
        settings = everybody[grant.role]
        assert attempt(settings, grant) == "", grant
        assert forbid(secured.admin, [grant], who) == 1
        missed = {
            "Read": {"FLV-3115"},
            "Write": {"FLV-3115", "FLV-3117"},  # the latter where it was the only topic to write to
            "Describe": {"FLV-3116"},
            "DescribeConfigs": {"hidden"},
        }[grant.operations[0]]
        until(lambda g=grant, s=settings, m=missed: attempt(s, g) in m, f"{grant} is missed")  # type: ignore[misc]
        permit(secured.admin, [grant], who)


def test_no_role_does_what_is_not_its_own(secured: SecuredStack, task: str) -> None:
    may = {(g.role, g.name) for g in (named(one, task) for one in GRANTS) if "Write" in g.operations}
    for role in ROLES:
        for topic in topics_of(task, {"eu": 1}, guided=True):
            if (role, topic.name) not in may:
                grant = Grant(role, "topic", topic.name, ("Write",))
                assert attempt(secured.as_role(role), grant) in {"FLV-3115", "FLV-3117"}, grant
    with pytest.raises(AccessProblem, match="cannot create topic"):
        declare_topics(secured.as_role("operator"), topics_of("not-made", {"eu": 1}))


def federation_of(secured: SecuredStack, folder: Path) -> Federation:
    federation = Federation(secured.admin, folder, {"eu": 1}, POLICY, layout=factories.BUFFERED)
    permit_task(secured.admin, federation.task, ["eu"])
    federation.writer = LogWriter(secured.as_role("device"), "device")
    return federation


def contribute(federation: Federation, version: int) -> None:
    for number in range(4):
        base = max(0, version - 1)
        federation.append(("eu", 0), federation.update(f"d-{version}-{number}", base=base), b"d")
    federation.await_version(version)


def test_a_federation_under_its_roles_survives_its_broker(secured: SecuredStack, tmp_path: Path) -> None:
    """Worker, merger and audit by their certificates, before and after an outage, which is waited for as ever."""
    federation = federation_of(secured, tmp_path)
    try:
        federation.start("merger", "merger")
        worker = federation.start("worker", "worker")
        contribute(federation, 1)
        secured.stack.kill("kafka")
        worker.says("waiting for Kafka")
        secured.stack.start("kafka")
        federation.await_told(1)
        contribute(federation, 2)
        assert all(one.process.poll() is None for one in federation.running), federation.logs()
        assert "FLV-31" not in federation.logs()
        audit = run_command(secured.home, "audit", "--task", federation.task, "--jobs", "1")
        assert audit.returncode == 0, audit.stderr
        status = run_command(secured.home, "status", "--task", federation.task)
        assert status.returncode == 0, status.stderr
    finally:
        federation.end()


@pytest.mark.parametrize("kind", ["worker", "merger"])
def test_a_process_without_its_group_says_so_and_ends(
    secured: SecuredStack, tmp_path: Path, kind: str
) -> None:
    federation = federation_of(secured, tmp_path)
    grants = [
        grant
        for grant in access_of(federation.task, {"eu": 1})
        if grant.kind == "group" and "Read" in grant.operations
    ]
    forbid(secured.admin, grants, lambda grant: principal(grant.role))
    try:
        process = federation.start(kind, kind)
        process.says("error[FLV-3116]")
        until(lambda: process.process.poll() is not None, f"{kind} ends")
        assert process.process.returncode == AccessProblem.exit_code, process.log
    finally:
        federation.end()


OF_A_GUARDIAN = [
    Grant(grant.role, grant.kind, grant.name, (operation,), is_prefix=grant.is_prefix)
    for grant in GRANTS
    if grant.role == "guardian"
    for operation in grant.operations
]


@pytest.mark.parametrize(
    "general", OF_A_GUARDIAN, ids=[f"{one.name}-{one.operations[0]}" for one in OF_A_GUARDIAN]
)
def test_a_guardian_that_misses_a_permission_names_it_and_ends(
    secured: SecuredStack, guided: str, tmp_path: Path, general: Grant
) -> None:
    """A guide that nobody hears of would be worse than none: a merger may wait for it."""
    grant = named(general, guided)
    assert forbid(secured.admin, [grant], lambda one: principal(one.role)) == 1
    process = start_process(secured.home, tmp_path, ["guardian", "--task", guided], "guardian")
    try:
        until(lambda: process.process.poll() is not None, f"the guardian ends:\n{process.log}")
        assert process.process.returncode == AccessProblem.exit_code, process.log
        missed = {
            ("group", "Read"): ["FLV-3116"],
            ("topic", "Read"): ["FLV-3115"],
            # It is the only topic to write to: whether that is said first, or that there is none, is the broker's.
            ("topic", "Write"): ["FLV-3115", "FLV-3117"],
        }[grant.kind, grant.operations[0]]
        assert any(f"error[{one}]" in process.log for one in missed), process.log
    finally:
        process.kill()
        permit(secured.admin, [grant], lambda one: principal(one.role))


def test_a_cluster_of_scram(secured: SecuredStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same federation by users and passwords, out of the environment."""
    federation = federation_of(secured, tmp_path)
    permit(secured.admin, access_of(federation.task, {"eu": 1}), lambda grant: f"User:{grant.role}-user")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    environ = {
        "BOOTSTRAP_SERVERS": f"127.0.0.1:{secured.sasl_port}",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_CA_FILE": str(secured.tls / "ca.pem"),
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
    }
    for name, value in environ.items():
        monkeypatch.setenv(f"FLUVIAL_{name}", value)

    def be(role: str) -> None:
        monkeypatch.setenv("FLUVIAL_KAFKA_SASL_USERNAME", f"{role}-user")

    try:
        for role in ("merger", "worker"):
            be(role)
            federation.start(role, role)
        be("device")
        federation.writer = LogWriter(load_settings(secured.home), "device")
        contribute(federation, 1)
        be("reader")
        audit = run_command(secured.home, "audit", "--task", federation.task, "--jobs", "1")
        assert audit.returncode == 0, audit.stderr
    finally:
        federation.end()


def test_a_token_that_ends_in_mid_run_is_renewed(secured: SecuredStack, task: str) -> None:
    with token_endpoint() as (url, given):
        oauth = {"oauth_token_url": url, "oauth_client_id": "token-user", "oauth_client_secret": PASSWORD}
        ca = secured.tls / "ca.pem"
        tls: dict[str, Any] = {"security_protocol": "SASL_SSL", "ca_file": ca}
        settings = secured.by(secured.sasl_port, sasl_mechanism="OAUTHBEARER", **tls, **oauth)
        permit(secured.admin, access_of(task, {"eu": 1}), lambda _: "User:token-user")
        topic = f"fl.{task}.updates.eu"
        writer = LogWriter(settings, "tokens")
        with LogReader(settings, "tokens") as reader:

            def turn() -> bool:
                position = writer.append_now(topic, b"x", partition=0)
                (record,) = reader.read(topic, 0, position.offset, position.offset + 1)
                return record.value == b"x" and len(given) >= 6  # two clients, three tokens each

            until(turn, "three tokens each")
        wrong = secured.by(
            secured.sasl_port,
            sasl_mechanism="OAUTHBEARER",
            **tls,
            **(oauth | {"oauth_client_secret": "wrong"}),
        )
        with pytest.raises(AccessProblem) as caught:
            require_broker(wrong)
        assert caught.value.error_id == "FLV-3118"
