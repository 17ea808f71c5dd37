"""A data folder whose formatting takes too long: a machine under load, or a disk that hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aggregation.errors import TimeoutProblem
from backends.settings import StackFile
from fluvial.local import kafka
from fluvial.local.kafka import KafkaBroker

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_a_timeout_with_its_limit_and_no_defect_and_leaves_no_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "FORMAT_TIMEOUT_S", 0.1)
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexec sleep 30\n")
    java.chmod(0o755)
    broker = KafkaBroker(tmp_path)
    with pytest.raises(TimeoutProblem) as caught:
        broker._format(str(java), "", StackFile(store_kind="file", kafka_port=1, controller_port=2))
    assert caught.value.error_id == "FLV-1009"
    assert "`fluvial up` again" in caught.value.hint
    assert not broker.data.exists()
