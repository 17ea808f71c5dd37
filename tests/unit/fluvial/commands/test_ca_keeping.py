"""``fluvial ca``: keys that are encrypted, or lie in a token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backends.keys import load_key_pair
from backends.settings import KeySettings
from backends.tasks import TaskFile, keys_folder, write_task_file
from fluvial import cli
from tests import factories
from tests.tokens import PIN, SoftTokens, module

CA_PASSPHRASE = "of the machine with the CAs"
PASSPHRASE = "of whoever signs there"
SECRETS = (CA_PASSPHRASE, PASSPHRASE, PIN)


class Answer(NamedTuple):
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        assert self.code == 0, self.stderr
        found: dict[str, Any] = json.loads(self.stdout)
        return found


Type = Callable[..., Answer]


@pytest.fixture
def fluvial(home: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    write_task_file(
        home, TaskFile(task="mine", genesis_sha256=factories.sha("g"), reference="digits", regions=("eu",))
    )

    def call(*words: str) -> Answer:
        code = cli.main(["--home", str(home), "ca", *words, "--json"])
        answer = Answer(code, *capsys.readouterr())
        assert not any(secret in answer.stdout + answer.stderr for secret in SECRETS)
        return answer

    return call


@pytest.fixture
def passphrases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, secret in (
        ("FLUVIAL_KEY_CA_PASSPHRASE", CA_PASSPHRASE),
        ("FLUVIAL_KEY_PASSPHRASE", PASSPHRASE),
    ):
        file = tmp_path / variable
        file.write_text(secret + "\n")
        monkeypatch.setenv(f"{variable}_FILE", str(file))


@pytest.mark.usefixtures("passphrases")
def test_cas_and_leaves_are_encrypted_each_with_its_own_passphrase(fluvial: Type, home: Path) -> None:
    assert (
        fluvial("init", "--task", "mine", "--region", "eu", "--encrypt").document["key"] == "encrypted file"
    )
    one = fluvial("issue", "--task", "mine", "--region", "eu", "--encrypt", "d-1").document
    assert one["key"] == "encrypted file"
    plain = fluvial("issue", "--task", "mine", "--region", "eu", "d-2").document
    assert plain["key"] == "file"
    load_key_pair(Path(one["path"]), KeySettings(passphrase=PASSPHRASE))
    renewed = fluvial("renew", "--task", "mine", "--region", "eu", "d-1").document
    assert renewed["key"] == "encrypted file"
    renewed = fluvial("renew", "--task", "mine", "--region", "eu", "--encrypt", "d-2").document
    assert renewed["key"] == "encrypted file"
    listed = fluvial("list", "--task", "mine").document["certificates"]
    assert {(entry["role"], entry["name"], entry["key"]) for entry in listed} == {
        ("CA", "", "encrypted file"),
        ("device", "d-1", "encrypted file"),
        ("device", "d-2", "encrypted file"),
    }
    assert "-----BEGIN PRIVATE KEY" not in "".join(
        path.read_text() for path in keys_folder(home, "mine").rglob("*.pem")
    )


@pytest.mark.usefixtures("passphrases")
def test_a_plain_ca_becomes_an_encrypted_one(fluvial: Type) -> None:
    before = fluvial("init", "--task", "mine", "--region", "eu").document
    after = fluvial("init", "--task", "mine", "--region", "eu", "--encrypt").document
    assert (before["key"], after["key"]) == ("file", "encrypted file")
    assert before["serial"] == after["serial"]
    assert fluvial("issue", "--task", "mine", "--region", "eu", "d-1").code == 0


@pytest.mark.parametrize(
    ("variables", "error_id"),
    [
        ({}, "FLV-2311"),
        ({"FLUVIAL_KEY_PASSPHRASE": "too short"}, "FLV-2311"),
        ({"FLUVIAL_KEY_PASSPHRASE_FILE": "/nowhere"}, "FLV-1002"),
    ],
)
def test_without_a_good_passphrase_nothing_is_made(
    fluvial: Type, home: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], error_id: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = fluvial("init", "--task", "mine", "--region", "eu", "--encrypt")
    assert done.code == 4
    assert error_id in done.stdout + done.stderr
    assert list(keys_folder(home, "mine").rglob("*.pem")) == []


@pytest.mark.parametrize("variable", ["FLUVIAL_KEY_PASSPHRASE", "FLUVIAL_KEY_PIN", "FLUVIAL_KEY_CA_PIN"])
def test_secrets_of_keys_are_masked_where_settings_are_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.setenv("FLUVIAL_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("FLUVIAL_STORE_PATH", str(home))
    monkeypatch.setenv(variable, PASSPHRASE)
    assert cli.main(["--home", str(home), "config", "show", "--sources"]) == 0
    out = "".join(capsys.readouterr())
    assert variable in out and "***" in out and PASSPHRASE not in out


def test_a_ca_and_a_worker_in_tokens(
    fluvial: Type, soft_tokens: SoftTokens, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    of_ca, of_worker = soft_tokens.take(), soft_tokens.take()
    of_ca.hold(factories.key("ca of a token"), "ca")
    of_worker.hold(factories.key("worker of a token"), "w")
    monkeypatch.setenv("FLUVIAL_KEY_MODULE", str(module()))
    monkeypatch.setenv("FLUVIAL_KEY_PIN", PIN)
    made = fluvial("init", "--task", "mine", "--region", "eu", "--key", of_ca.uri("ca")).document
    assert made["key"] == "PKCS#11 token"
    words = ("--task", "mine", "--region", "eu", "--role", "worker")
    one = fluvial("issue", *words, "--key", of_worker.uri("w"), "worker-eu").document
    assert (one["key"], one["new"]) == ("PKCS#11 token", True)
    assert load_key_pair(of_worker.uri("w"), KeySettings(pin=PIN, module=module())).key.sign(b"x")
    again = fluvial("issue", *words, "worker-eu").document
    assert (again["key"], again["new"], again["serial"]) == ("PKCS#11 token", False, one["serial"])
    renewed = fluvial("renew", *words, "worker-eu").document
    assert renewed["key"] == "PKCS#11 token" and renewed["serial"] != one["serial"]
    assert "PRIVATE KEY" not in "".join(path.read_text() for path in keys_folder(home, "mine").rglob("*.pem"))


@pytest.mark.parametrize(
    "words",
    [
        ("init", "--region", "eu", "--encrypt", "--key", "pkcs11:object=a"),
        ("init", "--region", "eu", "--key", "pkcs11:object=a"),
        ("init", "--region", "eu", "--key", "key.pem"),
        ("issue", "--region", "eu", "d-1", "--key", "pkcs11:object=a"),
        ("issue", "--region", "eu", "d-1", "--encrypt"),
        ("renew", "--region", "eu", "d-1", "--keep-key", "--encrypt"),
        ("renew", "--region", "eu", "d-1", "--keep-key", "--key", "pkcs11:object=a"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(
    fluvial: Type, home: Path, words: tuple[str, ...]
) -> None:
    assert fluvial("init", "--task", "mine", "--region", "eu").code == 0
    assert fluvial("issue", "--task", "mine", "--region", "eu", "d-1").code == 0
    before = {path: path.read_bytes() for path in keys_folder(home, "mine").rglob("*.pem")}
    done = fluvial(*words[:1], "--task", "mine", *words[1:])
    assert done.code == 4 and "FLV-6001" in done.stdout + done.stderr
    assert {path: path.read_bytes() for path in keys_folder(home, "mine").rglob("*.pem")} == before


def test_a_devices_cohort_is_issued_kept_and_listed(fluvial: Type) -> None:
    fluvial("init", "--region", "eu")
    assert fluvial("issue", "--region", "eu", "d-1", "--cohort", "old").document["cohort"] == "old"
    assert fluvial("issue", "--region", "eu", "d-1").document["cohort"] == "old"
    again = fluvial("issue", "--region", "eu", "d-1", "--cohort", "new")
    assert again.code and "`fluvial ca renew --cohort` puts another" in again.stdout + again.stderr
    assert fluvial("renew", "--region", "eu", "d-1").document["cohort"] == "old"
    assert fluvial("renew", "--region", "eu", "d-1", "--cohort", "new").document["cohort"] == "new"
    listed = {one["name"]: one["cohort"] for one in fluvial("list").document["certificates"]}
    assert listed["d-1"] == "new" and listed[""] == ""
    refused = fluvial("issue", "--region", "eu", "--role", "worker", "w", "--cohort", "old")
    assert "FLV-2510" in refused.stdout
