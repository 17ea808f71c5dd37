"""Random state for a while: every global generator a task may use is seeded, then put back.

Torch's counts as soon as somebody has imported it: models of other libraries do without.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import numpy as np

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
        try:
            with ExitStack() as stack:
                torch = sys.modules.get("torch")
                if torch is not None:
                    stack.enter_context(_torch_seeded(torch, seed))
                np.random.seed(seed)
                random.seed(seed)
                yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@contextmanager
def _torch_seeded(torch: Any, seed: int) -> Iterator[None]:
    """Torch's generator and its settings for all of the process; whatever is set inside is undone on leaving."""
    threads, deterministic = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode(
        "error"
    )  # use_deterministic_algorithms() would load the compiler: seconds
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
        torch.set_deterministic_debug_mode(deterministic)
        torch.set_num_threads(threads)
