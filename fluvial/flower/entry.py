"""What Flower's interpreter is started with, by this file's path: that interpreter need not have Fluvial.

The modules beside this one become a package of another name there, which imports nothing else of Fluvial's.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":
    folder = str(Path(__file__).resolve().parent)
    sys.path[:] = [place for place in sys.path if str(Path(place).resolve()) != folder]
    package = ModuleType("fluvial_flower_host")
    package.__path__ = [folder]
    sys.modules[package.__name__] = package
    importlib.import_module(f"{package.__name__}.host").main()
