"""Random state for a while: every global generator a task may use is seeded, then put back."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch

# Torch's, numpy's and Python's default generators belong to the whole process, so two threads that draw from
# them at once would not be repeatable. Whoever needs real parallel training runs processes.
_ONE_AT_A_TIME: Final = threading.RLock()


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Seed torch, numpy and random from ``entropy`` (integers ≥ 0); restore all three on leaving.

    Threads take turns. Everything inside runs on one CPU thread of torch and with deterministic algorithms.
    """
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    with _ONE_AT_A_TIME:
        numpy_state, python_state = np.random.get_state(), random.getstate()
        threads, deterministic = torch.get_num_threads(), torch.get_deterministic_debug_mode()
        torch.set_num_threads(1)
        torch.set_deterministic_debug_mode(
            "error"
        )  # use_deterministic_algorithms() would load the compiler: seconds
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                np.random.seed(seed)
                random.seed(seed)
                yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            torch.set_deterministic_debug_mode(deterministic)
            torch.set_num_threads(threads)
