"""Which extra of the package brings what: for errors that say what to install. ``pyproject.toml`` holds the lists."""

from __future__ import annotations

from typing import Final

MODULES: Final = {
    "device": (
        "aiokafka", "boto3", "confluent_kafka", "cramjam", "cryptography", "fastavro", "google_crc32c", "minio",
        "numpy", "psutil", "rfc8785", "safetensors", "tenacity", "urllib3",
    ),
    "worker": ("faust", "mode", "numba", "opentelemetry", "prometheus_client"),
    "learning": ("torch", "sklearn"),
    "console": ("aiohttp", "markdown_it"),
    "all": ("jinja2", "matplotlib", "pyarrow"),
    "tracking": ("mlflow", "tensorboard"),
    "pkcs11": ("pkcs11",),
    "flower": ("flwr",),
    "onnx": ("onnx", "onnxscript"),
}  # fmt: skip
"""The modules that an extra adds to those of the extras before it."""

EXTRAS_OF_COMMANDS: Final = {
    "demo": "all",
    "run": "all",
    "up": "worker",
    "down": "worker",
    "doctor": "worker",
    "config": "worker",
    "task": "worker,learning",
    "ca": "device",
    "revoke": "device",
    "park": "worker",
    "pardon": "worker",
    "worker": "worker",
    "merger": "worker",
    "edge": "worker",
    "evaluator": "worker,learning",
    "guardian": "worker,learning",
    "fleet": "worker,learning",
    "device": "worker,learning",
    "status": "worker",
    "model": "device",
    "versions": "worker",
    "lineage": "worker",
    "verdicts": "worker",
    "devices": "worker",
    "arena": "all",
    "simulate": "all",
    "compare": "all",
    "logs": "device",
    "tap": "device",
    "parquet": "all",
    "track": "worker,tracking",
    "inspect": "worker",
    "audit": "worker",
    "canary": "worker",
    "console": "console",
    "chaos": "all",
}
"""What a command needs to do all that it can; ``new`` and ``completion`` need none."""

OF_OPTIONS: Final = frozenset({"pkcs11", "flower", "onnx"})
"""Extras that no command needs, but what one may be asked for."""


def extra_with(module: str | None) -> str | None:
    """The extra that brings a module; None for one that none of them brings."""
    top = (module or "").partition(".")[0]
    return next((extra for extra, modules in MODULES.items() if top in modules), None)
