"""What the figures were measured on."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil


def describe() -> str:
    """Processor, cores, memory, kernel and Python, in one line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next(
            (
                line.partition(":")[2].strip()
                for line in info.read_text().splitlines()
                if line.startswith("model name")
            ),
            model,
        )
    memory_gib = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release()}"
    return f"{model}, {psutil.cpu_count()} cores, {memory_gib:.0f} GiB, {system}, Python {platform.python_version()}"
