"""What Flower's interpreter is started with, by this file's path: that interpreter need not have Fluvial.

The modules beside this one are found as ``fluvial.flower``, without Fluvial around them. Once they are loaded the name
is free again: an app may import a Fluvial that its environment has.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != folder]
    around = ModuleType("fluvial")
    around.__path__ = [str(folder.parent)]
    sys.modules["fluvial"] = around
    main = importlib.import_module("fluvial.flower.host").main
    for name in [name for name in sys.modules if name.partition(".")[0] == "fluvial"]:
        del sys.modules[name]
    main()
