"""Whose key may sign what an operator decides: anybody else's would be passed over by every reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from aggregation.errors import FluvialError
from aggregation.fold.rules import CANONICAL_RULES
from backends import keys
from backends.keys import Keeping
from backends.settings import KeySettings, Settings, StoreSettings
from backends.tasks import keys_folder
from fluvial.local.create import GUARDIAN, MERGER, OPERATOR, make_keys, worker_name
from fluvial.local.operators_key import operators_key
from schemas.certificates import CONTROL, Role, Trust
from tests import factories

SECRETS = KeySettings(passphrase="of whoever signs there", ca_passphrase="of the machine with the CAs")
TASK = "mine"


@pytest.fixture
def settings(home: Path) -> Settings:
    """Of a machine with a task's keys, all encrypted."""
    settings = Settings(
        home=home, bootstrap_servers="nowhere:1", store=StoreSettings(kind="file", path=home), key=SECRETS
    )
    make_keys(
        keys_folder(home, TASK), {"eu": 1, "us": 1}, guided=True, keeping=Keeping(SECRETS, encrypted=True)
    )
    return settings


def trust(settings: Settings) -> Trust:
    folder = keys_folder(settings.home, TASK)
    pems = {name: keys.certificate_pem(keys.authority_path(folder, name)) for name in ("eu", "us", CONTROL)}
    return Trust.from_pem(pems, CANONICAL_RULES, factories.DOMAIN)


def test_a_task_has_no_plain_key_where_that_is_asked(settings: Settings) -> None:
    made = sorted(keys_folder(settings.home, TASK).rglob("*.pem"))
    assert len(made) == 3 + 2 + 3
    assert {keys.provider_name(path) for path in made} == {"encrypted file"}


def test_the_operators_own_is_found(settings: Settings) -> None:
    key_pair = operators_key(settings, TASK, trust(settings), None)
    assert trust(settings).identify(key_pair.certificate).role is Role.OPERATOR


def test_another_operators_may_be_named(settings: Settings) -> None:
    folder = keys_folder(settings.home, TASK)
    other = keys.issue(folder, CONTROL, Role.OPERATOR, "second", Keeping(SECRETS))
    key_pair = operators_key(settings, TASK, trust(settings), other)
    assert trust(settings).identify(key_pair.certificate).name == "second"


@pytest.mark.parametrize(
    ("region", "role", "name"),
    [
        ("eu", Role.WORKER, worker_name("eu")),
        (CONTROL, Role.MERGER, MERGER),
        (CONTROL, Role.GUARDIAN, GUARDIAN),
    ],
)
def test_nobody_elses_will_do(settings: Settings, region: str, role: Role, name: str) -> None:
    place = keys.signer_path(keys_folder(settings.home, TASK), region, role, name)
    with pytest.raises(FluvialError) as caught:
        operators_key(settings, TASK, trust(settings), place)
    assert caught.value.error_id == "FLV-3203"


def test_one_whose_time_is_over_will_not_do(settings: Settings) -> None:
    folder = keys_folder(settings.home, TASK)
    keys.renew(folder, CONTROL, Role.OPERATOR, OPERATOR, Keeping(SECRETS), days=1e-9)
    with pytest.raises(FluvialError, match="has expired") as caught:
        operators_key(settings, TASK, trust(settings), None)
    assert caught.value.error_id == "FLV-3203"
