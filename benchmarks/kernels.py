"""The fold's inner loops, beside numpy in the same run.

    python benchmarks/kernels.py [--parameters 100000] [--json]

* one int8 update: accumulate alone; measure + accumulate; decode + verify + fold, as a worker does it;
* FedAvg of 10 float32 models of 10M parameters: our exact fixed-point sum, beside ``numpy.mean`` over the same arrays.

Each figure is the median of several repetitions; ratios are of medians taken in turn in one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from aggregation import codecs
from aggregation.codecs import kernels
from aggregation.fold.contributions import Contributions
from aggregation.fold.rules import TASK_RULES
from aggregation.fold.state import PartitionState, initial
from aggregation.fold.transition import fold_into
from aggregation.policy import policy_from_mapping
from aggregation.server.averaging import exact_mean
from backends.keys import authority_path, certificate_pem, create_authority, issue, load_key_pair
from benchmarks import machine, synthetic
from schemas.certificates import CONTROL, Role, Trust
from schemas.envelope import Signer
from schemas.records import decode_record
from schemas.signing import SignatureDomain

REPETITIONS = 7
FEDAVG_MODELS = 10
FEDAVG_PARAMETERS = 10_000_000


def median_s(action: Callable[[], object], repetitions: int = REPETITIONS) -> float:
    """Median seconds of ``action`` after one warm-up."""
    action()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def one_update(parameters: int) -> dict[str, float]:
    """Microseconds for one int8 update of ``parameters`` parameters."""
    layout = synthetic.layout_of(parameters)
    tensors = synthetic.tensors_of(layout, 1)
    delta = codecs.view_delta(
        "int8", [t["data"] for t in tensors], tuple(t["scale"] for t in tensors), layout
    )
    sums = np.zeros(layout.parameters, dtype=np.int64)
    coefficients = np.full(len(tensors), 400_000, dtype=np.int64)

    def accumulate() -> None:
        for _ in range(100):
            kernels.accumulate_int8_into(sums, delta.flat, layout.starts, coefficients)

    def numpy_accumulate() -> None:
        for _ in range(100):
            np.add(sums, delta.flat * np.int64(400_000), out=sums)

    def measure() -> None:
        for _ in range(100):
            measured = codecs.measure(delta, layout)
            codecs.accumulate_into(sums, delta, measured, layout, weight=1.0, clip=1.0, exponent=32)

    ours, numpys = median_s(accumulate) * 1e4, median_s(numpy_accumulate) * 1e4
    return {
        "accumulate_us": ours,
        "numpy_accumulate_us": numpys,
        "numpy_over_ours": numpys / ours,
        "measure_and_accumulate_us": median_s(measure) * 1e4,
        "decode_verify_fold_us": _whole_fold_us(parameters),
    }


DOMAIN: Final = SignatureDomain.of(TASK_RULES, "00" * 32)
"""Of a task whose genesis nobody has written."""


def _whole_fold_us(parameters: int, devices: int = 100) -> float:
    """Bytes to verdict: envelope, certificate (cached), signature, payload, admission, sums."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder)
        for region in ("eu", CONTROL):
            create_authority(keys, region)
        signers = {
            f"d-{i}": load_key_pair(issue(keys, "eu", Role.DEVICE, f"d-{i}")).of_task(DOMAIN)
            for i in range(devices)
        }
        trust = Trust.from_pem(
            {region: certificate_pem(authority_path(keys, region)) for region in ("eu", CONTROL)},
            TASK_RULES,
            DOMAIN,
        )
    layout = synthetic.layout_of(parameters)
    tensors = synthetic.tensors_of(layout, 1)
    records = [_signed(signer, name, tensors) for name, signer in signers.items()]
    policy = policy_from_mapping({"window": {"updates_max": 100_000, "records_max": 1_000_000}})
    now_ms = round(time.time() * 1000)
    state: PartitionState = initial(
        task="t", region="eu", partition=0, partitions=1, layout=layout, policy=policy, model_sha256="00"
    )

    def fold_all() -> None:
        state.counted = Contributions()
        for value in records:
            event = decode_record(value, now_ms, trust, policy)
            fold_into(state, state.next_offset, event)

    return median_s(fold_all) / devices * 1e6


def _signed(signer: Signer, device: str, tensors: list[dict[str, object]]) -> bytes:
    record = {
        "task": "t", "region": "eu", "device_id": device, "base_version": 0, "base_sha256": "00", "update_id": "",
        "num_examples": 1, "local_loss": 0.0, "codec": "int8", "tensors": tensors, "client_metrics": {},
        "created_at": 0,
    }  # fmt: skip
    return signer.sign("ClientUpdate", record)


def fedavg(models: int = FEDAVG_MODELS, parameters: int = FEDAVG_PARAMETERS) -> dict[str, float]:
    """Milliseconds to average ``models`` float32 models of ``parameters`` parameters."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(parameters, dtype=np.float32) for _ in range(models)]

    def ours() -> np.ndarray:
        return exact_mean(arrays, 32)

    def numpys() -> np.ndarray:
        total = np.zeros(parameters, dtype=np.float64)
        for array in arrays:
            total += array
        return (total / models).astype(np.float32)

    def numpy_float32() -> np.ndarray:
        total = np.zeros(parameters, dtype=np.float32)
        for array in arrays:
            total += array
        return total / np.float32(models)

    worst = float(np.max(np.abs(ours() - numpys())))
    ours_s, double_s, single_s = (median_s(action, 3) for action in (ours, numpys, numpy_float32))
    return {
        "ours_ms": ours_s * 1000,
        "numpy_float64_ms": double_s * 1000,
        "numpy_float32_ms": single_s * 1000,
        "numpy_float64_over_ours": double_s / ours_s,
        "numpy_float32_over_ours": single_s / ours_s,
        "largest_difference": worst,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parameters", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    update, average = one_update(options.parameters), fedavg()
    if options.json:
        print(json.dumps({"machine": machine.describe(), "update": update, "fedavg": average}, indent=2))
        return
    print(machine.describe())
    print(f"one int8 update of {options.parameters} parameters")
    for name, value in update.items():
        print(f"  {name:28s} {value:10.2f}")
    print(f"FedAvg of {FEDAVG_MODELS} float32 models of {FEDAVG_PARAMETERS} parameters")
    for name, value in average.items():
        print(f"  {name:28s} {value:10.3g}")


if __name__ == "__main__":
    main()
