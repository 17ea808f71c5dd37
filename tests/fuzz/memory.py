"""How much memory processes take while something goes on, and whether it stays flat."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from statistics import median
from typing import Final, Self

import psutil

SAMPLE_EVERY_S: Final = 0.2
SAMPLES_MIN: Final = 9
THIRD_MIN_S: Final = 30.0
"""Shorter thirds say nothing of growth: what is held for a moment, one bomb after another, is more than any leak."""
GROWTH_BYTES_MAX: Final = 64 << 20
"""Flat: the last third's median is at most so far above the second's; the first is for warming up.

100,000 records: 236, 270, 277 MB.
"""


class MemorySamples:
    """Samples the memory of some processes, by name, as long as its ``with`` block lasts.

    It is what each has for itself: of libraries and of what it was forked with, more is counted as it is touched.
    ``held_bytes_max`` is how much more than at the start one may hold at any time.
    """

    def __init__(self, pids: Mapping[str, int], held_bytes_max: int) -> None:
        self._held_bytes_max = held_bytes_max
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._samples: dict[str, list[int]] = {name: [] for name in pids}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            for name, process in list(self._processes.items()):
                try:
                    self._samples[name].append(process.memory_full_info().uss)
                except psutil.NoSuchProcess:
                    del self._processes[name]  # whoever watches the processes says so

    def thirds(self, name: str) -> list[tuple[float, int]]:
        """(median, most) in each third of the time, in bytes."""
        samples = self._samples[name]
        assert len(samples) >= SAMPLES_MIN, f"{len(samples)} samples of {name} are too few"
        third = len(samples) // 3
        parts = samples[:third], samples[third:-third], samples[-third:]
        return [(median(part), max(part)) for part in parts]

    def summary(self) -> dict[str, dict[str, float]]:
        """Median and most in each third, in MB, by process."""
        return {
            name: {
                f"{part}_third_{what}_mb": round(value / 1e6, 1)
                for part, values in zip(("first", "second", "last"), self.thirds(name), strict=True)
                for what, value in zip(("median", "most"), values, strict=True)
            }
            for name in self._samples
        }

    def findings(self) -> list[str]:
        """Which processes took more than they may hold, or in a long run were not flat."""
        found = []
        for name, samples in self._samples.items():
            start, most = samples[0], max(samples)
            if most > start + self._held_bytes_max:
                found.append(f"{name} peaked at {most / 1e6:.0f} MB, it started with {start / 1e6:.0f} MB")
            _, (second, _), (last, _) = self.thirds(name)
            long = len(samples) * SAMPLE_EVERY_S >= 3 * THIRD_MIN_S
            if long and last > second + GROWTH_BYTES_MAX:
                found.append(f"{name} grew from {second / 1e6:.0f} to {last / 1e6:.0f} MB")
        return found
