"""The page's own files: exact names from ``static/``, with their types, to be asked for again by ETag."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from fluvial.console.problems import nothing_there

FOLDER: Final = Path(__file__).with_name("static")
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file as it was at ``stamp`` (modification time in ns, size in bytes)."""

    stamp: tuple[int, int]
    data: bytes
    etag: str
    content_type: str


class StaticFiles:
    """Serves what the folder has. A name is looked up among those that are there: no path is ever built from one."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._files: dict[str, File] = {}

    def names(self) -> dict[str, Path]:
        """Every file by its name, with slashes for folders."""
        return {
            path.relative_to(self._folder).as_posix(): path
            for path in sorted(self._folder.rglob("*"))
            if path.is_file() and path.suffix in TYPES
        }

    async def answer(self, request: web.Request) -> web.Response:
        """The file, or 304 where the browser has it."""
        name = request.match_info.get("name", "") or "index.html"
        path = self.names().get(name)
        if path is None:
            raise nothing_there(f"there is no page {name[:80]!r} here", "the console begins at /")
        file = self._file(name, path)
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if file.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.data, headers=headers | {"Content-Type": file.content_type})

    def _file(self, name: str, path: Path) -> File:
        status = path.stat()
        stamp = status.st_mtime_ns, status.st_size
        known = self._files.get(name)
        if known is None or known.stamp != stamp:
            data = path.read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            known = self._files[name] = File(stamp, data, etag, TYPES[path.suffix])
        return known
