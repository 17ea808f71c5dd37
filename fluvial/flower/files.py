"""The task file of a Flower app: what ``fluvial run --flower`` writes beside the app, once, for its user to keep.

What Flower's ``pyproject.toml`` says of an app (its ClientApp, its ServerApp, ``context.run_config``) is written into
the file, since a task carries its program and no other file.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aggregation.errors import EnvironmentProblem, UsageProblem
from fluvial.flower.app import check_reference

DEVICES: Final = 10
"""As many nodes as Flower simulates, unless told."""
PROJECT: Final = "pyproject.toml"
_DEVICES: Final = re.compile(r"^    devices=(\d+),$", re.MULTILINE)
_TEMPLATE: Final = '''\
"""A Flower app as a Fluvial task. `fluvial run --flower` wrote this file: it is yours to edit."""

from typing import TYPE_CHECKING

import fluvial

if TYPE_CHECKING:  # so that these files travel with the task; what imports them is Flower's interpreter
{imports}

APP = fluvial.FlowerApp(
    client={client},
    server={server},
    folder=__file__,
    devices={devices},
    run_config={run_config},
)
model, train, evaluate = APP.model, APP.train, APP.evaluate
data, local_data = APP.data, APP.local_data
'''


@dataclass(frozen=True, slots=True)
class AppPlace:
    """Where an app is and what its project says: ``module:attribute`` of client and server ("" for none)."""

    folder: Path
    client: str
    server: str
    run_config: dict[str, Any]

    def task_file(self) -> Path:
        """The file that makes a task of it."""
        package = re.sub(r"[^a-z0-9_]+", "_", self.client.partition(":")[0].partition(".")[0].lower())
        return self.folder / f"flower_{package}.py"

    def text(self, devices: int) -> str:
        """What stands in it."""
        modules = {reference.partition(":")[0] for reference in (self.client, self.server) if reference}
        return _TEMPLATE.format(
            imports="\n".join(f"    import {module}  # noqa: F401" for module in sorted(modules)),
            client=_written(self.client),
            server=_written(self.server),
            devices=devices,
            run_config=_written(self.run_config),
        )


def find_app(flower: str, server: str = "") -> AppPlace:
    """The app that ``flower`` names: a folder with Flower's pyproject.toml, or ``module:attribute``, from this folder.

    server: of a ServerApp, over what the project says. Raises UsageProblem FLV-2261.
    """
    folder = Path(flower) if Path(flower).is_dir() else Path()
    project = _project(folder / PROJECT)
    components = project.get("components", {})
    client = str(components.get("clientapp", "")) if Path(flower).is_dir() else flower
    if not client:
        raise UsageProblem(
            "FLV-2261",
            f"{folder / PROJECT} names no ClientApp of Flower's",
            hint="name it: `--flower package.client_app:app`, or [tool.flwr.app.components] clientapp = in that file",
        )
    server = server or str(components.get("serverapp", ""))
    for reference in [client, *([server] if server else [])]:
        check_reference(reference)
    return AppPlace(folder.resolve(), client, server, _flat(project.get("config", {})))


def write_task_of(app: AppPlace, devices: int | None) -> tuple[Path, bool]:
    """The task file, and whether it was written now; one that stands and says the same is as it was.

    Raises UsageProblem FLV-2264: one stands there and says something else; EnvironmentProblem FLV-2215: it cannot be
    written.
    """
    path = app.task_file()
    try:
        there = path.read_text(encoding="utf-8") if path.exists() else None
        if there is None:
            path.write_text(app.text(devices or DEVICES), encoding="utf-8")
            return path, True
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-2215", f"cannot write {path}: {error.strerror or error}", hint=f"ls -ld {path.parent}"
        ) from error
    noted = _DEVICES.search(there)
    if there != app.text(devices or int(noted[1] if noted else DEVICES)):
        raise UsageProblem(
            "FLV-2264",
            f"{path.name} is there, and says something else than the app and the options do now",
            where=str(path),
            hint=f"`fluvial run {path.name}` runs it as it is; move it away, and it is written anew",
        )
    return path, False


def _written(value: object) -> str:
    """A value of TOML as Python writes it, a table with a line for each key."""
    if isinstance(value, dict):
        lines = [f"        {_written(key)}: {_written(one)},\n" for key, one in value.items()]
        return "{\n" + "".join(lines) + "    }" if lines else "{}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _project(path: Path) -> dict[str, Any]:
    """``[tool.flwr.app]`` of Flower's pyproject.toml; empty where there is none."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(
            "FLV-2261", f"{path} cannot be read: {error}", hint="mend that file, as Flower would want it"
        ) from error
    found: Any = document
    for key in ("tool", "flwr", "app"):
        found = found.get(key, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """As Flower hands tables within tables to an app: ``{"a": {"b": 1}}`` is ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
