"""Makes pretrained.safetensors, from which pretrained.py starts: a network that has seen the digits 0 to 4 only.

python pretrain.py
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import fluvial

task = fluvial.load_task(str(Path(__file__).with_name("pretrained.py")))
data = task.data().train
few = data.subset(np.flatnonzero(data.y < 5))
torch.manual_seed(0)
model = task.model()
for version in range(10):
    print(
        fluvial.fit(
            model, few, fluvial.TrainConfig(epochs=2, batch_size=16, learning_rate=0.1, version=version)
        )
    )
save_file({name: value.contiguous() for name, value in model.state_dict().items()}, "pretrained.safetensors")
