"""A model as ONNX, written with the real packages, computes in ONNX Runtime what its module does in torch."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backends.environment import child_environment
from tests.other_environments import python_with

ROOT = Path(__file__).parents[2]
PACKAGES = ("onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.32.0")
PROGRAM = """
import sys
import numpy as np, onnx, onnxruntime, torch
from torch import nn
from aggregation.errors import UsageProblem
from learning.kinds.torch_exports import onnx_file

torch.manual_seed(0)
dense = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 2)).eval()
tokens = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
for net, x in (
    (dense, np.random.rand(5, 4).astype("f")),
    (images, np.random.rand(5, 1, 8, 8).astype("f")),
    (tokens, np.arange(15).reshape(5, 3) % 10),
):
    data = onnx_file(net, x[:1], {"fluvial.task": "own", "fluvial.version": "7"})
    assert {one.key: one.value for one in onnx.load_from_string(data).metadata_props}["fluvial.version"] == "7"
    session = onnxruntime.InferenceSession(data)
    (name,) = [one.name for one in session.get_inputs()]
    found = session.run(None, {name: x})[0]
    np.testing.assert_allclose(found, net(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=1e-5)

class Odd(nn.Module):
    def forward(self, x):
        return torch.from_numpy(np.sort(x.numpy()))

try:
    onnx_file(Odd(), np.ones((2, 2), "f"), {})
except UsageProblem as problem:
    assert problem.error_id == "FLV-4115", problem
else:
    sys.exit("what cannot be exported was exported")
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_onnx_file_computes_what_its_module_does() -> None:
    done = subprocess.run(
        [python_with("ONNX", *PACKAGES), "-c", PROGRAM],
        env=child_environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
