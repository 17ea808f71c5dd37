"""Which trackers there are, by the name that the command line takes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from aggregation.errors import UsageProblem
from fluvial.extras import extra_with

if TYPE_CHECKING:
    from fluvial.tracking.tracker import Tracker

TRACKERS: Final = {
    "mlflow": "fluvial.tracking.mlflow_runs:MLflowRuns",
    "tensorboard": "fluvial.tracking.tensorboard_files:TensorBoardFiles",
}


def open_tracker(named: str) -> Tracker:
    """The tracker that ``named`` says: ``mlflow``, ``mlflow=http://HOST:PORT``, ``tensorboard=DIR``, ``mine.py:Name``.

    Of one's own it is a class, or a function that returns one, in a file or an importable module; called without
    arguments. Raises UsageProblem: FLV-7061, there is no such one, its package is missing, or it has no ``on_version``.
    """
    name, _, address = named.partition("=")
    try:
        if name in TRACKERS:
            module, _, attribute = TRACKERS[name].partition(":")
            made = getattr(importlib.import_module(module), attribute)(address)
        else:
            made = _own(named)
    except ModuleNotFoundError as error:
        extra = extra_with(error.name)
        raise UsageProblem(
            "FLV-7061",
            f"the tracker {name} needs the package {error.name}, which is not installed",
            hint=f"pip install 'fluvial[{extra}]'" if extra else f"pip install {error.name}",
        ) from error
    if not callable(getattr(made, "on_version", None)):
        raise UsageProblem(
            "FLV-7061",
            f"{named} makes a {type(made).__name__}, which has no on_version",
            hint="a tracker has a method on_version(version): see docs/analysts.md",
        )
    return cast("Tracker", made)


def _own(named: str) -> object:
    place, _, attribute = named.rpartition(":")
    if not place or not attribute.isidentifier():
        raise UsageProblem(
            "FLV-7061",
            f"no tracker {named!r}; there are {', '.join(TRACKERS)}",
            hint="one of your own is named by its file: `--to mine.py:Name`",
        )
    if place.endswith(".py"):
        from learning.userfile import import_users

        path = Path(place)
        if not path.is_file():
            raise UsageProblem("FLV-7061", f"no file {place}", hint="a tracker is named as FILE.py:NAME")
        module = import_users(path, path.read_bytes())
    else:
        module = importlib.import_module(place)
    make = getattr(module, attribute, None)
    if not callable(make):
        raise UsageProblem(
            "FLV-7061",
            f"{place} has nothing callable named {attribute}",
            hint="name the class or function that makes the tracker, as FILE.py:NAME",
        )
    return make()
