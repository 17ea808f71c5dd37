"""Control variates (SCAFFOLD): what of a round is sent, what stays, and what everybody else has of the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from aggregation.errors import UsageProblem
from aggregation.layout import CONTROL
from fluvial.local.control_policy import require_control_policy
from learning.binding import genesis_format_for, layout_entries
from learning.control import asks_for_control
from learning.tensors import initial_parameters
from learning.training import evaluate_parameters, guide_of, local_of, train_locally
from schemas.manifests import CONTROL_GENESIS, NEWEST_GENESIS
from schemas.states import state_file, update_of_state, whole_state
from schemas.tensor_files import float32_of, read_tensors
from tests import factories
from tests.audited_simulation import audited, simulated
from tests.task_files import written

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from learning.task import Task

    Flat = npt.NDArray[np.float32]

FILE = """
import numpy as np
from torch import nn
import learning

CONFIG = {{"epochs": 2, "batch_size": 8, "learning_rate": 0.2, "algorithm": {algorithm}}}
POLICY = {{"control": {{"devices": 6, "norm_clip": 10.0}}, "updates": {{"norm_clip": 10.0}}}}

def data():
    r = np.random.default_rng(1)
    parts = {{}}
    for number in range(6):
        x = r.normal(size=(40, 4)) + number % 2
        parts[f"d{{number}}"] = (x, (x[:, 0] + x[:, 1] > number % 2).astype(int))
    x = r.normal(size=(100, 4))
    return learning.Dataset(parts=parts, test=(x, x[:, 0] + x[:, 1] > 0))

def model():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))

def train(model, data, config):
    return learning.fit(model, data, config, **config.extra)

def evaluate(model, data):
    return learning.score(model, data)
"""
OWN_LOOP = """
def train(model, data, config):
    return {"loss": 0.5}
"""


def task_of(folder: Path, algorithm: str = '"scaffold"', name: str = "own", more: str = "") -> Task:
    return written(folder, FILE.format(algorithm=algorithm) + more, name)


def first_of(task: Task) -> Flat:
    """Version 0, with variates of 0."""
    model = initial_parameters(task, 0)
    return np.concatenate([model, np.zeros(task.anatomy.task_layout.control.parameters, np.float32)])


def test_a_task_asks_for_control_variates_by_its_config(tmp_path: Path) -> None:
    task, plain = task_of(tmp_path), task_of(tmp_path, '"fedavg"', "plain")
    assert asks_for_control(task.config.extra) and not asks_for_control(plain.config.extra)
    assert asks_for_control({"algorithm": ("scaffold",)}) and not asks_for_control({"algorithm": 3})
    assert (genesis_format_for(task), genesis_format_for(plain)) == (CONTROL_GENESIS, NEWEST_GENESIS)
    sections = [entry.section for entry in layout_entries(task.anatomy)]
    assert sections.count(CONTROL) == len(task.anatomy.layout.trainable.tensors)
    assert plain.anatomy.task_layout == plain.anatomy.layout
    given = plain.with_settings({"algorithm": "scaffold"})
    assert genesis_format_for(given) == CONTROL_GENESIS


def test_a_round_sends_how_its_variate_changed_and_keeps_the_variate(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    layout, base, data = task.anatomy.task_layout, first_of(task), task.data().parts["d0"]
    first = train_locally(task, base, data, task.config)
    assert first.delta.shape == (layout.parameters,)
    control = first.delta[layout.model_parameters :]
    kept = np.concatenate([float32_of(first.private[name]).reshape(-1) for name in layout.control.names])
    assert kept == pytest.approx(control, abs=1e-7) and np.count_nonzero(control)
    second = train_locally(task, base, data, task.config, private=first.private)
    later = np.concatenate([float32_of(second.private[name]).reshape(-1) for name in layout.control.names])
    assert second.delta[layout.model_parameters :] == pytest.approx(later - kept, abs=1e-6)
    weights = slice(layout.trainable.parameters)
    assert second.delta[weights].tobytes() != first.delta[weights].tobytes()
    again = train_locally(task, base, data, task.config, private=first.private)
    assert again.delta.tobytes() == second.delta.tobytes()


def test_without_the_servers_and_its_own_variates_the_first_steps_are_fedavgs(tmp_path: Path) -> None:
    task, plain = task_of(tmp_path), task_of(tmp_path, '"fedavg"', "plain")
    data, model = task.data().parts["d1"], initial_parameters(task, 0)
    made = train_locally(task, model, data, task.config)
    assert (
        made.delta[: model.size].tobytes() == train_locally(plain, model, data, plain.config).delta.tobytes()
    )
    direction = guide_of(task, first_of(task) + 1.0, data, task.config)
    expected = guide_of(plain, model + 1.0, data, plain.config)
    assert direction.q.tobytes() == expected.q.tobytes(), (
        "a guardian has no variate of its own, and goes by none"
    )


def test_a_train_that_uses_them_not_is_told_so(tmp_path: Path) -> None:
    task = task_of(tmp_path, name="idle", more=OWN_LOOP)
    with pytest.raises(UsageProblem, match="did not use them") as caught:
        train_locally(task, first_of(task), task.data().parts["d0"], task.config)
    assert caught.value.error_id == "FLV-2265"


def test_variates_of_another_model_are_refused(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    data = task.data().parts["d0"]
    kept = dict(train_locally(task, first_of(task), data, task.config).private)
    names = list(kept)
    kept[names[0]], kept[names[1]] = kept[names[1]], kept[names[0]]
    with pytest.raises(UsageProblem, match="control variates are of another model") as caught:
        train_locally(task, first_of(task), data, task.config, private=kept)
    assert caught.value.error_id == "FLV-2254"


def test_a_model_is_evaluated_and_made_local_without_its_variates(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    base, held_out = first_of(task), task.data().test
    model = task.anatomy.model_of(base)
    assert evaluate_parameters(task, base, held_out) == evaluate_parameters(task, model, held_out)
    delta = train_locally(task, base, task.data().parts["d0"], task.config).delta
    local = local_of(model, task.anatomy.model_of(delta), task.anatomy.layout)
    assert local.shape == model.shape and np.isfinite(local).all()


def test_a_simulated_federation_learns_audits_identical_and_gives_its_model_alone(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    made = simulated(task.path, devices=6, versions=3)
    genesis, layout = made.engine.genesis, made.engine.bases.layout
    assert genesis.format == CONTROL_GENESIS
    report = audited(made)
    assert report.identical, report.findings.shown
    base = made.engine.bases.at(3)
    control = base.parameters[layout.model_parameters :]
    assert np.count_nonzero(control) > control.size // 2
    assert not np.count_nonzero(made.engine.bases.at(0).parameters[layout.model_parameters :])
    state = whole_state(genesis, base.parameters, {})
    assert not any(name.startswith("control:") for name in state)
    file = read_tensors(state_file(genesis, 3, base.sha256, base.parameters, {}))
    assert set(file) == set(state)
    update, _ = update_of_state(genesis, state, base.parameters, {})
    assert update.shape == (layout.parameters,) and not np.count_nonzero(
        update[: layout.trainable.parameters]
    )


def test_a_policy_before_v6_has_no_section_for_them() -> None:
    with pytest.raises(UsageProblem) as caught:
        require_control_policy(factories.policy(format="fluvial/policy/v5"))
    assert caught.value.error_id == "FLV-2266"
    require_control_policy(factories.policy(format="fluvial/policy/v6"))
