"""No version stops the evaluator: each is published, with its numbers or with why it has none."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import ConnectionProblem
from backends.observer import Observer
from schemas.manifests import Metric
from schemas.metrics import PROBLEM, PROBLEM_ID
from schemas.objects import model_key
from schemas.topics import metrics_topic
from stream_apps.evaluator import evaluation as module
from stream_apps.evaluator.bench import EvaluationProblem
from stream_apps.evaluator.bench_messages import Trouble
from stream_apps.evaluator.evaluation import Evaluation
from tests.small_federation import SmallFederation
from tests.unit.stream_apps.analysts.published_schema import VALID

if TYPE_CHECKING:
    from collections.abc import Callable

VERSIONS = 3


class StandIn:
    """A bench whose evaluations are what the test says, by how often it was asked."""

    def __init__(self, *_: object, **__: object) -> None:
        self.metric = Metric("r2", higher_is_better=True)
        self.answers: list[Any] = []
        self.parts_fail = False

    def open(self) -> None:
        """It is."""

    def evaluate(self, _model: object) -> dict[str, float]:
        answer = self.answers.pop(0) if self.answers else {"loss": 0.5, "r2": 0.9}
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def parts(self, _model: object, metric: Metric) -> dict[str, float]:
        if self.parts_fail:
            raise EvaluationProblem("late", Trouble("FLV-6312", "too long"))
        return {f"{metric.name}_worst_decile": 0.1}


class Seen(Observer):
    def __init__(self) -> None:
        self.records: list[Any] = []

    def evaluated(self, record: Any, seconds: float) -> None:
        self.records.append(record)


@pytest.fixture
def federation() -> SmallFederation:
    made = SmallFederation()
    for _ in range(VERSIONS):
        made.send(4)
        made.fold()
        made.merge()
    return made


@pytest.fixture
def evaluator(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Evaluation]:
    monkeypatch.setattr(module, "LogReader", lambda _settings, name: federation.open_reader(name))
    monkeypatch.setattr(module, "LogWriter", lambda *_, **__: federation.writer)
    monkeypatch.setattr(module, "Bench", StandIn)

    def make(**named: Any) -> Evaluation:
        return Evaluation(
            federation.settings, federation.objects, federation.genesis, "mine.py", "evaluator", **named
        )

    return make


def published(federation: SmallFederation) -> list[dict[str, Any]]:
    records = [json.loads(one.value or b"") for one in federation.records(metrics_topic(federation.task), 0)]
    return [record for record in records if record["kind"] == "evaluation"]


FAILURES = {
    "not_finite": EvaluationProblem(
        "not_finite", Trouble("FLV-2209", "the loss is nan"), {"loss": math.nan, "r2": 0.3}
    ),
    "failed": EvaluationProblem("failed", Trouble("FLV-2209", "it raises", "mine.py:3")),
    "crashed": EvaluationProblem("crashed", Trouble("FLV-6313", "killed")),
    "late": EvaluationProblem("late", Trouble("FLV-6312", "too long")),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_version_that_cannot_be_evaluated_is_published_so_and_the_next_follows(
    federation: SmallFederation, evaluator: Callable[..., Evaluation], name: str
) -> None:
    seen = Seen()
    one = evaluator(observer=seen)
    bench: Any = one._bench
    bench.answers = [{"loss": 0.7, "r2": 0.1}, FAILURES[name], {"loss": 0.4, "r2": 0.5}]
    one.catch_up(VERSIONS)
    records = published(federation)
    assert [record["version"] for record in records] == [0, 1, 2, 3]
    assert [record.get(PROBLEM) for record in records] == [None, name, None, None]
    assert [record.get(PROBLEM_ID) for record in records] == [
        None, FAILURES[name].trouble.error_id, None, None,
    ]  # fmt: skip
    assert [record["loss"] for record in records] == [0.7, None, 0.4, 0.5]
    assert records[1]["metric"] == "r2"
    assert records[1]["metric_value"] == (0.3 if name == "not_finite" else None)
    assert records[1]["accepted"] > 0
    assert len(records[1]["model_sha256"]) == 64
    assert [record[PROBLEM] for record in seen.records if PROBLEM in record] == [name]
    for record in records:
        VALID.validate(record)


def test_the_metric_that_judges_the_task_is_a_finite_number_or_there_is_no_evaluation(
    federation: SmallFederation, evaluator: Callable[..., Evaluation]
) -> None:
    one = evaluator()
    bench: Any = one._bench
    bench.answers = [{"loss": 0.7, "r2": math.inf, "mae": 2.0}]
    one.catch_up(0)
    (record,) = published(federation)
    assert (record[PROBLEM], record["loss"], record["r2"], record["mae"]) == ("not_finite", 0.7, None, 2.0)


def test_a_number_beside_it_that_is_not_finite_is_no_problem(
    federation: SmallFederation, evaluator: Callable[..., Evaluation]
) -> None:
    one = evaluator()
    bench: Any = one._bench
    bench.answers = [{"loss": 0.7, "r2": 0.5, "mae": math.nan}]
    one.catch_up(0)
    (record,) = published(federation)
    assert PROBLEM not in record
    assert (record["r2"], record["mae"]) == (0.5, None)


def test_classes_and_cohorts_that_fail_cost_the_version_nothing_else(
    federation: SmallFederation, evaluator: Callable[..., Evaluation]
) -> None:
    one = evaluator()
    bench: Any = one._bench
    bench.parts_fail = True
    one.catch_up(0)
    (record,) = published(federation)
    assert PROBLEM not in record and record["r2"] == 0.9


def test_an_evaluator_that_starts_again_goes_on_behind_a_version_without_an_evaluation(
    federation: SmallFederation, evaluator: Callable[..., Evaluation]
) -> None:
    first = evaluator()
    bench: Any = first._bench
    bench.answers = [FAILURES["late"]]
    first.catch_up(0)
    again = evaluator()
    assert again.evaluated == 0
    again.catch_up(2)
    assert [record["version"] for record in published(federation)] == [0, 1, 2]


def test_a_model_that_is_gone_is_waited_for_and_then_published_as_unreadable(
    federation: SmallFederation, evaluator: Callable[..., Evaluation]
) -> None:
    del federation.objects.store._objects[model_key(federation.task, 1)]  # type: ignore[attr-defined]
    one = evaluator(seconds_max=0.01)
    one.catch_up(VERSIONS)
    records = published(federation)
    assert [record.get(PROBLEM) for record in records] == [None, "unreadable", None, None]
    assert records[1][PROBLEM_ID].startswith("FLV-4")
    VALID.validate(records[1])


def test_an_outage_is_no_problem_of_a_version(
    federation: SmallFederation, evaluator: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, asked = evaluator(seconds_max=0.001), []
    reads = one._store.model_bytes

    def away(version: int, sha256: str) -> bytes:
        asked.append(version)
        if len(asked) < 3:
            raise ConnectionProblem("FLV-4002", "the store is away")
        return reads(version, sha256)

    monkeypatch.setattr(one._store, "model_bytes", away)
    one.catch_up(0)
    assert [record.get(PROBLEM) for record in published(federation)] == [None]
    assert len(asked) == 3
