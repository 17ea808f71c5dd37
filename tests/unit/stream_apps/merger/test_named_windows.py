"""What stands in buckets of a version's windows is read from their records, and only where there are several."""

from __future__ import annotations

import msgspec
import pytest

from aggregation.errors import IntegrityProblem
from stream_apps.merger.named_windows import named_windows, sums_of
from tests import defended, factories
from tests.small_federation import SmallFederation
from tests.unit.stream_apps.merger.test_signed_manifests import context_of


@pytest.fixture(scope="module")
def federation() -> SmallFederation:
    """A task of several buckets; the tests leave it as it is."""
    return defended.bucketed("krum")


def test_the_records_of_all_windows_are_found_by_their_hashes(federation: SmallFederation) -> None:
    for manifest in federation.manifests:
        found = named_windows(context_of(federation), manifest.inputs)
        assert set(found) == {one.sha256 for one in manifest.inputs}
        for one in manifest.inputs:
            window = found[one.sha256]
            assert (window.slot, window.sequence) == ((one.region, one.partition), one.sequence)
            assert sum(each.accepted for each in window.buckets) == one.accepted


def test_a_window_that_stands_in_no_topic_is_named(federation: SmallFederation) -> None:
    manifest = federation.manifests[-1]
    planted = msgspec.structs.replace(manifest.inputs[0], sha256=factories.sha("planted"))
    with pytest.raises(IntegrityProblem, match="no worker's record in its topic is that") as caught:
        named_windows(context_of(federation), [planted, *manifest.inputs[1:]])
    assert caught.value.error_id == "FLV-3003"


def test_of_windows_of_one_bucket_no_record_is_read() -> None:
    federation = defended.bucketed("mean")
    manifest = federation.manifests[-1]
    counting = [one for one in manifest.inputs if one.sum_sha256 and not one.is_dropped]
    strange = msgspec.structs.replace(
        manifest, inputs=tuple(msgspec.structs.replace(one, sha256=factories.sha("gone")) for one in counting)
    )
    assert [one.weight_total for one in sums_of(context_of(federation), strange)] == [
        one.weight_total for one in counting
    ]
