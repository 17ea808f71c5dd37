"""The real ``datasets`` of Hugging Face as a task's data: with formats, transforms and images, in its environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backends.environment import child_environment
from tests.other_environments import python_with

ROOT = Path(__file__).parents[2]
PROGRAM = """
import numpy as np
from datasets import Dataset, Features, Image, Value
from learning.datasets import Dataset as Ours, Examples

x = np.random.default_rng(0).integers(0, 255, size=(2500, 4, 4), dtype=np.uint8)
y = np.arange(2500) % 3
rows = Dataset.from_dict({"pixels": x.tolist(), "label": y.tolist()})

def scaled(batch):
    return {"img": [np.asarray(one, np.float32) / 255 for one in batch["pixels"]], "label": batch["label"]}

for source, factor in (
    (rows, 1), (rows.with_format("numpy"), 1), (rows.with_format("torch"), 1), (rows.with_transform(scaled), 255),
    (rows.to_iterable_dataset(), 1),
):
    examples = Examples.of(source)
    np.testing.assert_allclose(examples.x * factor, x, rtol=1e-5)
    assert examples.y.tolist() == y.tolist()

from PIL import Image as Picture
images = Dataset.from_dict(
    {"image": [Picture.fromarray(one) for one in x[:9]], "writer": list("abcdefghi"), "label": y[:9]},
    features=Features({"image": Image(), "writer": Value("string"), "label": Value("int64")}),
)
part = Examples.of(images, x="image")
np.testing.assert_array_equal(part.x, x[:9])
data = Ours(train=rows, test=rows.select(range(5)))
assert (len(data.train), len(data.test)) == (2500, 5)
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_data_set_of_hugging_face_is_a_tasks_data() -> None:
    done = subprocess.run(
        [python_with("Hugging Face", "datasets==5.2.0", "pillow"), "-c", PROGRAM],
        env=child_environment({"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
