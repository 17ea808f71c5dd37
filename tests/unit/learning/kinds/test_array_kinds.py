"""The kinds numpy and sklearn: the laws of kinds, what is refused, and that nothing on their way imports torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from aggregation.errors import UsageProblem
from fluvial.session.simulation import simulate
from learning.tensors import initial_parameters
from learning.training import train_locally
from tests.conformance.kinds import KindLaws
from tests.task_files import written

ROOT = Path(__file__).parents[4]
EXAMPLES = ROOT / "docs" / "examples"

DATA = """
import numpy as np
import learning

CONFIG = {"epochs": 1, "batch_size": 8, "learning_rate": 0.05}

def data():
    r = np.random.default_rng(1)
    x = r.normal(size=(200, 4))
    return learning.Dataset(train=(x[:160], TARGET(x[:160])), test=(x[160:], TARGET(x[160:])))
"""
CLASSES = DATA.replace("TARGET", "LABELS") + "\nLABELS = lambda x: (x[:, 0] > 0).astype(int)\n"
NUMBERS = DATA.replace("TARGET", "NUMBERS") + "\nNUMBERS = lambda x: x[:, 0].astype('f')\n"
OF_ESTIMATORS = """
def train(model, data, config):
    order = np.random.permutation(len(data))
    model.partial_fit(data.x[order], data.y[order])
    return {"loss": 1.0 - model.score(data.x, data.y)}

def evaluate(model, data):
    return {"loss": 1.0 - model.score(data.x, data.y)}
"""
OF_ARRAYS = """
def evaluate(model, data):
    errors = data.x @ model["w"] + model["b"] - data.y
    return {"loss": float((errors ** 2).mean())}

def train(model, data, config):
    errors = (data.x @ model["w"] + model["b"] - data.y) / len(data)
    STEP
    return evaluate(model, data)
"""
IN_PLACE = "model['w'] -= 0.1 * data.x.T @ errors; model['b'] -= 0.1 * errors.sum()"
REPLACED = "model['w'] = (model['w'] - 0.1 * data.x.T @ errors).astype(model['w'].dtype)"


def estimator(text: str, data: str = CLASSES) -> str:
    imports = "from sklearn import linear_model, neural_network"
    return f"{data}\n{imports}\n{OF_ESTIMATORS}\ndef model():\n    return {text}\n"


def arrays(step: str, dtype: str = "'f4'") -> str:
    made = f"{{'w': np.zeros(4, {dtype}), 'b': np.zeros((), {dtype}), 'steps': 0, 'empty': np.zeros(0)}}"
    return NUMBERS + OF_ARRAYS.replace("STEP", step) + f"\ndef model():\n    return {made}\n"


class TestScikitLearn(KindLaws):
    name = "sklearn"
    tasks: ClassVar = {
        "SGDClassifier": estimator("learning.fitted(linear_model.SGDClassifier(), features=4, classes=2)"),
        "three classes": estimator("learning.fitted(linear_model.SGDClassifier(), features=4, classes=3)"),
        "Perceptron": estimator("learning.fitted(linear_model.Perceptron(), features=4, classes=2)"),
        "averaged": estimator(
            "learning.fitted(linear_model.SGDClassifier(average=True), features=4, classes=2)"
        ),
        "SGDRegressor": estimator("learning.fitted(linear_model.SGDRegressor(), features=4)", NUMBERS),
        "MLPClassifier": estimator(
            "learning.fitted(neural_network.MLPClassifier(hidden_layer_sizes=(8,), random_state=1), "
            "features=4, classes=2)"
        ),
        "MLPRegressor": estimator(
            "learning.fitted(neural_network.MLPRegressor(hidden_layer_sizes=(8,)), features=4)", NUMBERS
        ),
    }


class TestNumpy(KindLaws):
    name = "numpy"
    tasks: ClassVar = {
        "in place": arrays(IN_PLACE),
        "replaced": arrays(REPLACED),
        "float64": arrays(IN_PLACE, "'f8'"),
        "float16": arrays(REPLACED, "'f2'"),
    }


def test_a_state_dict_of_torch_has_the_statistics_of_its_norms_as_buffers(tmp_path: Path) -> None:
    statistics = "dict(weight=np.ones(2), running_mean=np.zeros(2), running_var=np.ones(2))"
    norms = f"{{f'{{n}}.{{k}}': v for n in ('a', 'b') for k, v in {statistics}.items()}}"
    counted = f"dict({norms}, **{{'a.num_batches_tracked': np.array(3), 'w': np.zeros(4, 'f4'), 'b0': np.zeros(2)}})"
    task = written(tmp_path, NUMBERS + OF_ARRAYS + f"\ndef model():\n    return {counted}")
    layout = task.anatomy.layout
    assert [(one.name, one.nonnegative) for one in layout.tensors if one.section == "buffers"] == [
        *(("a.running_mean", False), ("a.running_var", True)),
    ]
    assert layout.names[:6] == ("a.weight", "b.weight", "b.running_mean", "b.running_var", "w", "b0")
    model, flat = task.fresh_model(), np.arange(layout.parameters, dtype=np.float32)
    task.kind.load(model, task.anatomy, flat)
    assert task.kind.values(model, task.anatomy).tolist() == flat.tolist()
    assert model["a.running_var"].tolist() == [16.0, 17.0]


def test_what_a_round_does_beside_its_arrays_is_gone_in_the_next(tmp_path: Path) -> None:
    task = written(tmp_path, arrays(f"{IN_PLACE}; model['steps'] += 1; assert model['steps'] == 1"))
    base = initial_parameters(task, 0)
    first = train_locally(task, base, task.data().train, task.config)
    assert train_locally(task, base, task.data().train, task.config).delta.tobytes() == first.delta.tobytes()


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("model['w'] = np.zeros(5, 'f4')", r"w was float32\[4\] and is float32\[5\]"),
        ("model['w'] = np.zeros(4)", r"w was float32\[4\] and is float64\[4\]"),
        ("del model['b']", r"b \(float32\[\]\) is gone"),
        ("model['more'] = np.ones(3, 'f4')", r"more \(float32\[3\]\) is new"),
    ],
)
def test_a_changed_layout_names_the_array(step: str, said: str, tmp_path: Path) -> None:
    task = written(tmp_path, arrays(step).replace("return evaluate(model, data)", "return {'loss': 0.0}"))
    with pytest.raises(UsageProblem, match=said) as caught:
        train_locally(task, initial_parameters(task, 0), task.data().train, task.config)
    assert caught.value.error_id == "FLV-2208"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (estimator("linear_model.SGDClassifier()"), "the SGDClassifier has no coef_ yet"),
        (estimator("linear_model.LinearRegression()"), "a LinearRegression cannot be learned together"),
        (NUMBERS + OF_ARRAYS + "\ndef model():\n    return {'w': [1.0, 2.0]}", "got {w: list}"),
        (arrays(IN_PLACE, "'>f4'"), "w is >f4; devices train float32, float64, float16"),
        (arrays(IN_PLACE).replace("np.zeros(4, 'f4')", "np.full(4, np.nan, 'f4')"), "w starts with NaN"),
    ],
)
def test_a_model_is_refused_that(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        written(tmp_path, text).model()
    assert caught.value.error_id == "FLV-2204"
    assert said in caught.value.message


def test_a_value_beyond_a_dtype_is_said(tmp_path: Path) -> None:
    task = written(tmp_path, arrays(REPLACED, "'f2'"))
    with pytest.raises(UsageProblem) as caught:
        train_locally(task, np.full(5, 1e6, np.float32), task.data().train, task.config)
    assert caught.value.error_id == "FLV-2220"


@pytest.mark.parametrize("name", ["scikit_learn", "numpy_model"])
def test_its_example_trains_evaluates_and_never_imports_torch(name: str) -> None:
    program = (
        "import sys, numpy as np\n"
        "from learning.task import load_task\n"
        "from learning.tensors import initial_parameters\n"
        "from learning.training import evaluate_parameters, train_locally\n"
        f"task = load_task({str(EXAMPLES / f'{name}.py')!r})\n"
        "base = initial_parameters(task, 0)\n"
        "delta = train_locally(task, base, task.data().train, task.config).delta\n"
        "print(evaluate_parameters(task, base + delta, task.data().test)['accuracy'])\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.8


def test_an_estimator_learns_on_the_real_rules(tmp_path: Path) -> None:
    task = written(tmp_path, TestScikitLearn.tasks["SGDRegressor"])
    result = simulate(task, devices=4, versions=4, regions={"eu": 1})
    losses = result.curve("loss")
    assert losses[-1] < 0.5 * losses[0]
