"""Numbers of options: what is typed is a finite number of a range, or an error that says so."""

from __future__ import annotations

import math
from typing import Any, Final

import click


class Number(click.FloatRange):
    """A float of a range. ``nan`` and ``inf`` are none: they pass every comparison, and stop what counts with them."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See ``click.ParamType``."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


ANY: Final = Number()
NOT_NEGATIVE: Final = Number(0)
POSITIVE: Final = Number(0, min_open=True)


def bucket_name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """A callback of an option: the name of an S3 bucket."""
    from minio.helpers import check_bucket_name

    try:
        check_bucket_name(value, strict=True)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
    return value
