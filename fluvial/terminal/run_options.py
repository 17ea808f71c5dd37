"""Options that commands share which train: how many workers, how data is split, where objects go, who is let in."""

from __future__ import annotations

import click

from fluvial.terminal.numbers import POSITIVE

workers_option = click.option(
    "--workers", type=click.IntRange(1, 32), default=1, show_default=True, help="Workers a region."
)
alpha_option = click.option(
    "--alpha",
    type=POSITIVE,
    default=1.0,
    show_default=True,
    help="Data split: Dirichlet concentration.",
)
store_option = click.option(
    "--store",
    type=click.Choice(["auto", "minio", "file"]),
    default="auto",
    show_default=True,
    help="Object store.",
)
secured_option = click.option(
    "--secure/--insecure",
    "secured",
    default=None,
    help="Kafka with mutual TLS and ACLs and MinIO with TLS, by a private CA of this home, one certificate and one "
    "user a role; or without. Default: as this home is; a new one is secured.",
)
