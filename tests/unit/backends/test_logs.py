"""Logs: today's lines for people, or JSON with fields, and in neither a key, a device's id or a payload."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aggregation.errors import IntegrityProblem, UsageProblem
from backends import logging_bounds
from backends import logging_setup as logs
from backends.environment import load_settings, log_format_asked
from backends.logging_bounds import BoundedStream
from backends.logging_setup import JsonFormatter, describe_process, human_lines, logging_config
from fluvial.processes.supervisor import _cause

PROBLEM = IntegrityProblem(
    "FLV-3101", "offsets 3 to 7 are gone", where="fl.t.updates.eu[0]", hint="run `fluvial audit`"
)


@contextmanager
def captured(log_format: logs.LogFormat) -> Iterator[io.StringIO]:
    """What the processes' own configuration writes."""
    text, root, named = io.StringIO(), logging.getLogger(), logging.getLogger("fluvial")
    before, levels = root.handlers[:], (root.level, named.level)
    configuration = logging_config(log_format)
    configuration["handlers"]["stderr"]["stream"] = text
    try:
        logging.config.dictConfig(configuration)
        yield text
    finally:
        root.handlers[:] = before
        root.setLevel(levels[0])
        named.setLevel(levels[1])
        logs._process.clear()


def lines(text: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.getvalue().splitlines()]


def test_a_json_line_says_when_where_what_and_in_whom() -> None:
    with captured("json") as text:
        describe_process(task="digits", role="worker", process="w-1", region="eu")
        place = {"region": "us", "partition": 2, "offset": 41, "version": 3, "sequence": 5}
        logging.getLogger("fluvial.worker").info("%s stops\nand ends", "it", extra=place)
    (line,) = lines(text)
    assert line.pop("timestamp").endswith("Z")
    assert line == place | {
        "level": "info", "logger": "fluvial.worker", "message": "it stops\nand ends",
        "task": "digits", "role": "worker", "process": "w-1",
    }  # fmt: skip


def test_a_problem_has_its_id_and_a_defect_its_traceback() -> None:
    with captured("json") as text:
        log = logging.getLogger("fluvial.merger")
        log.error("it stops.\n%s", PROBLEM)
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            log.exception("a defect")
    problem, defect = lines(text)
    assert problem["error_id"] == "FLV-3101" and "exception" not in problem
    assert "error_id" not in defect and "ZeroDivisionError" in defect["exception"]


def test_fields_are_those_that_are_listed_and_no_others() -> None:
    with captured("json") as text:
        logging.getLogger("fluvial").warning("x", extra={"key": "secret", "device_id": "secret", "offset": 1})
    assert "secret" not in text.getvalue() and lines(text)[0]["offset"] == 1


def test_lines_for_people_look_as_they_did() -> None:
    with captured("human") as text:
        logging.getLogger("fluvial.worker").warning("%s has %d", "it", 3, extra={"offset": 1})
        logging.getLogger("fluvial.worker").debug("not for people")
    assert text.getvalue().endswith(" W fluvial.worker: it has 3\n")
    assert text.getvalue().count("\n") == 1


def test_the_format_is_a_setting(home: Path) -> None:
    environment = {"FLUVIAL_BOOTSTRAP_SERVERS": "a:1", "FLUVIAL_STORE_PATH": "/nowhere"}
    assert load_settings(home, environment).log_format == log_format_asked({}) == "human"
    environment["FLUVIAL_LOG_FORMAT"] = "json"
    assert load_settings(home, environment).log_format == log_format_asked(environment) == "json"
    environment["FLUVIAL_LOG_FORMAT"] = "xml"
    for load in (lambda: load_settings(home, environment), lambda: log_format_asked(environment)):
        with pytest.raises(UsageProblem, match="log_format") as caught:
            load()
        assert caught.value.error_id == "FLV-1002"


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_a_supervisor_finds_the_cause_in_either_format(tmp_path: Path, log_format: logs.LogFormat) -> None:
    with captured(log_format) as text:
        log = logging.getLogger("fluvial.worker")
        log.info("it begins")
        log.error("%s stops at offset %d, the others go on.\n%s", "eu", 3, PROBLEM)
    path = tmp_path / "child.log"
    path.write_text(text.getvalue())
    assert _cause(path)[0] == "error[FLV-3101]: offsets 3 to 7 are gone"
    assert _cause(path)[-1] == "hint: run `fluvial audit`"


def test_what_is_not_ours_is_left_as_it_is() -> None:
    assert human_lines('{"a": 1}\n{broken\nplain\n[1]') == ['{"a": 1}', "{broken", "plain", "[1]"]
    made = JsonFormatter().format(logging.makeLogRecord({"msg": "one\ntwo", "levelname": "INFO"}))
    assert human_lines(made) == ["one", "two"]


class Flood:
    """A handler of the processes' own, a stream, and a clock that the test moves."""

    def __init__(self) -> None:
        self.text = io.StringIO()
        self.handler = BoundedStream(self.text)
        self.handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self.now_s = 1_000_000.0

    def say(self, name: str, message: str, *arguments: object, after_s: float = 0.0) -> None:
        self.now_s += after_s
        record = logging.makeLogRecord({"name": name, "msg": message, "args": arguments})
        record.created = self.now_s
        self.handler.handle(record)

    @property
    def lines(self) -> list[str]:
        return self.text.getvalue().splitlines()


AIOKAFKA = [
    ("aiokafka", "Unable connect to node with id %s: %s"),
    ("aiokafka.consumer.fetcher", "Failed fetch messages from %s: %s"),
    ("aiokafka", "Unable to update metadata from %s"),
    ("aiokafka.consumer.group_coordinator", "Group Coordinator Request failed: %s"),
]


def test_a_minute_without_kafka_is_a_line_every_few_seconds() -> None:
    flood = Flood()
    for turn in range(600):
        for name, message in AIOKAFKA:
            flood.say(name, message, *range(message.count("%s")), after_s=0.025)
        if turn % 60 == 0:
            flood.say("fluvial", "waiting for Kafka at %s to answer, %.0f s", "a:1", turn / 10)
    assert 60 / logging_bounds.GAP_S >= len(flood.lines) >= 10 + len(AIOKAFKA)
    assert len([line for line in flood.lines if line.startswith("fluvial: waiting")]) == 10
    for _, message in AIOKAFKA:  # every kind of line is seen
        assert any(message.partition("%s")[0] in line for line in flood.lines)


def test_what_was_left_out_is_counted_from_when_and_nothing_is_counted_twice() -> None:
    flood = Flood()
    for _ in range(1000):
        flood.say("aiokafka", "Unable connect", after_s=0.1)
    flood.say("fluvial", "Kafka answers again after %.0f s", 100, after_s=4)
    flood.say("fluvial", "it goes on", after_s=60)
    counts = [
        int(found[1])
        for line in flood.lines
        if (found := re.search(r"(\d+) more lines? since ..:..:..", line))
    ]
    assert sum(counts) + sum("Unable connect" in line for line in flood.lines) == 1000
    assert flood.lines[-3].startswith("aiokafka: left out: ")
    assert flood.lines[-2:] == ["fluvial: Kafka answers again after 100 s", "fluvial: it goes on"]


def test_our_own_lines_all_pass_but_for_many_that_wait_for_one_thing() -> None:
    flood = Flood()
    for number in range(10):
        flood.say("fluvial.worker", "eu[%d] stops", number)
        flood.say("fluvial", "waiting to %s, %.0f s: %s", f"store {number}", 1, "away")
    assert len([line for line in flood.lines if "stops" in line]) == 10
    assert len([line for line in flood.lines if "waiting" in line]) == 1
    flood.say("fluvial", "waiting to %s, %.0f s: %s", "store 3", 5, "away", after_s=5)
    assert flood.lines[-1].startswith("fluvial: waiting to store 3, 5 s: away (9 more lines since ")


def test_a_clock_that_is_set_back_silences_nobody() -> None:
    flood = Flood()
    flood.say("aiokafka", "one")
    flood.say("aiokafka", "two", after_s=-3600)
    assert flood.lines == ["aiokafka: one", "aiokafka: two"]


def test_an_error_with_an_id_comes_first_and_has_no_traceback() -> None:
    with captured("human") as text:
        try:
            raise PROBLEM
        except IntegrityProblem:
            logging.getLogger("mode").exception("Crashed reason=%r", PROBLEM)
    first, *more = text.getvalue().splitlines()
    assert first.endswith("E mode: error[FLV-3101]: offsets 3 to 7 are gone")
    assert "Traceback" not in text.getvalue()
    assert more[1] == "hint: run `fluvial audit`"


def test_a_defect_has_its_id_before_its_traceback() -> None:
    with captured("human") as text:
        try:
            _ = 1 / 0
        except ZeroDivisionError as error:
            logging.getLogger("fluvial.worker").exception("it stops.\n%s", PROBLEM, exc_info=error)
    said = text.getvalue()
    assert said.index("FLV-3101") < said.index("Traceback") < said.index("ZeroDivisionError")
