"""``--policy``: a TOML file, or the name of a policy that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from fluvial.local.resources import infra_file

SHIPPED: Final = ("fedbuff", "fedavg", "fedasync", "fedavgm", "fedadam", "fadas", "scaffold")
"""Names of ``infra/policies``; docs/learning.md says what each is."""


class PolicyFile(click.ParamType):
    """A policy's file: one that is there, or a shipped one by its name."""

    name = "file|name"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path of a file that exists."""
        path = Path(value)
        if path.is_file():
            return path
        if str(value) not in SHIPPED:
            known = ", ".join(SHIPPED)
            self.fail(f"{str(value)!r} is no file, and no policy that ships: these are {known}", param, ctx)
        return shipped_policy(str(value))


def shipped_policy(name: str) -> Path:
    """The file of a policy that ships."""
    return infra_file(f"policies/{name}.toml")


def named(path: Path | None) -> str:
    """How a command line names a policy: by its name where it ships, else by its path; "" for none."""
    if path is None:
        return ""
    ships = path.stem in SHIPPED and path == shipped_policy(path.stem)
    return path.stem if ships else str(path)


policy_option = click.option(
    "--policy",
    type=PolicyFile(),
    metavar="FILE|NAME",
    help="Policy: a TOML file (docs/policy.md), or one that ships: "
    f"{', '.join(SHIPPED)}. It goes before the task file's POLICY.",
)
