"""What an administrator of ours leaves behind when its process ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENDS_WHILE_IT_ASKS = """
import threading, time
from pathlib import Path
from backends.kafka.admin import BrokerProbe
from backends.settings import Settings, StoreSettings

store = StoreSettings(kind="file", path=Path("/nowhere"))
nowhere = Settings(home=Path("/nowhere"), bootstrap_servers="127.0.0.1:9", store=store)
for number in range(20):
    probe = BrokerProbe(nowhere)
    threading.Thread(target=probe.answers, args=(0.2 + number / 100,), daemon=True).start()
time.sleep(0.2)
"""


@pytest.mark.parametrize("attempt", range(2))
def test_a_process_that_ends_while_a_broker_is_asked_ends_well(attempt: int) -> None:
    """librdkafka's thread would hand the answer in to an interpreter that is gone: a segmentation fault."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS_WHILE_IT_ASKS], capture_output=True, check=False, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, b""), f"attempt {attempt}"
