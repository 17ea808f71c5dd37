"""A worker, a merger and a device whose keys lie in tokens: what they make, and what comes of pulling one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from backends import keys
from backends.settings import KeySettings
from schemas.certificates import CONTROL, Role
from tests import factories
from tests.integration.pipeline import Federation, run_command
from tests.tokens import PIN, SoftTokens, module
from tests.waiting import WAIT_S

if TYPE_CHECKING:
    from pathlib import Path

    from backends.settings import Settings

EU0 = ("eu", 0)
POLICY = factories.policy(window={"updates_max": 2, "seconds_max": 3600.0}, buffer={"updates": 2})


def test_a_worker_and_a_merger_sign_by_tokens_and_one_that_is_pulled_costs_nothing(
    stack: Settings, tmp_path: Path, soft_tokens: SoftTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers, mergers, devices = (soft_tokens.take() for _ in range(3))
    devices.hold(factories.key("device of a token"), "device")
    workers.hold(factories.key("worker of a token"), "worker")
    mergers.hold(factories.key("merger of a token"), "merger")
    pin = tmp_path / "pin"
    pin.write_text(f"{PIN}\n")
    monkeypatch.setenv("FLUVIAL_KEY_MODULE", str(module()))
    monkeypatch.setenv("FLUVIAL_KEY_PIN_FILE", str(pin))
    federation = Federation(stack, tmp_path, {"eu": 1}, POLICY)
    settings = KeySettings(pin=PIN, module=module())
    for token, region, role, name in (
        (workers, "eu", Role.WORKER, "worker-eu"),
        (mergers, CONTROL, Role.MERGER, "merger"),
    ):
        keeping = keys.Keeping(settings, uri=token.uri(role.value))
        keys.renew(federation.keys, region, role, name, keeping)
    try:
        federation.start("merger", "merger")  # by its file, which says where the key lies
        worker = federation.start("worker", "worker", "--key", workers.uri("worker"))
        for seed in range(2):
            federation.append(EU0, federation.update(f"d-{seed}", seed=seed))
        federation.await_version(1)
        workers.pull()
        keeping = keys.Keeping(settings, uri=devices.uri("device"))
        keys.issue(federation.keys, "eu", Role.DEVICE, "d-2", keeping)
        device = keys.load_key_pair(devices.uri("device"), settings).of_task(federation.genesis.domain)
        federation.append(EU0, federation.update("d-2", seed=2, base=1, by=device))
        federation.append(EU0, federation.update("d-3", seed=3, base=1))
        assert worker.process.wait(WAIT_S) == 2, worker.log
        assert "error[FLV-2318]: the token does not sign any more" in worker.log
        assert "Traceback" not in worker.log
        refused = run_command(
            stack.home, "worker", "--task", federation.task, "--region", "eu", "--key", workers.uri("worker")
        )
        assert refused.returncode == 2 and "FLV-2314" in refused.stderr, refused.stderr
        workers.push()
        federation.start("worker", "worker", "--key", workers.uri("worker"))
        federation.await_version(2)
    finally:
        federation.end()
    done = run_command(stack.home, "audit", "--task", federation.task, "--json")
    report = json.loads(done.stdout)
    assert report["identical"] is True and report["versions"] == 2, done.stdout
    assert [verdict.outcome for verdict in federation.verdicts(EU0)].count("accepted") >= 4
