"""Where a private key is, on a command line: a file, or a URI of one in a token."""

from __future__ import annotations

from pathlib import Path

import click

from backends.key_providers.token_uri import is_uri


class KeyPlace(click.ParamType):
    """A file that is there, or a ``pkcs11:`` URI, which is looked at when the key is opened."""

    name = "FILE|URI"

    def convert(
        self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        """``value``: as it was typed. click.BadParameter where there is no such file."""
        if is_uri(value):
            return str(value)
        if "pin-value" in str(value):  # a URI with a slip in its scheme, which no error may show
            self.fail("expected a file, or a URI that begins with pkcs11: and has no PIN in it", param, ctx)
        click.Path(dir_okay=False, exists=True).convert(value, param, ctx)
        return Path(value)


class TokenPlace(click.ParamType):
    """A ``pkcs11:`` URI alone."""

    name = "URI"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """``value``: as it was typed. click.BadParameter where it is none."""
        if not is_uri(value):
            self.fail("expected a URI such as pkcs11:token=NAME;object=LABEL", param, ctx)
        return value


operator_key_option = click.option(
    "--key",
    type=KeyPlace(),
    help="The operator's key file, or a pkcs11: URI. Default: the file on this machine.",
)
