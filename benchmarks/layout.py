"""One update's way through models of many tensors: each stage's cost should grow with their number, and no faster.

    python benchmarks/layout.py [--json]

The tensors are small, so what is measured is the cost a tensor, not that of its elements.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from aggregation.codecs import encode_delta
from aggregation.fold.admission import admit
from aggregation.fold.events import Update
from aggregation.fold.state import initial
from aggregation.fold.transition import fold_into
from aggregation.layout import Layout
from aggregation.optimizers import initial_state
from aggregation.policy import policy_from_mapping
from aggregation.server.merge import Checkpoint, merge
from benchmarks import machine
from schemas import avro
from schemas.checkpoints import decode_model, encode_model

TENSORS = (1_000, 5_000, 20_000)
SHAPE = (2, 3)
WEIGHT_ONE = 1 << 16
REPETITIONS = 5


def stages(tensors: int) -> dict[str, float]:
    """Milliseconds of each stage for a model of so many tensors."""
    took: dict[str, float] = {}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = action()
        took[name] = 1000 * (time.perf_counter() - begin)
        return result

    rng = np.random.default_rng(1)
    names = [(f"block.{number}.weight", SHAPE) for number in range(tensors)]
    layout = timed("layout", lambda: Layout.of(names))
    policy = policy_from_mapping({"defence": {"kind": "none"}, "updates": {"norm_max": 1e6}})
    model, delta = (rng.normal(size=layout.parameters).astype(np.float32) for _ in range(2))
    encoded = timed("encode_delta", lambda: encode_delta(delta, layout, "int8", rng))
    record = {
        "task": "t", "region": "eu", "device_id": "d", "base_version": 0, "base_sha256": "00", "update_id": "u",
        "num_examples": 1, "local_loss": 0.0, "codec": "int8", "client_metrics": {}, "created_at": 0,
        "tensors": [{"name": t.name, "shape": list(t.shape), "scale": t.scale, "data": t.data} for t in encoded],
    }  # fmt: skip
    data = timed("avro_encode", lambda: avro.encode("ClientUpdate", record))
    timed("avro_decode", lambda: avro.decode(data))
    update = Update(
        task="t", region="eu", device_id="d", certificate_serial="1", base_version=0, base_sha256="00", update_id="u",
        num_examples=1, codec="int8", names=layout.names, shapes=layout.shapes, signature=bytes(64),
        scales=tuple(t.scale for t in encoded), data=tuple(t.data for t in encoded),
    )  # fmt: skip
    state = initial(
        task="t", region="eu", partition=0, partitions=1, layout=layout, policy=policy, model_sha256="00"
    )
    timed("admit", lambda: admit(state, update))
    timed("fold", lambda: fold_into(state, 0, update))
    parent = Checkpoint(model, initial_state(policy.server, layout.parameters))
    sums = state.window.sums
    assert sums is not None
    step = timed(
        "merge",
        lambda: merge(
            parent,
            sums,
            updates=1,
            weight_total=WEIGHT_ONE,
            policy=policy,
            server=policy.server,
            layout=layout,
        ),
    )
    file = timed("encode_model", lambda: encode_model(step.checkpoint.model, layout))
    timed("decode_model", lambda: decode_model(file, layout))
    return took


def best(tensors: int) -> dict[str, float]:
    """The least milliseconds of each stage over several repetitions."""
    repeated = [stages(tensors) for _ in range(REPETITIONS)]
    return {stage: min(one[stage] for one in repeated) for stage in repeated[0]}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    stages(10)  # compiles and loads
    figures = {str(tensors): best(tensors) for tensors in TENSORS}
    if options.json:
        print(json.dumps({"machine": machine.describe(), "milliseconds": figures}, indent=2))
        return
    print(machine.describe())
    print("stage, ms" + "".join(f"{tensors:>12}" for tensors in figures) + "   us a tensor, first and last")
    for stage in figures[str(TENSORS[0])]:
        row = [figures[str(tensors)][stage] for tensors in TENSORS]
        each = f"{1000 * row[0] / TENSORS[0]:9.2f}{1000 * row[-1] / TENSORS[-1]:9.2f}"
        print(f"{stage:<14}" + "".join(f"{one:>11.2f}" for one in row) + each)


if __name__ == "__main__":
    main()
