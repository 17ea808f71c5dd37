"""docs/deploy.md from nothing to a secured cluster: every block is tried, in the page's order, as it is printed.

What the page cannot know (brokers' addresses, where files lie) is put in its place, and nothing else is changed.
Lines of ``kafka-acls.sh``, Kafka's own tool, are what the page prints for an administrator: they are read as that tool
reads them, and set on the real broker.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from backends.kafka.admin import admin_client
from backends.store.permissions import HeldPolicy, permit
from backends.variables import variables_of
from fluvial.local.acls import Permitted, minio_of
from fluvial.local.stack import LocalStack
from schemas.access import ROLES
from schemas.store_access import policy_name
from tests import warming
from tests.integration.secured import PASSWORD, SecuredStack
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backends.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "deploy.md"
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LIMIT_S = 480.0
HERE, CLUSTER, KEYS = "On this machine", "On a cluster of your own", "Keys"
pytestmark = pytest.mark.timeout(2 * LIMIT_S)


def blocks(section: str, language: str = "bash") -> list[str]:
    """A section's blocks in their order, without the indentation of a list around them."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [textwrap.dedent(body) for _, found, body in FENCE.findall(text) if found == language]


def test_no_block_is_left_out() -> None:
    everywhere = [(language, textwrap.dedent(body)) for _, language, body in FENCE.findall(PAGE.read_text())]
    tried = [("bash", block) for section in (HERE, CLUSTER, KEYS) for block in blocks(section)]
    tried += [("python", block) for block in blocks(CLUSTER, "python")]
    assert sorted(everywhere) == sorted(tried)


class Shell:
    """A terminal of somebody who follows the page, in a folder of his own: what a block exports is there afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a reader's"
        self.folder.mkdir()
        command = folder / "bin" / "fluvial"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fluvial.cli "$@"\n')
        command.chmod(0o755)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FLUVIAL_") or k == "FLUVIAL_CACHE"}  # noqa: TID251
        path = f"{command.parent}{os.pathsep}{kept['PATH']}"
        self.variables = kept | {"PATH": path, "PYTHONPATH": str(ROOT)}

    def anew(self, settings: Settings | None = None) -> None:
        """Another terminal, of somebody who has the store of ``settings``."""
        self.variables = {k: v for k, v in self.variables.items() if not k.startswith("FLUVIAL_")}
        if settings is not None:
            said = variables_of(settings)
            self.variables |= {k: v for k, v in said.items() if k.startswith("FLUVIAL_STORE_")}

    def run(self, block: str) -> str:
        """What a block says to programs and people, once it has ended well."""
        after = self.folder.parent / "environment"
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", f"{block}\nenv -0 > {shlex.quote(str(after))}"],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-5000:]}"
        self.variables = dict(line.split("=", 1) for line in after.read_text().split("\0") if "=" in line)
        return done.stdout

    def run_until(self, block: str, says: str) -> None:
        """Begin a block that goes on, wait until it says something, end it as Ctrl-C does, and see it end well."""
        log = self.folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["/bin/bash", "-euo", "pipefail", "-c", block],
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            until(
                lambda: says in log.read_text() or process.poll() is not None, f"{block}\n{log.read_text()}"
            )
            assert says in log.read_text(), log.read_text()
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(WAIT_S) in {0, 130}, log.read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.needs("softhsm2-util", "pkcs11-tool", "kcat", "jq")
@pytest.mark.long
def test_on_this_machine_with_keys_in_every_place(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    whole, kcat, own_program = blocks(HERE)
    encrypted, token, workers = blocks(KEYS)
    try:
        assert "identical" in shell.run(whole)
        assert "fl.digits.updates." in shell.run(kcat)
        shown = shell.run(own_program)
        assert ".fluvial/tls/reader.pem" in shown and "FLUVIAL_KAFKA_CERTIFICATE_FILE" in shown
        shell.anew()
        shell.run(encrypted)
        shell.variables["SOFTHSM2_CONF"] = str(an_empty_box(tmp_path))
        shell.run(token)
        for worker in workers.splitlines():
            shell.run_until(worker, " has 0@0")
    finally:
        LocalStack(shell.folder / ".fluvial").end()


def an_empty_box(folder: Path) -> Path:
    """SoftHSM's configuration, of tokens that nobody else has."""
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    return configuration


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredStack]:
    warming.archive_classes(tmp_path_factory.mktemp("archive"))
    cluster = SecuredStack(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stack.end()


@pytest.mark.needs("jq")
@pytest.mark.long
def test_on_a_cluster_of_ones_own(cluster: SecuredStack, tmp_path: Path) -> None:
    files = lay_out(cluster, tmp_path)
    shell = Shell(tmp_path)
    permissions, create, work, look = (put_in(block, cluster, files) for block in blocks(CLUSTER))

    lines = shell.run(permissions).splitlines()
    lines = [line for line in lines if line.startswith("kafka-acls.sh ")]
    users = {permitted(cluster.admin, shlex.split(line)[1:]) for line in lines}
    assert "worker-eu" in users and "device-us" in users and "reader" in users
    cluster.make_users(sorted(users))
    documents = (shell.folder / "users.yaml").read_text().split("---\n")[1:]
    assert {json.loads(one)["kind"] for one in documents} == {"KafkaUser"}
    attach_policies(cluster, json.loads((shell.folder / "worker.json").read_text()))

    shell.anew(cluster.admin)
    assert "task digits created" in shell.run(create)
    shell.anew(cluster.as_role("worker"))
    shell.run_until(work, "worker worker-eu-0 has 0@0, 1@0")
    shell.anew(cluster.as_role("reader"))
    assert "digits" in shell.run(look)


def attach_policies(cluster: SecuredStack, of_workers: dict[str, object]) -> None:
    """What `mc` would do with the policy that the page writes, and with those of the other roles."""
    policies = minio_of(Permitted("digits", ["eu", "us"]), cluster.admin.store.bucket)
    assert policies[policy_name("digits", "worker")] == of_workers
    users = {policy_name("digits", role): cluster.as_role(role).store.access_key for role in ROLES}
    permit(
        cluster.admin.store, [HeldPolicy(name, users[name], document) for name, document in policies.items()]
    )


def lay_out(cluster: SecuredStack, folder: Path) -> dict[str, str]:
    """The files that the page names, where this machine has them."""
    pem = (cluster.tls / "admin.pem").read_text()
    key, mark, certificate = pem.partition("-----BEGIN CERTIFICATE-----")
    made = {"admin.key": key, "admin.crt": mark + certificate, "kafka-password": PASSWORD + "\n"}
    for name, text in made.items():
        (folder / name).write_text(text)
    return {
        "/etc/fluvial/kafka-ca.pem": str(cluster.tls / "ca.pem"),
        "/etc/fluvial/admin.crt": str(folder / "admin.crt"),
        "/etc/fluvial/admin.key": str(folder / "admin.key"),
        "/run/secrets/kafka-password": str(folder / "kafka-password"),
    }


def put_in(block: str, cluster: SecuredStack, files: dict[str, str]) -> str:
    """A block with addresses and files of this machine: brokers listen to passwords on another port."""
    password = f"127.0.0.1:{cluster.sasl_port}"
    servers = cluster.admin.bootstrap_servers if "PROTOCOL=SSL\n" in block else password
    for theirs, ours in {"kafka-1.example:9093,kafka-2.example:9093": servers, **files}.items():
        block = block.replace(theirs, shlex.quote(ours))
    assert ".example" not in block and "/etc/" not in block and "/run/" not in block, block
    return block


def permitted(admin: Settings, words: Sequence[str]) -> str:
    """Do what one line of ``kafka-acls.sh`` says; the user that it is about. Any other option is an error."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    for name in ("--bootstrap-server", "--command-config", "--allow-principal"):
        parser.add_argument(name, required=True)
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--operation", action="append", required=True)
    parser.add_argument("--resource-pattern-type", choices=["prefixed"])
    resource = parser.add_mutually_exclusive_group(required=True)
    resource.add_argument("--topic")
    resource.add_argument("--group")
    asked = parser.parse_args(words)
    of = {"DescribeConfigs": "DESCRIBE_CONFIGS"}
    bindings = [
        AclBinding(
            ResourceType.TOPIC if asked.topic else ResourceType.GROUP,
            asked.topic or asked.group,
            ResourcePatternType.PREFIXED if asked.resource_pattern_type else ResourcePatternType.LITERAL,
            asked.allow_principal,
            "*",
            AclOperation[of.get(operation, operation.upper())],
            AclPermissionType.ALLOW,
        )
        for operation in asked.operation
    ]
    client = admin_client(admin)
    for done in client.create_acls(bindings, request_timeout=WAIT_S).values():
        done.result(WAIT_S)
    return str(asked.allow_principal).removeprefix("User:")


def test_a_signer_gives_a_token_and_its_end(tmp_path: Path) -> None:
    (signer,) = blocks(CLUSTER, "python")
    (tmp_path / "signer.py").write_text(signer)
    shell = Shell(tmp_path)
    told = shell.run(
        f"PYTHONPATH={shlex.quote(str(tmp_path))} {shlex.quote(sys.executable)} "
        "-c 'import signer; print(*signer.token(), sep=\"|\")'"
    )
    token, end = told.strip().split("|")
    assert token and float(end) > time.time() + 60
