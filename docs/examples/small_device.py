"""A device of one's own in fifteen lines: its examples, its training, one update.

python docs/examples/small_device.py KEY TASK REGION
"""

import sys

import numpy as np

from fluvial import Device

key, task, region = sys.argv[1:4]
with Device.open(task=task, region=region, key=key) as device:
    base = device.fetch()
    arrays = {name: array.copy() for name, array in device.arrays(base).items()}
    for array in arrays.values():  # your training, in any framework
        array += np.random.default_rng().normal(scale=0.001, size=array.shape).astype(np.float32)
    receipt = device.publish(base, device.contribution(base, arrays, num_examples=100, loss=2.3))
    print(device.verdict(receipt).outcome)
