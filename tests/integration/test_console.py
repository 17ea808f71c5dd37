"""The console on the real stack: its values are the topics', its audit is the audit, outages are shown and end."""

from __future__ import annotations

import http.client
import json
import signal
import urllib.error
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.fold.rejections import ACCEPTED
from fluvial.proof.audit import audit_task
from schemas.objects import sha256_hex
from schemas.topics import metrics_topic, verdicts_topic
from tests import factories
from tests.integration.pipeline import Federation, Running, start_process
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluvial.local.stack import LocalStack

SLOT = ("eu", 0)
STOP_S = 120.0
EVENTS_MAX = 60
POLICY = factories.policy(
    window={"updates_max": 4, "seconds_max": 3600.0}, buffer={"updates": 4, "seconds_max": 3600.0}
)


@pytest.fixture(scope="module")
def federation(breakable_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Three versions of four updates each, some refusals and junk, and a worker and a merger that go on."""
    federation = Federation(breakable_stack.up(), tmp_path_factory.mktemp("console"), {"eu": 1}, POLICY)
    federation.start("worker", "worker-eu-0")
    federation.start("merger", "merger-0")
    for version in range(3):
        for number in range(4):
            device = f"d-{version}{number}"
            federation.append(SLOT, federation.update(device, base=version, seed=number))
        federation.append(SLOT, b"junk")
        federation.await_version(version + 1)
        until(
            lambda wanted=version + 1: any(  # type: ignore[misc]
                one.detail.startswith(f"barrier to version {wanted} ") for one in federation.verdicts(SLOT)
            ),
            f"the barrier of version {version + 1}",
        )
    yield federation
    federation.end()


class Console:
    """`fluvial console` as a process, and what it answers."""

    def __init__(self, federation: Federation, name: str, *arguments: str) -> None:
        self.task = federation.task
        self.home = federation.settings.home
        words = ["console", "--port", "0", *arguments]
        self.process: Running = start_process(self.home, federation.folder, words, name)
        log = self.process.says("console: http://")
        self.port = int(log.partition("console: http://127.0.0.1:")[2].partition("/")[0])

    def ask(self, path: str, body: object = None, token: str = "") -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/tasks/{self.task}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def get(self, path: str) -> Any:
        status, document = self.ask(path)
        assert status == 200, document
        return document

    def until(self, path: str, condition: Any, what: str, timeout_s: float = WAIT_S) -> Any:
        """The answer once it is so."""
        found: list[Any] = []

        def so() -> bool:
            status, document = self.ask(path)
            found[:] = [document]
            return status == 200 and condition(document)

        try:
            until(so, what, timeout_s)
        except AssertionError as error:
            error.add_note(f"last answer: {found}\n{self.process.log}")
            raise
        return found[0]

    @property
    def token(self) -> str:
        return (self.home / "console-token").read_text().strip()


@pytest.fixture(scope="module")
def console(federation: Federation) -> Iterator[Console]:
    console = Console(federation, "console")
    folded = len(federation.log(SLOT))
    console.until(
        "flow",
        lambda flow: flow["regions"][0]["partitions"][0]["folded_to"] == folded,
        "everything judged is followed",
    )
    yield console
    console.process.signal(signal.SIGTERM)
    assert console.process.process.wait(STOP_S) == 0
    assert "Traceback" not in console.process.log


def test_now_is_what_topics_and_store_say(console: Console, federation: Federation) -> None:
    now = console.until(
        "now",
        lambda now: len(now["processes"]) == 2 and now["health"]["level"] == "ok",
        "both processes are ready",
    )
    verdicts = Counter(one.outcome for one in federation.verdicts(SLOT) if one.outcome != "control")
    manifest = federation.store.manifest(3)
    assert (now["head"]["version"], now["head"]["model_sha256"]) == (3, manifest.model_sha256)
    assert now["regions"][0]["verdicts"] == dict(verdicts) == {ACCEPTED: 12, "undecodable": 3}
    assert now["rates"]["accept_ratio"] == 0.8
    assert now["staleness"]["counts"] == [{"staleness": 0, "count": 12}]
    assert (now["regions"][0]["lag_records"], now["regions"][0]["trend"]) == (0, "none")
    assert {(one["role"], one["state"], one["region"]) for one in now["processes"]} == {
        ("worker", "ready", "eu"),
        ("merger", "ready", None),
    }
    assert now["health"]["reason"].startswith("version 3 is ")
    assert now["head"]["age_seconds"] < 120


def test_versions_and_one_version_are_the_manifests(console: Console, federation: Federation) -> None:
    listed = console.get("versions")
    assert [row["version"] for row in listed["versions"]] == [3, 2, 1, 0]
    for row in listed["versions"][:-1]:
        manifest = federation.store.manifest(row["version"])
        assert (row["model_sha256"], row["counts"]) == (manifest.model_sha256, manifest.counts)
        assert row["refused"] == 1 if row["version"] > 1 else row["refused"] <= 1
        assert row["seconds"] is None or row["seconds"] > 0
    data = federation.store.manifest_bytes(2)
    page = console.get("versions/2")
    assert page["manifest_sha256"] == sha256_hex(data)
    assert (page["consistent"], page["problems"]) == (True, [])
    assert [tile["sha256"] for tile in page["tiles"]] == [
        one.sha256 for one in federation.store.manifest(2).inputs
    ]
    rows = console.get("versions/2/contributors?limit=3")
    more = console.get(f"versions/2/contributors?after={rows['next']}")
    devices = [row["device_id"] for row in rows["contributors"] + more["contributors"]]
    assert sorted(devices) == ["d-10", "d-11", "d-12", "d-13"]
    shares = [row["share"] for row in rows["contributors"] + more["contributors"]]
    assert sum(shares) == pytest.approx(1.0)
    assert more["next"] is None
    with urllib.request.urlopen(
        f"http://127.0.0.1:{console.port}/api/tasks/{console.task}/versions/2/manifest", timeout=WAIT_S
    ) as answer:
        assert answer.read() == data
    assert console.ask("versions/4")[0] == 404


def test_a_record_is_found_by_place_and_by_id_with_its_window_and_version(
    console: Console, federation: Federation
) -> None:
    verdict = next(one for one in federation.verdicts(SLOT) if one.device_id == "d-11")
    by_place = console.get(f"record?region=eu&partition=0&offset={verdict.offset}")
    assert console.get(f"record?update_id={verdict.update_id}") == by_place
    assert (by_place["record"]["outcome"], by_place["record"]["device_id"]) == (ACCEPTED, "d-11")
    (tile,) = [
        one
        for one in federation.store.manifest(2).inputs
        if one.first_offset <= verdict.offset < one.next_offset
    ]
    assert (by_place["version"], by_place["window"]) == (2, tile.sequence)
    assert by_place["update"]["payload"]["base_version"] == 1
    assert "data" not in by_place["update"]["payload"]["tensors"][0]
    status, problem = console.ask("record?region=eu&partition=0&offset=99999")
    assert (status, problem["error"]["id"]) == (404, "FLV-6503")
    timeline = console.get("fleet/devices/d-11?region=eu")
    assert [row["offset"] for row in timeline["records"]] == [verdict.offset]


def test_refusals_and_fleet_are_the_topics(console: Console, federation: Federation) -> None:
    junk = [one.offset for one in federation.verdicts(SLOT) if one.outcome == "undecodable"]
    refused = console.get("refused?region=eu&reason=undecodable")
    assert [row["offset"] for row in refused["records"]] == junk[::-1]
    assert refused["reasons"][0]["error_id"] == "FLV-2101"
    fleet = console.get("fleet?sort=accepted&limit=5")
    assert (fleet["devices_seen"], fleet["participation"]["gini"], fleet["shown"]) == (12, 0.0, 5)


def test_an_audit_turns_identical_and_says_what_the_command_says(
    console: Console, federation: Federation
) -> None:
    assert console.ask("audits", {"version": 2})[0] == 401
    status, begun = console.ask("audits", {"version": 2}, console.token)
    assert (status, begun["state"]) == (202, "running")
    status, second = console.ask("audits", {"version": 1}, console.token)
    assert (status, second["error"]["id"]) == (409, "FLV-6504")
    done = console.until(
        f"audits/{begun['id']}", lambda run: run["state"] != "running", "the audit ends", timeout_s=180
    )
    assert (done["state"], done["findings"]) == ("identical", [])
    assert done["digest"] == audit_task(federation.settings, federation.task_file, last=2, jobs=1).digest
    assert console.get("versions/2")["audit"]["state"] == "identical"
    assert console.get("audits")["runs"][0]["id"] == begun["id"]


def test_junk_in_followed_topics_is_counted_and_hides_nothing(
    console: Console, federation: Federation
) -> None:
    before = console.get("now")["strays"]
    junk = (b"", b"\x00" * 40, b"[" * 5000, b'{"kind": "evaluation", "version": "x", "schema_version": 1}')
    for value in (*junk, b'{"kind": "evaluation", "version": 1, "schema_version": 99}'):
        federation.writer.append_now(metrics_topic(federation.task), value)
        federation.writer.append_now(verdicts_topic(federation.task, "eu"), value, partition=0)
    console.until("now", lambda now: now["strays"] > before, "junk is counted")
    offset = federation.append(SLOT, federation.update("d-late", base=3))
    federation.await_verdicts(SLOT, offset)
    console.until(
        "flow",
        lambda flow: flow["regions"][0]["partitions"][0]["folded_to"] == offset + 1,
        "the verdict behind the junk is followed",
    )
    assert console.get("versions/2")["consistent"] is True


def test_events_tell_soon_what_has_happened(console: Console, federation: Federation) -> None:
    stream = http.client.HTTPConnection("127.0.0.1", console.port, timeout=WAIT_S)
    stream.request("GET", f"/api/tasks/{console.task}/events")
    answer = stream.getresponse()
    accepted = next_now(answer)["regions"][0]["verdicts"][ACCEPTED]
    offset = federation.append(SLOT, federation.update("d-live", base=3))
    federation.await_verdicts(SLOT, offset)
    told = (next_now(answer)["regions"][0]["verdicts"][ACCEPTED] for _ in range(EVENTS_MAX))
    assert any(count > accepted for count in told)
    stream.close()


def next_now(answer: http.client.HTTPResponse) -> Any:
    while True:
        line = answer.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: ") and b'"stale_seconds"' in line:
            return json.loads(line[6:])


def test_a_second_console_on_the_port_is_told(console: Console, federation: Federation) -> None:
    words = ["console", "--port", str(console.port)]
    second = start_process(console.home, federation.folder, words, "second")
    assert second.process.wait(WAIT_S) == 2
    assert "error[FLV-6502]" in second.log
    assert "--port" in second.log


def test_ctrl_c_ends_it_with_130(federation: Federation) -> None:
    console = Console(federation, "interrupted")
    console.get("now")
    console.process.signal(signal.SIGINT)
    assert console.process.process.wait(STOP_S) == 130
    assert "Traceback" not in console.process.log


def test_a_broker_that_goes_away_is_said_and_comes_back(
    console: Console, federation: Federation, breakable_stack: LocalStack
) -> None:
    breakable_stack.kill("kafka")
    try:
        now = console.until(
            "now", lambda now: now["sources"]["kafka"]["level"] == "bad", "the outage is shown"
        )
        assert (now["health"]["part"], now["health"]["level"]) == ("kafka", "bad")
        assert now["head"]["version"] == 3, "what was known stays"
        status, problem = console.ask("versions/2")
        assert (status, problem["error"]["id"]) == (502, "FLV-3100")
        assert console.ask("versions")[0] == 200, "the store still answers"
    finally:
        breakable_stack.start("kafka")
    offset = federation.append(SLOT, federation.update("d-after", base=3))
    console.until(
        "flow",
        lambda flow: flow["regions"][0]["partitions"][0]["folded_to"] > offset,
        "it follows again",
        timeout_s=180,
    )
    console.until("now", lambda now: now["sources"]["kafka"]["level"] == "ok", "Kafka is well again")
