"""Rules read only what processes show: every metric and every label in them is in the catalogue."""

from __future__ import annotations

import re

import pytest

from backends.observing.metrics import CATALOGUE
from tests.unit.house.test_alerts import SERIES, rules

TARGET_LABELS = {"task", "role", "process", "job", "instance"}
SELECTOR = re.compile(r"\b(fluvial_[a-z0-9_]+)\s*(?:\{([^}]*)\})?")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
SHOWN = {metric.name + suffix: metric for metric in CATALOGUE for suffix in SUFFIXES[metric.kind]}
EXPRESSIONS = {
    **{name: rule["expr"] for name, rule in rules("record").items()},
    **{name: rule["expr"] for name, rule in rules("alert").items()},
}


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """(metric, labels that it is asked for) of each raw series in an expression."""
    raw = re.sub(r"\b[a-z_]+:fluvial_[a-z0-9_]+(?::[a-z0-9_]+)?(\{[^}]*\})?", "", expression)
    return [
        (name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)))
        for name, matchers in SELECTOR.findall(raw)
    ]


def test_there_are_series_to_look_at() -> None:
    assert any(SERIES.search(expression) for expression in EXPRESSIONS.values())
    assert selectors('sum by (x) (rate(fluvial_a_total{b="c", d!~"e"}[5m])) + x:fluvial_y:max{f="g"}') == [
        ("fluvial_a_total", {"b", "d"})
    ]


@pytest.mark.parametrize("rule", sorted(EXPRESSIONS))
def test_every_metric_that_a_rule_reads_is_shown_by_some_process(rule: str) -> None:
    assert sorted({name for name, _ in selectors(EXPRESSIONS[rule])} - set(SHOWN)) == []


@pytest.mark.parametrize("rule", sorted(EXPRESSIONS))
def test_every_label_that_a_rule_asks_for_is_one_of_the_metric(rule: str) -> None:
    for name, labels in selectors(EXPRESSIONS[rule]):
        assert labels <= TARGET_LABELS | set(SHOWN[name].labels), name


@pytest.mark.parametrize("rule", sorted(EXPRESSIONS))
def test_every_label_that_a_rule_keeps_is_one_of_what_it_reads(rule: str) -> None:
    kept = {
        label.strip()
        for group in re.findall(r"by \(([^)]*)\)", EXPRESSIONS[rule])
        for label in group.split(",")
    }
    names = [name for name, _ in selectors(EXPRESSIONS[rule])]
    there = {label for name in names for label in SHOWN[name].labels} | TARGET_LABELS | {"le"}
    assert not names or kept <= there
