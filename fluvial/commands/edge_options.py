"""Options of commands that read edges' logs: where those are, and whether each has to be read."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backends.settings import Settings
    from fluvial.proof.audit.edges import EdgesAsked


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """Addresses by edge, and whether an edge that is not walked is a finding."""

    addresses: Mapping[str, str]
    required: bool

    def asked(self, settings: Settings) -> EdgesAsked:
        """As the audit wants it: an edge's Kafka is got into as the own one is."""
        from fluvial.proof.audit.edges import EdgesAsked
        from fluvial.proof.audit.sources import sources_of

        there = {
            edge: partial(sources_of, msgspec.structs.replace(settings, bootstrap_servers=address))
            for edge, address in self.addresses.items()
        }
        return EdgesAsked(there, self.required)


def edge_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--edge`` and ``--edges-required``; the command function gets them as ``edges``."""

    @click.option(
        "--edge",
        "edge",
        multiple=True,
        metavar="NAME=HOST:PORT",
        callback=_addresses,
        help="Where the log of an edge is that has a Kafka of its own. May be given again.",
    )
    @click.option("--edges-required", is_flag=True, help="An edge whose log cannot be read is a difference.")
    @functools.wraps(function)
    def command(*args: Any, edge: Mapping[str, str], edges_required: bool, **kwargs: Any) -> Any:
        return function(*args, edges=EdgeOptions(edge, edges_required), **kwargs)

    return command


def _addresses(
    _context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]
) -> Mapping[str, str]:
    found = {}
    for one in value:
        name, equals, address = one.partition("=")
        if not (name and equals and address):
            raise click.BadParameter(
                f"{one!r}: expected an edge and its address, such as eu.e1=kafka.shop:9092"
            )
        found[name] = address
    return found
