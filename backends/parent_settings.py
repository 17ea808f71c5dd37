"""An edge's second connection: the Kafka of the log above it, said by variables of its own.

``FLUVIAL_PARENT_BOOTSTRAP_SERVERS`` and ``FLUVIAL_PARENT_KAFKA_*`` are to the Kafka above what the same names without
``PARENT_`` are to the edge's own. Without the first, both are one Kafka.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from backends.environment import child_environment, load_settings
from backends.variables import PARENT, PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.settings import Settings

ADDRESS: Final = f"{PARENT}BOOTSTRAP_SERVERS"
_OWN: Final = (f"{PREFIX}BOOTSTRAP_SERVERS", f"{PREFIX}KAFKA_")


def load_parent_settings(
    home: Path | str | None = None, environ: Mapping[str, str] | None = None, *, address: str = ""
) -> Settings:
    """The settings with which an edge reaches the log above; ``address`` in the place of the variable's.

    Raises what ``load_settings`` raises; an error names the variable without ``PARENT_``.
    """
    environ = child_environment() if environ is None else environ
    there = address or environ.get(ADDRESS, "")
    if not there:
        return load_settings(home, environ, role="worker")
    above = {name: value for name, value in environ.items() if not name.startswith(_OWN)}
    for name, value in environ.items():
        if name.startswith(PARENT):
            above[PREFIX + name.removeprefix(PARENT)] = value
    return load_settings(home, above | {_OWN[0]: there}, role="worker")
