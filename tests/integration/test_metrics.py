"""Metrics of real processes on the real stack: what is scraped is what stands in the topics."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.avro import encode
from schemas.topics import aggregates_topic
from tests import factories
from tests.integration.pipeline import Federation
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

STOP_S = 120.0
SLOT = ("eu", 0)
UPDATES = 12
POLICY = factories.policy(window={"updates_max": 4, "seconds_max": 3600.0}, buffer={"updates": 4})

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, {"eu": 1}, POLICY)
    yield federation
    federation.end()


def get(address: str, path: str, accept: str = "") -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://{address}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def target(federation: Federation, process: str) -> dict[str, str]:
    """What Prometheus would find of a process: its labels, and its address."""
    folder = federation.settings.home / "run" / "metrics"
    name = f"{federation.task}-{process}.*.json"
    (path,) = until(lambda: list(folder.glob(name)), f"{folder}/{name} is written\n{federation.logs()}")
    (found,) = json.loads(path.read_text())
    return {**found["labels"], "address": found["targets"][0]}


def scrape(address: str) -> Samples:
    status, _, text = get(address, "/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def answers(address: str, path: str, status: int) -> bool:
    return bool(get(address, path)[0] == status)


def by_label(samples: Samples, name: str, label: str) -> dict[str, float]:
    found: defaultdict[str, float] = defaultdict(float)
    for (sample, labels), value in samples.items():
        if sample == name:
            found[dict(labels)[label]] += value
    return {key: value for key, value in found.items() if value}


def ready(federation: Federation, process: str) -> str:
    address = target(federation, process)["address"]
    until(lambda: get(address, "/readyz")[0] == 200, f"{process} is ready\n{federation.logs()}")
    return address


def contradicting(federation: Federation, salt: str) -> bytes:
    """Window 0 of eu[0], signed by a worker of the region; another ``salt`` gives other sums."""
    accepted = {"counts": {"accepted": 1}, "accepted": 1, "weight_total": 1 << 16, "update_bytes": 500}
    hashes = {"sum_sha256": factories.sha(salt), "contributors_sha256": factories.sha("contributors")}
    record = {
        "task": federation.task, "region": "eu", "partition": 0, "sequence": 0, "first_offset": 0, "next_offset": 1,
        "version": 0, "policy_sha256": POLICY.sha256, "staleness_total": 0, "staleness_max": 0,
        "state_sha256": factories.sha("state"), "previous_sha256": "", **accepted, **hashes,
    }  # fmt: skip
    payload = encode("RegionalAggregate", record)
    return federation.worker_signer("eu").sign_payload("RegionalAggregate", payload)


def test_a_merger_that_is_given_lies_names_them_and_goes_on(federation: Federation) -> None:
    merger = federation.start("merger", "merger")
    address = ready(federation, "merger")
    topic = aggregates_topic(federation.task, "eu")
    for salt in ("one", "another"):
        federation.writer.append_now(topic, contradicting(federation, salt), partition=0)
    merger.says("error[FLV-3002]")

    def told() -> float:
        return sum(
            value for (name, _), value in scrape(address).items() if name == "fluvial_windows_disproved_total"
        )

    until(lambda: told() == 2, f"both lies are counted\n{federation.logs()}")
    assert get(address, "/readyz")[0] == 200
    assert federation.head == 0


def test_worker_and_merger_tell_what_stands_in_the_topics(federation: Federation) -> None:
    worker, merger = federation.start("worker", "worker"), federation.start("merger", "merger")
    addresses = {name: ready(federation, name) for name in ("worker", "merger")}
    for seed in range(UPDATES):
        federation.append(SLOT, federation.update(f"d-{seed}", seed=seed))
    federation.append(SLOT, b"junk")
    federation.await_version(1, 60)
    federation.append(SLOT, federation.update("d-0", seed=0, base_version=0))

    def counted() -> bool:
        true = Counter(verdict.outcome for verdict in federation.verdicts(SLOT))
        seen = by_label(scrape(addresses["worker"]), "fluvial_verdicts_total", "outcome")
        return sum(true.values()) > UPDATES + 1 and seen == dict(true)

    until(counted, "the metrics count what stands in the verdict topics", 30)
    of_worker = scrape(addresses["worker"])
    assert of_worker["fluvial_ready", ()] == 1
    assert by_label(of_worker, "fluvial_lag_seconds", "partition") == {}
    assert set(by_label(of_worker, "fluvial_next_offset", "partition")) == {"0"}
    of_merger = until(
        lambda: (found := scrape(addresses["merger"]))["fluvial_version", ()] >= 1 and found, "version 1"
    )
    merged = sum(value for (name, _), value in of_merger.items() if name == "fluvial_version_updates_sum")
    assert of_merger["fluvial_publish_to_version_seconds_count", (("region", "eu"),)] == merged
    assert of_merger["fluvial_region_expected", (("region", "eu"),)] == 1
    assert of_merger["fluvial_region_last_window_timestamp_seconds", (("region", "eu"),)] > 1e9
    for address in addresses.values():
        assert get(address, "/livez")[0] == get(address, "/healthz")[0] == 200
        assert get(address, "/")[0] == 404
    for one in (worker, merger):
        one.signal(signal.SIGTERM)
    for address in addresses.values():
        until(partial(answers, address, "/readyz", 503), "it says at once that it ends")
        assert get(address, "/readyz")[2] == "ending: what is under way is finished\n"
        assert get(address, "/livez")[0] == 200
    assert [one.process.wait(STOP_S) for one in (worker, merger)] == [0, 0], federation.logs()
    assert not list((federation.settings.home / "run" / "metrics").glob(f"{federation.task}-*"))
