"""How much memory processes take while something goes on, and whether it stays flat."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from statistics import median
from typing import Final, Self

import psutil

from backends.kafka.faust.bounded_batches import BATCH_UNPACKED_BYTES_MAX

SAMPLE_EVERY_S: Final = 0.2
MARGIN_BYTES: Final = 128 << 20
"""Flat: the median of the last third is at most that of the first, and this much more.

A run of seconds is still warming up in its first third, on a busy machine by some 90 MB; one of 100,000 records grows
by 7 MB from its second third to its last.
"""
PEAK_BYTES_MAX: Final = 2 * BATCH_UNPACKED_BYTES_MAX
"""No sample is further above its third's median: while a bomb is looked at, as much as one may unpack to is mapped."""
SAMPLES_MIN: Final = 9


class MemorySamples:
    """Samples the memory of some processes, by name, as long as its ``with`` block lasts.

    It is what each has for itself: of libraries and of what it was forked with, more is counted as it is touched.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
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
        """Which processes are not flat."""
        found = []
        for name in self._samples:
            thirds = self.thirds(name)
            first, last = thirds[0][0], thirds[-1][0]
            if last > first + MARGIN_BYTES:
                found.append(f"{name} grew from {first / 1e6:.0f} to {last / 1e6:.0f} MB")
            for middle, most in thirds:
                if most > middle + PEAK_BYTES_MAX:
                    found.append(f"{name} peaked at {most / 1e6:.0f} MB, beside {middle / 1e6:.0f} MB")
        return found
