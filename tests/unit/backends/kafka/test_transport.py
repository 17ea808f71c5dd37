"""What our Faust apps are made with."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.kafka.faust import transport
from tests.small_federation import IN_MEMORY


@pytest.mark.parametrize("name", ["plain", "{conf}", "${env:X}", "a}b{", "{{0}}"])
def test_a_data_folder_is_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Faust puts its configuration into {braces} of the folder."""
    monkeypatch.setattr(transport, "require_broker", lambda _: None)

    async def resume(_: object) -> dict[object, int]:
        return {}

    folder = tmp_path / name
    app = transport.create_app("a", IN_MEMORY, resume, data_folder=str(folder), record_bytes=1)  # type: ignore[arg-type]
    assert app.conf.datadir == folder
    assert app.conf.tabledir.is_relative_to(folder)
