"""``fluvial new NAME``: write a working task file to edit. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aggregation.errors import EnvironmentProblem, UsageProblem
from learning.names import check_task_name

_TEMPLATE: Final = Path(__file__).parent / "templates" / "task.py.tmpl"
_SHIPPED_FOLDER: Final = Path(__file__).parent / "tasks"


def write_task(name: str, directory: Path) -> Path:
    """Write ``directory``/``name``.py and return its path; an existing file is never touched.

    Raises UsageProblem FLV-2201 for a bad name, FLV-2211 for a shipped task's name, FLV-2210 if the file
    exists; EnvironmentProblem FLV-2215 if the folder cannot be written.
    """
    check_task_name(name)
    if (_SHIPPED_FOLDER / f"{name}.py").is_file():
        raise UsageProblem(
            "FLV-2211",
            f"{name!r} is the name of a shipped task; yours needs another",
            hint=f"fluvial new my-{name}",
        )
    path = directory / f"{name}.py"
    text = _TEMPLATE.read_text(encoding="utf-8").replace("{{name}}", name).replace("{{file}}", path.name)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageProblem(
            "FLV-2210",
            f"{path} exists already and was left as it is",
            hint=f"fluvial new {name[:46]}-2, or move the file away first",
        ) from error
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-2215",
            f"cannot write {path}: {error.strerror or error}",
            hint=f"mkdir -p {directory}" if not directory.is_dir() else f"ls -ld {directory}",
        ) from error
    return path
