"""What people read of a version that a robust merge made: its shares are before it, and the lineage says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from fluvial.reading.lineage import lineage_of
from fluvial.reading.task_view import TaskView
from tests import defended
from tests.small_federation import IN_MEMORY

if TYPE_CHECKING:
    from backends.kafka.reading import LogReader


@pytest.mark.parametrize(("kind", "said"), [("mean", ""), ("krum", "krum")])
@pytest.mark.parametrize("refold", [False, True])
def test_a_lineage_says_which_merge_weighs_buckets_besides(kind: str, said: str, *, refold: bool) -> None:
    federation = defended.bucketed(kind)
    reader = cast("LogReader", federation.open_reader("reading"))
    view = TaskView(IN_MEMORY, federation.task_file, federation.objects, federation.genesis, reader)
    found = lineage_of(view, federation.version, refold=refold)
    assert (found.problems, found.merge, found.document()["merge"]) == ((), said, said)
