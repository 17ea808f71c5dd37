"""Why brokers refuse us is found beside one that hangs, is looked for by one at a time, and never ends who looks."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aggregation.errors import AccessProblem, FluvialError
from backends.kafka import diagnosis, permissions
from backends.kafka.admin import BrokerProbe
from backends.kafka.diagnosis import AGAIN_S, RefusalWatch, refusal_async
from backends.kafka.faust import transport
from backends.settings import KafkaSecurity, Settings, StoreSettings
from schemas.access import access_of

REFUSED = AccessProblem("FLV-3113", "Kafka refuses who we say we are", hint="look")


def settings_of(folder: Path, bootstrap: str = "127.0.0.1:1", **kafka: Any) -> Settings:
    store = StoreSettings(kind="file", path=folder)
    return Settings(home=folder, bootstrap_servers=bootstrap, store=store, kafka=KafkaSecurity(**kafka))


@pytest.mark.parametrize("bootstrap", ["refuses:1,hangs:1", "hangs:1,refuses:1"])
def test_a_refusal_is_found_beside_a_broker_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bootstrap: str
) -> None:
    async def visit(_: Settings, host: str, __: int) -> tuple[AccessProblem | None, list[tuple[str, int]]]:
        if host == "hangs":
            await asyncio.Event().wait()
        return REFUSED, []

    monkeypatch.setattr(diagnosis, "_visit", visit)
    assert asyncio.run(refusal_async(settings_of(tmp_path, bootstrap), timeout_s=0.2)) is REFUSED


def test_one_that_lets_us_in_is_enough_and_those_that_it_names_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def visit(_: Settings, host: str, __: int) -> tuple[AccessProblem | None, list[tuple[str, int]]]:
        if host == "hangs":
            await asyncio.Event().wait()
        return (REFUSED, []) if host == "inner" else (None, [("lets-in", 1), ("inner", 1)])

    monkeypatch.setattr(diagnosis, "_visit", visit)
    assert asyncio.run(refusal_async(settings_of(tmp_path, "hangs:1,lets-in:1"))) is REFUSED


def test_a_file_that_is_wrong_is_told_as_a_refusal(tmp_path: Path) -> None:
    told: list[FluvialError] = []
    settings = settings_of(tmp_path, security_protocol="SSL", ca_file=tmp_path / "none.pem")
    RefusalWatch(settings, told.append)._look_and_tell()
    found = RefusalWatch(settings).look()
    assert [one.error_id for one in told] == ["FLV-3119"]
    assert found is not None
    assert found.error_id == "FLV-3119"


def test_any_other_error_is_no_reason_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug of the user's")

    monkeypatch.setattr(diagnosis, "refusal", fail)
    watch = RefusalWatch(settings_of(tmp_path))
    with caplog.at_level(logging.ERROR, "fluvial"):
        assert watch.look() is None
        watch._looked_s -= AGAIN_S
        assert watch.look() is None
    assert len(caplog.records) == 1


def test_one_look_at_a_time_and_not_at_once_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []

    def look(*_: object) -> None:
        looks.append(watch.look())

    monkeypatch.setattr(diagnosis, "refusal", look)
    watch = RefusalWatch(settings_of(tmp_path))
    watch.look()
    watch.look()
    assert looks == [None]
    watch._looked_s -= AGAIN_S
    watch.look()
    assert looks == [None, None]


def test_a_broker_that_is_away_is_said_before_the_reason_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said, crashed = [], []

    def look(_: RefusalWatch) -> AccessProblem:
        said.append("waiting for Kafka" in caplog.text)
        return REFUSED

    async def crash(problem: FluvialError) -> None:
        crashed.append(problem)

    monkeypatch.setattr(RefusalWatch, "look", look)
    monkeypatch.setattr(BrokerProbe, "answers", lambda _: False)
    app: Any = SimpleNamespace(should_stop=False, crash=crash)
    asyncio.run(transport._say_while_away(app, settings_of(tmp_path)))
    assert (said, crashed) == ([True], [REFUSED])


def test_permissions_are_not_taken_away_where_we_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Settings) -> None:
        raise REFUSED

    monkeypatch.setattr(permissions, "require_no_refusal", refuse)
    with pytest.raises(AccessProblem):
        permissions.forbid(settings_of(tmp_path), access_of("digits", {"eu": 1}), lambda _: "User:a")
