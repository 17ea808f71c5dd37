"""A device needs no compiler, no torch and no stream processor: neither to import what is for it, nor to work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
PROGRAM = """
import sys

absent = ("numba", "llvmlite", "torch", "faust", "sklearn", "pyarrow", "psutil", "scipy")
sys.modules.update(dict.fromkeys(absent))  # an import of any of them raises

import importlib
import pkgutil

import numpy as np

import producers.sdk
from fluvial import Contribution, Device

for module in pkgutil.iter_modules(producers.sdk.__path__):
    importlib.import_module(f"producers.sdk.{module.name}")

from aggregation.codecs import CODECS, update_of
from producers.sdk.bases import Base, arrays_of, flat_of
from producers.sdk.updates import honest_record, seal_update
from schemas.checkpoints import decode_model, encode_model
from tests import factories
from tests.unit.producers.sdk.test_device_updates import author

layout = factories.LAYOUT
model = decode_model(encode_model(factories.delta(1), layout), layout)
base = Base(4, factories.model_sha(4), model, factories.policy())
trained = {name: array + 0.1 for name, array in arrays_of(model, layout).items()}
outcome = Contribution(update_of(flat_of(trained, layout), model, layout), 10, 0.5)
for codec in CODECS:
    record = honest_record(author(), base, layout, codec=codec, outcome=outcome, created_at_ms=1)
    print(codec, len(record["tensors"]) == len(layout.tensors), len(seal_update(author(), record)) > 100)
"""


def test_a_device_works_where_nothing_heavy_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["int8 True True", "float32 True True", "int4 True True"]
