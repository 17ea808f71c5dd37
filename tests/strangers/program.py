"""The Go program, built once a run of its tests."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
SCHEMAS: Final = HERE.parents[1] / "schemas"
BUILD_LIMIT_S: Final = 300.0
RUN_LIMIT_S: Final = 60.0

Stranger = Callable[..., Any]


def built(folder: Path) -> Stranger:
    """Runs the program; what it prints, read as JSON."""
    program = folder / "stranger"
    # As MinIO is built: then Go has compiled most of its library already.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"}  # noqa: TID251
    build = ["go", "build", "-o", str(program), "."]
    subprocess.run(build, cwd=HERE / "go", env=environment, check=True, timeout=BUILD_LIMIT_S)

    def run(*arguments: object, told: object = None) -> Any:
        done = subprocess.run(
            [str(program), *map(str, arguments)],
            input=json.dumps(told),
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
