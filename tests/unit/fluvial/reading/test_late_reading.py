"""What people read of late windows: versions, lineage, and an accepted update that was dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from aggregation.fold.rejections import ACCEPTED
from aggregation.weights.fixed_point import WEIGHT_ONE
from fluvial.reading.inspection import inspect_record
from fluvial.reading.inspection_text import lines_of
from fluvial.reading.lineage import lineage_of
from fluvial.reading.merged import merged_at
from fluvial.reading.task_view import TaskView
from fluvial.reading.versions import version_line
from tests import factories
from tests.small_federation import IN_MEMORY, SmallFederation
from tests.unit.stream_apps.merger.test_late_windows import after_an_outage, rules

if TYPE_CHECKING:
    from backends.kafka.reading import LogReader


@pytest.fixture(scope="module")
def federation() -> SmallFederation:
    """Its last version holds fresh, late and dropped windows of us."""
    return after_an_outage(rules(staleness={"versions_max": 5}), layout=factories.BUFFERED)


@pytest.fixture(scope="module")
def view(federation: SmallFederation) -> TaskView:
    reader = cast("LogReader", federation.open_reader("reading"))
    return TaskView(IN_MEMORY, federation.task_file, federation.objects, federation.genesis, reader)


def test_a_list_of_versions_says_how_late_windows_were(federation: SmallFederation) -> None:
    fresh, last = (version_line(one, None, {}) for one in (federation.manifests[0], federation.manifests[-1]))
    assert (fresh.late_windows, fresh.late_versions_max, fresh.dropped, fresh.lateness) == (0, 0, 0, "")
    assert last.dropped == federation.manifests[-1].dropped > 0
    assert last.late_versions_max is not None and last.late_versions_max > 5
    assert last.lateness == (
        f"{last.late_windows} windows, max {last.late_versions_max}, {last.dropped} updates dropped"
    )
    assert last.document()["dropped"] == last.dropped


@pytest.mark.parametrize("refold", [False, True])
def test_a_lineage_agrees_with_its_manifest_and_weighs_late_windows_less(
    federation: SmallFederation, view: TaskView, *, refold: bool
) -> None:
    found = lineage_of(view, federation.version, refold=refold)
    assert found.problems == ()
    for tile in found.tiles:
        left, said = tile.named.weight / WEIGHT_ONE, found.lateness_of(tile)
        for one in tile.contributors:
            plain = one.weight / WEIGHT_ONE * one.clip / found.divisor
            assert found.share(tile, one) == pytest.approx(plain * left)
        assert bool(said) == bool(tile.named.accepted and left < 1.0)
        assert ("was dropped" in said) == bool(tile.named.accepted and left == 0.0)
    document = found.document()
    assert document["dropped"] == sum(one["accepted"] for one in document["inputs"] if one["dropped"])


def test_a_device_can_read_that_its_accepted_update_was_dropped_and_why(
    federation: SmallFederation, view: TaskView
) -> None:
    seen: dict[str, Any] = {}
    end = federation.states["us", 0].next_offset
    for offset in range(end):
        found = inspect_record(view, ("us", 0), offset)
        if found["verdict"] is None or found["verdict"]["outcome"] != ACCEPTED:
            assert found["merged"] is None
            continue
        (line,) = [line for line in lines_of(found) if line.startswith("  merged")]
        kind = "dropped" if found["merged"]["dropped"] else "late" if "late" in line else "fresh"
        seen.setdefault(kind, (found["merged"], line))
    assert set(seen) == {"dropped", "late", "fresh"}
    merged, line = seen["dropped"]
    assert merged["version"] == federation.version and merged["lateness_weight"] == 0.0
    assert f"version {federation.version} holds it, and dropped its window: that came" in line
    assert 0.0 < seen["late"][0]["lateness_weight"] < 1.0 and "of its weight" in seen["late"][1]


def test_every_offset_of_a_merged_window_is_found_in_its_version(
    federation: SmallFederation, view: TaskView
) -> None:
    for slot in federation.genesis.slots:
        spans = [
            (one.first_offset, one.next_offset, manifest.version)
            for manifest in federation.manifests
            for one in manifest.inputs
            if (one.region, one.partition) == slot
        ]
        for first, after, version in spans:
            for offset in range(first, after):
                found = merged_at(view, slot, offset)
                assert found is not None and found.manifest.version == version
        assert merged_at(view, slot, max(after for _, after, _ in spans)) is None
