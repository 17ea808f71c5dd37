"""What was downloaded is used only if it is what was pinned."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import EnvironmentProblem
from fluvial.local import downloads
from fluvial.local.pinned import read_pins, unpinned
from fluvial.local.resources import infra_file

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = {"a.jar": b"one", "b.jar": b"two"}
PINS = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in CONTENT.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_all_that_was_pinned_and_nothing_besides_is_right(folder: Path) -> None:
    assert unpinned(folder, PINS) == []


def test_each_difference_is_named(folder: Path) -> None:
    (folder / "a.jar").write_bytes(b"onf")
    (folder / "b.jar").rename(folder / "c.jar")
    first, second, third = unpinned(folder, PINS)
    assert (first, second) == ("b.jar is missing", "c.jar is not pinned")
    assert third.startswith("a.jar is ") and PINS["a.jar"][:16] in third


def test_the_list_is_as_sha256sum_writes_it() -> None:
    text = "".join(f"{sha256}  {name}\n" for name, sha256 in PINS.items())
    assert read_pins(text) == PINS
    for wrong in ("a.jar\n", f"{PINS['a.jar'][:-1]}  a.jar\n", "\n", f"{PINS['a.jar']}  a b\n"):
        with pytest.raises(ValueError, match="expected a SHA-256"):
            read_pins(wrong)


def test_the_pins_of_the_source_tree_name_kafka_of_the_pom() -> None:
    pins = read_pins(infra_file(downloads.KAFKA_PINS).read_text())
    pom = infra_file("kafka/pom.xml").read_text()
    version = pom.partition("<kafka.version>")[2].partition("<")[0]
    assert f"kafka_2.13-{version}.jar" in pins and f"kafka-clients-{version}.jar" in pins


def test_jars_of_another_mirror_are_refused_by_name(folder: Path) -> None:
    with pytest.raises(
        EnvironmentProblem, match=r"argparse4j.* is missing|HdrHistogram.* is missing"
    ) as caught:
        downloads.require_pinned(folder)
    assert caught.value.error_id == "FLV-1025"


def test_jars_of_an_earlier_release_are_taken_if_they_are_the_pinned_ones(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FLUVIAL_CACHE", str(cache))
    before, final = downloads._jars_of_before(), downloads.kafka_jars_path()
    assert not downloads._adopted_jars(final), "there are none"
    before.mkdir()
    for path in folder.iterdir():
        (before / path.name).write_bytes(path.read_bytes())
    assert not downloads._adopted_jars(final), "they are others"
    monkeypatch.setattr(downloads, "read_pins", lambda _: PINS)
    assert downloads._adopted_jars(final)
    assert {path.name: path.read_bytes() for path in final.iterdir()} == CONTENT
    assert sorted(path.name for path in cache.iterdir()) == sorted([before.name, final.name])
