"""The gallery's tasks, each trained for some versions by the real rules in this process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fluvial.session.simulation import simulate
from learning.task import load_task

ROOT = Path(__file__).parents[4]
EXAMPLES = ROOT / "docs" / "examples"
TASKS = {
    "own_model": ("accuracy", 0.7),
    "pretrained": ("accuracy", 0.7),
    "lora": ("accuracy", 0.3),
    "personal": ("accuracy", 0.6),
    "batchnorm_cnn": ("accuracy", 0.5),
    "language_model": ("perplexity", 22.0),
    "regression": ("r2", 0.25),
    "scikit_learn": ("accuracy", 0.7),
    "numpy_model": ("accuracy", 0.7),
    "natural_parts": ("accuracy", 0.6),
    "torch_dataset": ("accuracy", 0.6),
    "columns": ("accuracy", 0.6),
    "device_folders": ("accuracy", 0.6),
}
"""By which of its numbers a task is judged, and what it has to reach."""
PROGRAMS = {"analysis", "device", "pretrain", "small_device"}
"""Those that are no tasks; tests of their own run them."""


LONG = {"language_model", "batchnorm_cnn", "torch_dataset"}
"""Half a minute each: the slow lane's."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in TASKS]
)
def test_a_task_of_the_gallery_learns(name: str) -> None:
    task = load_task(str(EXAMPLES / f"{name}.py"))
    result = simulate(task, devices=8, versions=6, regions={"eu": 1})
    metric, wanted = TASKS[name]
    reached = result.versions[-1].metrics[metric]
    assert (reached < wanted) if metric == "perplexity" else (reached > wanted), result.curve(metric)
    assert set(result.verdicts) <= {"accepted", "anomalous", "too_stale", "duplicate"}


def test_the_gallery_lists_every_file() -> None:
    listed = set(re.findall(r"\(examples/(\w+)\.py\)", (ROOT / "docs" / "gallery.md").read_text()))
    assert listed == {path.stem for path in EXAMPLES.glob("*.py")} == set(TASKS) | PROGRAMS
