"""A whole guided federation on secured clusters: everybody gets in as its role and no more, and all is identical."""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from backends import keys
from backends.environment import load_settings
from backends.kafka.admin import admin_client
from backends.kafka.permissions import permit
from backends.store.factory import open_object_store
from backends.tasks import keys_folder, task_folder
from backends.variables import variables_of
from fluvial import cli
from fluvial.local.create import create_task
from fluvial.local.policies import quick_policy
from fluvial.proof.chaos.ground import open_ground
from fluvial.proof.chaos.home import ChaosHome
from fluvial.proof.chaos.plan import ChaosPlan
from fluvial.terminal.output import Output, quiet_output
from schemas.access import ROLES, access_of
from schemas.certificates import Role
from tests import warming
from tests.integration.pipeline import Running, run_command, start_process
from tests.integration.secured import SecuredStack
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backends.settings import Settings
    from backends.tasks import TaskFile
    from schemas.access import AccessRole

REGION, DEVICES, VERSIONS = "local", 4, 3
NEW_DEVICE = "one-more"
EVERYTHING = "everything"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredStack]:
    warming.archive_classes(tmp_path_factory.mktemp("archive"))
    secured = SecuredStack(tmp_path_factory.mktemp("secured"))
    secured.make_users([f"{role}-user" for role in ROLES])
    yield secured
    secured.stack.end()


def by_certificate(secured: SecuredStack, role: AccessRole) -> Settings:
    """As on the local stack, and on a cluster of one's own that asks for certificates."""
    return secured.as_role(role)


def by_password(secured: SecuredStack, role: AccessRole) -> Settings:
    settings = secured.by_password("SCRAM-SHA-512", f"{role}-user")
    return msgspec.structs.replace(settings, store=secured.as_role(role).store)


class Secured:
    """One guided task on a secured cluster; each process finds its way in in the environment, and nowhere else."""

    def __init__(
        self,
        secured: SecuredStack,
        way: Callable[[SecuredStack, AccessRole], Settings],
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.folder, self.home = folder, secured.home
        self._monkeypatch = monkeypatch
        self._settings = {role: way(secured, role) for role in ROLES}
        self.running: list[Running] = []
        self.file: TaskFile = create_task(
            secured.admin,
            reference="digits",
            name=f"secured-{uuid.uuid4().hex[:8]}",
            regions={REGION: 1},
            policy_defaults=quick_policy(DEVICES, defence="guide"),
            output=quiet_output(),
        )
        grants = access_of(self.file.task, {REGION: 1}, guided=True)
        permit(secured.admin, grants, lambda grant: f"User:{grant.role}-user")

    def start(self, role: AccessRole, *words: str) -> Running:
        self._be(role)
        self.running.append(start_process(self.home, self.folder, list(words), words[0]))
        return self.running[-1]

    def run(self, role: AccessRole, *words: str) -> subprocess.CompletedProcess[str]:
        self._be(role)
        done = run_command(self.home, *words, "--task", self.file.task)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done

    def _be(self, role: AccessRole) -> None:
        # All that there is to go by: with other brokers in the environment, the home's own certificates are not taken.
        for name, value in variables_of(self._settings[role]).items():
            self._monkeypatch.setenv(name, value)
        assert load_settings(self.home).kafka == self._settings[role].kafka

    def logs(self) -> str:
        return "\n".join(f"--- {one.name}\n{one.log[-2000:]}" for one in self.running)

    def end(self) -> None:
        for one in self.running:
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait(WAIT_S)


# By certificate is how the demo and the README run, too; by password a short run of chaos does.
@pytest.mark.long
@pytest.mark.parametrize("way", [by_certificate, by_password])
def test_everybody_works_as_its_role(
    secured: SecuredStack,
    way: Callable[[SecuredStack, AccessRole], Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    federation = Secured(secured, way, tmp_path, monkeypatch)
    task = ("--task", federation.file.task)
    try:
        federation.start("worker", "worker", *task, "--region", REGION)
        federation.start("merger", "merger", *task)
        federation.start("guardian", "guardian", *task)
        federation.start("evaluator", "evaluator", *task)
        console = federation.start("reader", "console", "--port", "0")
        fleet = federation.start(
            "device", "fleet", *task, "--devices", str(DEVICES), "--versions", str(VERSIONS)
        )
        until(
            lambda: any(one.process.poll() is not None for one in federation.running), "the fleet has ended"
        )
        assert fleet.process.returncode == 0, federation.logs()
        a_device_of_its_own(federation)
        the_console_has_it(console, federation)
        for one in federation.running:
            if one is not fleet:
                assert one.stop() == 0, one.log
        assert "FLV-" not in federation.logs(), federation.logs()
        audit = json.loads(federation.run("reader", "audit", "--jobs", "1", "--json").stdout)
        assert (audit["identical"], audit["versions"] >= VERSIONS) == (True, True), audit
        versions = json.loads(federation.run("reader", "versions", "--json").stdout)
        assert len(versions["versions"]) > VERSIONS
        federation.run("reader", "status")
        federation.run("reader", "devices")
    finally:
        federation.end()


@pytest.mark.long
def test_chaos_on_a_cluster_that_is_there(
    secured: SecuredStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one user who may do everything with topics of chaos; its processes alone are hit, and nothing stays."""
    secured.make_users([EVERYTHING])
    administer(secured, EVERYTHING)
    for name, value in variables_of(secured.by_password("SCRAM-SHA-512", EVERYTHING)).items():
        monkeypatch.setenv(name, value)
    topics = set(admin_client(secured.admin).list_topics(timeout=WAIT_S).topics)
    options = ["--seconds", "10", "--seed", "3", "--devices", "6", "--regions", "eu:1", "--workers", "2"]
    run = run_command(
        tmp_path / "home", "chaos", "--on-cluster", "--defence", "guide", *options, "--json", "-"
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert set(result["faults"]) <= {"kill", "pause"} and result["faults_total"] >= 1, run.stderr
    assert set(result["skipped"]) == {"network", "disk"}
    assert (result["lost"], result["double"], result["forks"], result["undrained"]) == (0, 0, 0, 0)
    assert result["identical"] and 0 < result["guided_versions"] <= result["versions"]
    assert set(admin_client(secured.admin).list_topics(timeout=WAIT_S).topics) == topics
    left = open_object_store(secured.admin.store).list("chaos-")
    assert not list(left)


@pytest.mark.parametrize("finished", [True, False])
def test_a_chaos_run_that_is_interrupted_leaves_nothing_on_a_cluster(
    secured: SecuredStack, tmp_path: Path, *, finished: bool
) -> None:
    """Whenever that is: what says on this machine that there is a task is written after all of it is there."""
    plan = ChaosPlan(
        seconds=1.0, seed=1, kinds=("kill",), devices=2, regions={"eu": 1}, workers=1, cluster=secured.as_role
    )
    with pytest.raises(KeyboardInterrupt):
        interrupt(plan, ChaosHome(tmp_path / "chaos", keep=False), finished=finished)
    topics = admin_client(secured.admin).list_topics(timeout=WAIT_S).topics
    assert not [name for name in topics if plan.task in name]
    assert not list(open_object_store(secured.admin.store).list(f"{plan.task}/"))


def interrupt(plan: ChaosPlan, own: ChaosHome, *, finished: bool) -> None:
    with open_ground(plan, own, Output()) as ground:
        create_task(
            ground.settings,
            reference="digits",
            name=plan.task,
            regions=dict(plan.regions),
            policy_defaults=plan.policy_defaults,
            output=quiet_output(),
        )
        if not finished:
            (task_folder(own.folder, plan.task) / "task.json").unlink()
        raise KeyboardInterrupt


def administer(secured: SecuredStack, user: str) -> None:
    """What the administrator of a cluster gives to whoever shall try it."""
    prefixes = {ResourceType.TOPIC: "fl.chaos-", ResourceType.GROUP: "fluvial-chaos-"}
    bindings = [
        AclBinding(
            kind,
            prefix,
            ResourcePatternType.PREFIXED,
            f"User:{user}",
            "*",
            AclOperation.ALL,
            AclPermissionType.ALLOW,
        )
        for kind, prefix in prefixes.items()
    ]
    admin = admin_client(secured.admin)  # which ends what it was asked where it is let go
    for done in admin.create_acls(bindings, request_timeout=WAIT_S).values():
        done.result(WAIT_S)


def a_device_of_its_own(federation: Secured) -> None:
    """It fetches, trains and publishes one round, and reads its verdict."""
    keys.issue(keys_folder(federation.home, federation.file.task), REGION, Role.DEVICE, NEW_DEVICE)
    who = ("--region", REGION, "--id", NEW_DEVICE)
    done = federation.run("device", "device", "run", *who, "--rounds", "1", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["refused"] == 0, done.stdout


def the_console_has_it(console: Running, federation: Secured) -> None:
    log = console.says("console: http://")
    port = int(log.partition("console: http://127.0.0.1:")[2].partition("/")[0])

    def now() -> Any:
        url = f"http://127.0.0.1:{port}/api/tasks/{federation.file.task}/now"
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            return json.loads(answer.read())

    def shown() -> bool:
        document = now()
        head, judged = document["head"], any(one["verdicts"] for one in document["regions"])
        return judged and bool(head) and head["version"] >= VERSIONS and head["evaluated"]

    until(shown, f"the console shows versions, values and verdicts:\n{console.log}")


def test_the_doctors_command_mends_a_topic(secured: SecuredStack, capsys: pytest.CaptureFixture[str]) -> None:
    """By Kafka's own tool, as the administrator."""
    admin, name = admin_client(secured.admin), f"fl.doctor-{uuid.uuid4().hex[:8]}.updates.eu"
    admin.create_topics([NewTopic(name, 1, 1, config={"retention.ms": "600000"})])[name].result(WAIT_S)

    def topics_row() -> dict[str, str]:
        cli.main(["--home", str(secured.home), "doctor", "--json"])
        checks: list[dict[str, str]] = json.loads(capsys.readouterr().out)["checks"]
        return next(check for check in checks if check["name"] == "topics")

    try:
        before = topics_row()
        assert name in before["found"]
        command = shlex.split(before["mend"])
        subprocess.run(command, check=True, capture_output=True, timeout=WAIT_S)
        assert name not in topics_row()["found"]
    finally:
        admin.delete_topics([name])[name].result(WAIT_S)
