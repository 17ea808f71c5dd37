"""One device of ``benchmarks/peers.py``: fetches each version, publishes a fixed step, trains nothing.

python -m benchmarks.peer_device HOME TASK REGION KEY ROUNDS
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from backends.environment import load_settings
from benchmarks.peer_programs import STEP
from producers.sdk.device import Device
from producers.sdk.updates import Contribution

FETCH_TIMEOUT_S = 300.0


def main() -> None:
    """Take part in every version up to the last."""
    home, task, region, key, rounds = sys.argv[1:]
    with Device.open(load_settings(home=Path(home)), task=task, region=region, key=key) as device:
        version = -1
        while version + 1 < int(rounds):
            base = device.fetch(newer_than=version, timeout_s=FETCH_TIMEOUT_S)
            version = base.version
            if version < int(rounds):
                step = np.full(base.parameters.size, STEP, dtype=np.float32)
                device.publish(base, Contribution(step, 1, 0.0))


if __name__ == "__main__":
    main()
