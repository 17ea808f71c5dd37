"""How many connections are open, and which one goes when one too many comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluvial.console.limits import CONNECTIONS_MAX

if TYPE_CHECKING:
    import asyncio

    from aiohttp import web
    from aiohttp.web_protocol import RequestHandler


class Connections:
    """Makes the protocol of each new connection, and keeps them at ``most``.

    Where one too many comes, that one is closed which has been without a request for longest; where all have one, the
    oldest.
    """

    def __init__(self, server: web.Server, busy: set[RequestHandler], most: int = CONNECTIONS_MAX) -> None:
        """``busy`` has those whose request is being answered."""
        self._server = server
        self._busy = busy
        self._most = most

    def __call__(self) -> asyncio.Protocol:
        """The protocol of one more connection."""
        # One that was told to close is still listed until the loop has closed it.
        open_now = [
            one
            for one in self._server.connections
            if one.transport is not None and not one.transport.is_closing()
        ]
        if len(open_now) >= self._most:
            idle = (one for one in open_now if one not in self._busy)
            next(idle, open_now[0]).force_close()
        return self._server()
