"""A FLUVIAL_ variable that nobody reads is named, with the one that may be meant."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from aggregation.errors import UsageProblem
from backends.environment import load_key_settings, load_settings
from backends.merging import SECRET_BYTES_MAX
from backends.settings import KEY_SECRETS, KafkaSecurity, Settings, StoreSettings
from backends.variables import KNOWN, unknown_variables, variables_of
from fluvial import cli

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FLUVIAL_STORE_TOKEN", "FLUVIAL_STORE_SESSION_TOKEN"),
        ("FLUVIAL_STORE_SESION_TOKEN", "FLUVIAL_STORE_SESSION_TOKEN"),
        ("FLUVIAL_STORE_SECRET", "FLUVIAL_STORE_SECRET_KEY"),
        ("FLUVIAL_BOOTSTRAP_SERVER", "FLUVIAL_BOOTSTRAP_SERVERS"),
        ("fluvial_home", "FLUVIAL_HOME"),
        ("FLUVIAL_QUITE_ANOTHER_THING", ""),
    ],
)
def test_an_unknown_one_is_found(name: str, meant: str) -> None:
    assert unknown_variables({name: "x", "PATH": "/bin"}) == {name: meant}


@pytest.mark.parametrize(
    "name",
    [
        *sorted(KNOWN),
        "FLUVIAL_WORKER_SERVICE_HOST",
        "FLUVIAL_WORKER_SERVICE_PORT_METRICS",
        "FLUVIAL_WORKER_PORT_9090_TCP_ADDR",
        "XFLUVIAL_HOME",
        "_FLUVIAL_COMPLETE",
    ],
)
def test_ours_a_clusters_and_other_programs_are_not(name: str) -> None:
    assert unknown_variables({name: "x"}) == {}


def test_every_variable_that_the_sources_name_is_known_and_in_the_operators_page() -> None:
    named = set()
    for package in ("backends", "fluvial", "learning", "producers", "stream_apps"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    named |= set(re.findall(r"\bFLUVIAL_[A-Z_]*[A-Z]\b(?!_)", node.value))
    assert named - KNOWN == set()
    page = (ROOT / "docs" / "operators.md").read_text()
    hidden = {"FLUVIAL_DASHBOARDS", "FLUVIAL_CRASH_AT"}
    assert {name for name in KNOWN - hidden if f"`{name}`" not in page} == set()


def test_a_command_warns_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    monkeypatch.setenv("FLUVIAL_STORE_SESION_TOKEN", "x")
    assert cli.main(["--home", str(home), "down"]) == 0
    out, err = capsys.readouterr()
    assert "nothing was running" in out
    assert "warning[FLV-1018]: the variable FLUVIAL_STORE_SESION_TOKEN" in err
    assert "hint: did you mean FLUVIAL_STORE_SESSION_TOKEN?" in err
    assert "x" not in err.replace("FLUVIAL", "").split()


@pytest.mark.parametrize("before", ["", "\ufeff"])
@pytest.mark.parametrize("after", ["", "\n", "\r\n", " "])
def test_what_a_file_brings_along_is_no_part_of_a_value(home: Path, before: str, after: str) -> None:
    environ = {
        "FLUVIAL_BOOTSTRAP_SERVERS": f"{before}kafka:9092{after}",
        "FLUVIAL_STORE_ENDPOINT": f"{before}https://store{after}",
        "FLUVIAL_STORE_ACCESS_KEY": f"{before}key{after}",
        "FLUVIAL_STORE_SECRET_KEY": f"{before}secret{after}",
    }
    store = load_settings(home, environ).store
    assert (store.endpoint, store.access_key, store.secret_key) == ("store:443", "key", "secret")


def settings_of(home: Path) -> dict[str, Settings]:
    """Of every kind of way in, with values that are no defaults."""
    minio = StoreSettings(
        kind="minio", endpoint="127.0.0.1:9000", access_key="a", secret_key="b", bucket="mine"
    )
    s3 = StoreSettings(
        kind="s3",
        endpoint="store.example:443",
        access_key="a",
        secret_key="b",
        session_token="c",
        secure=True,
        region="eu-north-1",
        ca_file=home / "store.pem",
        addressing="virtual",
        encryption="aws:kms",
        kms_key="key",
    )
    folder = StoreSettings(kind="file", path=home / "objects")
    ways: dict[str, tuple[StoreSettings, KafkaSecurity]] = {
        "plain": (minio, KafkaSecurity()),
        "certificates": (
            s3,
            KafkaSecurity(
                security_protocol="SSL",
                ca_file=home / "ca.pem",
                certificate_file=home / "client.pem",
                key_file=home / "client.key",
                key_password="d",
            ),
        ),
        "passwords": (
            folder,
            KafkaSecurity(
                security_protocol="SASL_SSL",
                ca_file=home / "ca.pem",
                sasl_mechanism="SCRAM-SHA-512",
                sasl_username="eu worker",
                sasl_password="=d e$",
            ),
        ),
        "tokens": (
            minio,
            KafkaSecurity(
                security_protocol="SASL_SSL",
                sasl_mechanism="OAUTHBEARER",
                oauth_token_url="https://id.example/token",
                oauth_client_id="fluvial",
                oauth_client_secret="d",
                oauth_scope="kafka",
                oauth_ca_file=home / "ca.pem",
            ),
        ),
    }
    return {
        name: Settings(
            home=home, bootstrap_servers="127.0.0.1:9092", store=store, kafka=kafka, update_bytes_max=4096
        )
        for name, (store, kafka) in ways.items()
    }


@pytest.mark.parametrize("way", ["plain", "certificates", "passwords", "tokens"])
def test_what_says_settings_is_read_as_these_settings(tmp_path: Path, way: str) -> None:
    for name in ("store.pem", "ca.pem", "client.pem", "client.key"):
        (tmp_path / name).touch()
    settings = settings_of(tmp_path)[way]
    said = variables_of(settings)
    assert said.keys() <= KNOWN
    assert load_settings(tmp_path, said) == settings


def test_every_field_of_a_way_in_has_a_variable_but_the_proxy() -> None:
    fields = {
        f"FLUVIAL_{group}_{name.upper()}"
        for group, kind in (("KAFKA", KafkaSecurity), ("STORE", StoreSettings))
        for name in kind.__struct_fields__
    }
    assert fields - KNOWN == {"FLUVIAL_STORE_PROXY"}


NO_SECRETS = {
    "not UTF-8": b"\xff\xfb\x80 271828",
    "empty": b" \n",
    "longer than": b"2" * (SECRET_BYTES_MAX + 1),
}


@pytest.mark.parametrize("what", NO_SECRETS)
@pytest.mark.parametrize("setting", KEY_SECRETS)
def test_a_file_that_holds_no_secret_is_refused_and_not_shown(
    tmp_path: Path, setting: str, what: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(NO_SECRETS[what])
    with pytest.raises(UsageProblem, match=what) as caught:
        load_key_settings({f"FLUVIAL_KEY_{setting.upper()}_FILE": str(path)})
    assert (caught.value.error_id, caught.value.where) == (
        "FLV-1002",
        f"FLUVIAL_KEY_{setting.upper()}_FILE={path}",
    )
    assert "2718" not in str(caught.value) and "222" not in str(caught.value)


@pytest.mark.parametrize(("place", "reason"), [("/dev/zero", "longer than"), ("/", "Is a directory")])
def test_a_place_that_is_no_file_of_secrets_is_refused(place: str, reason: str) -> None:
    with pytest.raises(UsageProblem, match=reason):
        load_key_settings({"FLUVIAL_KEY_PIN_FILE": place})
