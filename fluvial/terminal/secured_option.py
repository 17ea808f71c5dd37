"""``--secure`` and ``--insecure``: how the local stack of a home is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = TypeVar("_Function", bound="Callable[..., Any] | click.Command")


def secured_option(function: _Function) -> _Function:
    """Add ``--secure/--insecure``: the command gets ``secured``, None where neither was said."""
    option = click.option(
        "--secure/--insecure",
        "secured",
        default=None,
        help="Kafka with mutual TLS and ACLs and MinIO with TLS, by a private CA of this home, one certificate and one "
        "user a role; or without. Default: as this home is; a new one is secured.",
    )
    return option(function)
