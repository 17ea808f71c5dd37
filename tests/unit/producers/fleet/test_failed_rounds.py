"""A round that fails is its device's outcome: counted, told once a kind, and the end only when every device fails."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from aggregation.errors import UsageProblem
from fluvial.session import simulation
from fluvial.session.setbacks import Setbacks
from fluvial.session.simulation import SimulationResult, simulate
from producers.fleet.bell import RoundAbandoned
from producers.fleet.failures import (
    KINDS_MAX,
    ROUNDS_FAILED_MAX,
    FailedRound,
    FailedRounds,
    failed_round,
)
from producers.fleet.journal import Journal, failed_path
from producers.fleet.rounds import Rounds

if TYPE_CHECKING:
    from pathlib import Path

HEAD: Final = """
import sys
import numpy as np
import torch
from torch import nn
import learning

CONFIG = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05}

def data():
    r = np.random.default_rng(1)
    x = r.normal(size=(600, 4))
    y = x[:, 0] > 0
    return learning.Dataset(train=(x[:500], y[:500]), test=(x[500:], y[500:]))

def model():
    return nn.Linear(4, 2)

def evaluate(model, data):
    return learning.score(model, data)

class Odd(BaseException):
    pass

def is_broken(data, config):
    return BROKEN

def train(model, data, config):
    if is_broken(data, config):
        BREAK
    return learning.fit(model, data, config)
"""

ONE_DEVICE: Final = "config.seed % 1_000_000 == 3"
WAYS: Final = {
    "it raises": "raise RuntimeError('the sensor is gone')",
    "its loss is not a number": "return {'loss': float('nan')}",
    "its loss is infinite": "return {'loss': float('inf')}",
    "it leaves a parameter that is not a number": "model.weight.data[0, 0] = float('nan')",
    "it reports no loss": "return {}",
    "it returns nothing": "return None",
    "it changes the layout": "model.extra = nn.Parameter(torch.zeros(3))",
    "it takes a parameter away": "model.bias = None",
    "it ends the program": "sys.exit(3)",
    "it raises what is no Exception": "raise Odd('hm')",
    "it is out of memory": "raise MemoryError",
}


def task_file(folder: Path, break_: str, broken: str) -> Path:
    path = folder / "mine.py"
    path.write_text(HEAD.replace("BREAK", break_).replace("BROKEN", broken))
    return path


def run(path: Path, *, versions: int = 3, devices: int = 6) -> tuple[SimulationResult, list[FailedRound]]:
    told: list[FailedRound] = []
    result = simulate(
        path,
        devices=devices,
        versions=versions,
        on_failure=lambda failed, first: told.append(failed) if first else None,
    )
    return result, told


@pytest.mark.parametrize("way", WAYS)
def test_one_device_that_fails_stops_nobody(tmp_path: Path, way: str) -> None:
    result, told = run(task_file(tmp_path, WAYS[way], ONE_DEVICE))
    assert len(result.versions) == 3
    assert result.failed_rounds.devices == ["d-0003"]
    assert result.failed_rounds.total >= 2
    assert len(told) == 1
    assert {one.device for one in result.updates} == {0, 1, 2, 4, 5}


def test_the_first_of_a_kind_names_the_users_line_and_the_rest_is_counted(tmp_path: Path) -> None:
    path = task_file(tmp_path, WAYS["it raises"], "True if config.seed % 2 else False")
    result, told = run(path)
    assert len(told) == 1
    assert f"{path}:" in told[0].told()
    assert "raise RuntimeError('the sensor is gone')" in told[0].told()
    (cause,) = result.failed_rounds.causes
    assert cause.rounds == result.failed_rounds.total > 3
    assert cause.devices == {"d-0001", "d-0003", "d-0005"}


def test_a_device_that_failed_once_contributes_again_at_a_later_version(tmp_path: Path) -> None:
    result, _ = run(task_file(tmp_path, WAYS["it raises"], f"{ONE_DEVICE} and config.version == 0"))
    assert result.failed_rounds.total == 1
    assert {one.verdict.base_version for one in result.updates if one.device == 3} >= {1, 2}


def test_when_every_device_fails_again_and_again_the_run_ends_with_the_cause(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="the sensor is gone") as caught:
        run(task_file(tmp_path, WAYS["it raises"], "True"))
    assert caught.value.error_id == "FLV-6310"
    assert f"all 6 devices fail {ROUNDS_FAILED_MAX} rounds in a row" in caught.value.message
    assert "FLV-2208" in caught.value.message
    assert "raise RuntimeError('the sensor is gone')" in caught.value.where


def test_when_every_device_fails_once_the_fleet_tries_again(tmp_path: Path) -> None:
    flag = tmp_path / "failed"
    broken = f"open({str(flag)!r}, 'a').write('x') and len(open({str(flag)!r}).read()) <= 6"
    result, _ = run(task_file(tmp_path, WAYS["it raises"], broken))
    assert len(result.versions) == 3
    assert result.failed_rounds.total == 6


def test_a_run_in_which_nothing_fails_is_the_same_as_ever(tmp_path: Path) -> None:
    result, told = run(task_file(tmp_path, "pass", "False"))
    assert (result.failed_rounds.document(), told) == ({"rounds": 0, "devices": [], "causes": []}, [])


def failure(device: str, message: str, where: str = "mine.py:3") -> FailedRound:
    error = UsageProblem("FLV-2208", message, where=where)
    return failed_round(device=device, region="eu", base_version=4, error=error)


def test_numbers_in_a_message_make_no_new_kind_and_kinds_are_bounded() -> None:
    failed = FailedRounds()
    assert failed.add(failure("d-1", "train() left 66 of 98 parameters NaN"))
    assert not failed.add(failure("d-2", "train() left 7 of 98 parameters NaN"))
    assert failed.add(failure("d-2", "train() left 7 of 98 parameters NaN", "mine.py:9"))
    for number in range(2 * KINDS_MAX):
        failed.add(failure("d-3", "another", f"mine.py:{number + 100}"))
    assert len(failed.by_kind) == KINDS_MAX
    assert failed.total == 3 + 2 * KINDS_MAX
    assert failed.total == sum(cause.rounds for cause in failed.causes)


class Heard:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_the_journal_holds_every_failed_round_and_a_run_follows_it(tmp_path: Path) -> None:
    journal, heard = tmp_path / "journal.jsonl", Heard()
    followed = FailedRounds()
    setbacks = Setbacks(journal, followed, heard)  # type: ignore[arg-type]
    setbacks.look()  # there is no file yet
    with Journal(journal) as writer:
        writer.failed(failure("d-1", "out of range"))
        setbacks.look()
        line = msgspec.json.encode(failure("d-2", "out of range")) + b"\n"
        with failed_path(journal).open("ab", buffering=0) as file:
            file.write(line[:20])
            setbacks.look()
            assert followed.total == 1
            file.write(line[20:] + b"no JSON\n")
        setbacks.look()
    setbacks.look()
    assert (followed.total, followed.devices) == (2, ["d-1", "d-2"])
    assert len(heard.said) == 1
    assert "device d-1 sits version 4 out" in heard.said[0]


def test_a_signal_ends_a_training_under_way_and_the_users_code_cannot_take_it_for_its_own(
    tmp_path: Path,
) -> None:
    """As SIGTERM does in a fleet's process: its handler runs in the middle of ``train()``."""
    signal_comes = "import _asked; _asked.stop()"
    path = task_file(tmp_path, signal_comes, ONE_DEVICE)
    found: list[Rounds] = []

    class Remembering(Rounds):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            found.append(self)

    asked = ModuleType("_asked")
    asked.stop = lambda: found[0].abandon()  # type: ignore[attr-defined]  # noqa: PLW0108 (it is made later)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "_asked", asked)
        patch.setattr(simulation, "Rounds", Remembering)
        with pytest.raises(RoundAbandoned):
            run(path)
    found[0].abandon()  # nobody trains: nothing to leave
    assert found[0].failed.total == 0


@pytest.mark.parametrize(
    "break_",
    ["return {'loss': float('nan')}", "raise RuntimeError('not today')", "sys.exit(3)", "return None"],
)
def test_a_version_that_cannot_be_evaluated_stops_no_simulation(tmp_path: Path, break_: str) -> None:
    path = tmp_path / "mine.py"
    flag = tmp_path / "asked"
    second = f"""
def evaluate(model, data):
    with open({str(flag)!r}, "a") as file:
        file.write("x")
    if len(open({str(flag)!r}).read()) == ASKED:
        {break_}
    return learning.score(model, data)
"""
    whole = HEAD.replace("BREAK", "pass").replace("BROKEN", "False")
    path.write_text(whole + second.replace("ASKED", "-1"))
    run(path)
    before_the_last = len(flag.read_text()) - 1
    flag.unlink()
    path.write_text(whole + second.replace("ASKED", str(before_the_last)))
    result, _ = run(path)
    assert [bool(one.problem) for one in result.versions] == [False, True, False]
    assert result.versions[1].metrics == {}
    assert result.versions[2].metrics["loss"] > 0
