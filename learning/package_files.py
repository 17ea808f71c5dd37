"""Files of data in other packages' wheels, read without importing the package, which may take seconds."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Final

from aggregation.errors import EnvironmentProblem

_PIP_NAMES: Final = {"sklearn": "scikit-learn"}


def text_of(package: str, path: str, data_set: str) -> str:
    """The text of a file of an installed package, unpacked where it ends in ``.gz``; ``path`` is within the package.

    Raises EnvironmentProblem FLV-2206 where it is not there; ``data_set`` is what was asked for.
    """
    found = importlib.util.find_spec(package)
    folders = list(found.submodule_search_locations or []) if found is not None else []
    for folder in folders:
        file = Path(folder) / path
        if file.is_file():
            if file.suffix == ".gz":
                return gzip.decompress(file.read_bytes()).decode("utf-8")
            return file.read_text(encoding="utf-8")
    name = _PIP_NAMES.get(package, package)
    raise EnvironmentProblem(
        "FLV-2206",
        f"the {data_set} data set is not on this machine: {name}, which carries it, was not found",
        hint=f"pip install {name}",
    )
