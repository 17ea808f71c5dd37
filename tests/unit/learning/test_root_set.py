"""The root set: where it comes from, and when it is none to go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from aggregation.errors import UsageProblem
from learning.checking import check_task
from learning.datasets import Examples, digits
from learning.root_set import RootSet, coverage_problems, require_coverage, root_set_of, spread
from learning.root_set_limits import CLASS_EXAMPLES_MIN, EXAMPLES, EXAMPLES_MIN
from learning.shipped import GUIDED
from learning.task import load_task
from tests.task_files import HEAD, PLAIN

if TYPE_CHECKING:
    from pathlib import Path

TASK = f"{HEAD}\ndef model():\n    return {PLAIN}\n"


def examples(*sizes: int) -> Examples:
    """So many of class 0, of class 1 and so on."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return Examples(np.arange(len(labels), dtype=np.float32)[:, None], labels)


def task_with(folder: Path, more: str) -> object:
    file = folder / "mine.py"
    file.write_text(TASK + more)
    return load_task(str(file))


def test_every_task_that_a_demo_guides_has_a_root_set_that_covers_it() -> None:
    for name in sorted(GUIDED):
        root = root_set_of(load_task(name))
        require_coverage(root)
        assert EXAMPLES * 0.9 <= len(root.examples) <= EXAMPLES * 1.1
        assert root.shared


def test_held_out_examples_are_spread_over_the_classes_and_the_same_each_time() -> None:
    first, again = spread(digits().test, 100), spread(digits().test, 100)
    assert np.array_equal(first.x, again.x)
    assert np.array_equal(first.y, again.y)
    counts = np.bincount(first.labels)
    assert len(counts) == 10
    assert counts.min() >= CLASS_EXAMPLES_MIN


def test_a_rare_class_is_in_it_all_the_same() -> None:
    found = spread(examples(1000, 1000, 4), 100)
    assert np.bincount(found.labels).tolist() == [49, 49, 4]


def test_targets_that_are_no_classes_are_spread_evenly() -> None:
    x = np.arange(1000, dtype=np.float32)[:, None]
    found = spread(Examples(x, x[:, 0]), 200)
    assert len(found) == 200
    assert (found.x[0, 0], found.x[-1, 0]) == (0.0, 999.0)
    assert coverage_problems(RootSet(found, "here", Examples(x, x[:, 0]))) == []


def test_the_task_file_s_own_goes_first(tmp_path: Path) -> None:
    own = "\ndef guide_data():\n    return np.ones((120, 4)), np.arange(120) % 2\n"
    root = root_set_of(task_with(tmp_path, own))  # type: ignore[arg-type]
    assert (len(root.examples), root.origin, root.shared) == (120, "guide_data() of the task file", False)
    require_coverage(root)


def test_examples_of_one_s_own_go_before_that(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.ones((150, 4)), y=np.arange(150) % 2)
    own = "\ndef guide_data():\n    raise RuntimeError\n"
    root = root_set_of(task_with(tmp_path, own), path=str(tmp_path / "mine.npz"))  # type: ignore[arg-type]
    assert (len(root.examples), root.shared) == (150, False)


@pytest.mark.parametrize("body", ["return 7", 'raise ValueError("no such file")', "return (1, 2, 3)"])
def test_a_wrong_guide_data_is_said_at_its_line(tmp_path: Path, body: str) -> None:
    task = task_with(tmp_path, f"\ndef guide_data():\n    {body}\n")
    with pytest.raises(UsageProblem, match=r"guide_data\(\)") as refused:
        root_set_of(task)  # type: ignore[arg-type]
    assert refused.value.error_id == "FLV-2250"


def test_a_task_without_any_data_says_whose_examples_it_needs(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(TASK.replace("def data()", "def local_data(path)"))
    with pytest.raises(UsageProblem) as refused:
        root_set_of(load_task(str(file)))
    assert refused.value.error_id == "FLV-2233"


HELD_OUT = examples(*[100] * 10)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (
            [3] * 10,
            [
                f"it has 30 examples, at least {EXAMPLES_MIN} are wanted",
                "10 of the 10 held-out classes are rare",
            ],
        ),
        ([40] * 5, ["5 of the 10 held-out classes are missing: 5, 6, 7, 8, 9"]),
        ([60] * 9 + [4], ["1 of the 10 held-out classes are rare: 9"]),
        ([1000] * 9 + [20], ["1 of the 10 held-out classes are rare: 9"]),
    ],
    ids=["30 examples", "5 of 10 classes", "few of one", "hardly any share of one"],
)
def test_a_root_set_that_covers_too_little_is_refused(sizes: list[int], said: list[str]) -> None:
    root = RootSet(examples(*sizes), "here", HELD_OUT)
    problems = coverage_problems(root)
    assert len(problems) == len(said)
    for problem, wanted in zip(problems, said, strict=True):
        assert problem.startswith(wanted)
    with pytest.raises(UsageProblem) as refused:
        require_coverage(root)
    assert refused.value.error_id == "FLV-2251"
    assert "--accept-coverage" in refused.value.hint


def test_one_that_has_what_the_held_out_examples_have_is_taken() -> None:
    assert coverage_problems(RootSet(examples(*[10] * 10), "here", HELD_OUT)) == []
    assert coverage_problems(RootSet(examples(90, 30, 3), "here", examples(900, 300, 3))) == []


def test_where_there_are_no_held_out_examples_only_their_number_is_asked() -> None:
    assert coverage_problems(RootSet(examples(100), "here")) == []
    assert len(coverage_problems(RootSet(examples(99), "here"))) == 1


def test_a_check_of_the_task_file_says_what_a_guardian_would(tmp_path: Path) -> None:
    asked = 'POLICY = {"defence": {"kind": "guide"}}\n'
    (note,) = check_task(task_with(tmp_path, asked)).notes  # type: ignore[arg-type]
    assert "40 examples, at least 100 are wanted" in note
    good = "\ndef guide_data():\n    return np.ones((120, 4)), np.arange(120) % 2\n"
    assert check_task(task_with(tmp_path, asked + good)).notes == []  # type: ignore[arg-type]
    with pytest.raises(UsageProblem) as refused:
        check_task(task_with(tmp_path, "\ndef guide_data():\n    return 7\n"))  # type: ignore[arg-type]
    assert refused.value.error_id == "FLV-2250"
