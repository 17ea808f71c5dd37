"""Where settings come from, and which are refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from aggregation.errors import ConnectionProblem, UsageProblem
from backends.environment import load_settings, load_settings_with_sources, resolve_home
from backends.settings import CredentialsFile, StackFile, StackRole, credentials_path, stack_path

REMOTE = {
    "FLUVIAL_BOOTSTRAP_SERVERS": "kafka-1:9092,kafka-2:9092",
    "FLUVIAL_STORE_ENDPOINT": "https://store.example",
    "FLUVIAL_STORE_ACCESS_KEY": "key",
    "FLUVIAL_STORE_SECRET_KEY": "very-secret",
}


@pytest.fixture
def running_home(home: Path) -> Path:
    home.mkdir()
    state = StackFile(
        store_kind="minio", running=True, kafka_port=20001, store_port=20002, update_bytes_max=4096
    )
    stack_path(home).write_bytes(msgspec.json.encode(state))
    keys = CredentialsFile(store_access_key="local", store_secret_key="local-secret")
    credentials_path(home).write_bytes(msgspec.json.encode(keys))
    return home


def test_a_running_stack_is_found_through_its_home(running_home: Path) -> None:
    settings = load_settings(running_home, environ={})
    assert settings.bootstrap_servers == "127.0.0.1:20001"
    assert settings.store.endpoint == "127.0.0.1:20002"
    assert settings.store.secret_key == "local-secret"
    assert settings.message_bytes_max == 4096 + 64 * 1024


def test_without_a_stack_the_error_says_how_to_start_one(home: Path) -> None:
    with pytest.raises(ConnectionProblem) as caught:
        load_settings(home, environ={})
    assert caught.value.error_id == "FLV-1001"
    assert "fluvial up" in caught.value.hint


def test_a_stack_that_was_stopped_is_down(running_home: Path) -> None:
    state = msgspec.json.decode(stack_path(running_home).read_bytes(), type=StackFile)
    stack_path(running_home).write_bytes(msgspec.json.encode(msgspec.structs.replace(state, running=False)))
    with pytest.raises(ConnectionProblem, match="is down"):
        load_settings(running_home, environ={})


def test_the_environment_alone_is_enough(home: Path) -> None:
    settings = load_settings(home, environ=REMOTE)
    assert settings.bootstrap_servers == "kafka-1:9092,kafka-2:9092"
    assert (settings.store.kind, settings.store.endpoint, settings.store.secure) == (
        "s3",
        "store.example:443",
        True,
    )


def test_local_keys_are_never_sent_to_another_store(running_home: Path) -> None:
    environ = {"FLUVIAL_STORE_ENDPOINT": "http://elsewhere:9000"}
    store = load_settings(running_home, environ=environ).store
    assert (store.kind, store.access_key, store.secret_key) == ("s3", "", ""), "boto3 looks for some"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"STORE_KIND": "minio"}, "store.access_key"),
        ({"STORE_ACCESS_KEY": "a"}, "store.secret_key"),
        ({"STORE_SECRET_KEY": "a"}, "store.access_key"),
        ({"STORE_SESSION_TOKEN": "a"}, "store.access_key"),
        ({"STORE_ACCESS_KEY": "a", "STORE_SECRET_KEY": "b", "STORE_PROFILE": "p"}, "store.profile"),
        ({"STORE_CA_FILE": "/nowhere/ca.pem"}, "store.ca_file"),
        ({"STORE_KMS_KEY": "k"}, "store.kms_key"),
        ({"STORE_KMS_KEY": "k", "STORE_ENCRYPTION": "AES256"}, "store.kms_key"),
        ({"STORE_ENCRYPTION": "rot13"}, "store.encryption"),
        ({"STORE_ADDRESSING": "elsewhere"}, "store.addressing"),
    ],
)
def test_what_of_a_store_cannot_be_is_refused_by_name(home: Path, given: dict[str, str], named: str) -> None:
    environ = {**REMOTE, "FLUVIAL_STORE_ACCESS_KEY": "", "FLUVIAL_STORE_SECRET_KEY": ""}
    environ |= {f"FLUVIAL_{name}": value for name, value in given.items()}
    with pytest.raises(UsageProblem, match=named) as caught:
        load_settings(home, environ={name: value for name, value in environ.items() if value})
    assert caught.value.error_id == "FLV-1002"


def test_aws_own_variable_names_the_ca_and_ours_goes_before_it(home: Path, tmp_path: Path) -> None:
    for name in ("theirs.pem", "ours.pem"):
        (tmp_path / name).write_text("")
    environ = {**REMOTE, "AWS_CA_BUNDLE": str(tmp_path / "theirs.pem")}
    assert load_settings(home, environ).store.ca_file == tmp_path / "theirs.pem"
    environ["FLUVIAL_STORE_CA_FILE"] = str(tmp_path / "ours.pem")
    assert load_settings(home, environ).store.ca_file == tmp_path / "ours.pem"


def test_aws_own_variable_says_nothing_of_a_store_by_http(running_home: Path) -> None:
    environ = {"AWS_CA_BUNDLE": "/nowhere/theirs.pem"}
    assert load_settings(running_home, environ).store.ca_file is None
    plain = environ | {"FLUVIAL_STORE_ENDPOINT": "http://elsewhere:9000"}
    assert load_settings(running_home, plain).store.ca_file is None


def test_each_value_names_its_source(running_home: Path) -> None:
    _, sources = load_settings_with_sources(running_home, {"FLUVIAL_UPDATE_BYTES_MAX": "2048"})
    assert sources["update_bytes_max"] == "FLUVIAL_UPDATE_BYTES_MAX"
    assert sources["bootstrap_servers"] == "stack.json"
    assert sources["store.secret_key"] == "credentials.json"
    assert sources["store.region"] == "default"


def test_a_file_store_by_environment(home: Path, tmp_path: Path) -> None:
    environ = {"FLUVIAL_BOOTSTRAP_SERVERS": "kafka:9092", "FLUVIAL_STORE_PATH": str(tmp_path / "objects")}
    settings = load_settings(home, environ=environ)
    assert (settings.store.kind, settings.store.path) == ("file", tmp_path / "objects")


@pytest.mark.parametrize(
    ("variable", "value", "setting"),
    [
        ("FLUVIAL_BOOTSTRAP_SERVERS", "kafka", "bootstrap_servers"),
        ("FLUVIAL_BOOTSTRAP_SERVERS", "kafka:99999", "bootstrap_servers"),
        ("FLUVIAL_STORE_ENDPOINT", "ftp://store:1", "store.endpoint"),
        ("FLUVIAL_STORE_ENDPOINT", "https://user:pw@store", "store.endpoint"),
        ("FLUVIAL_STORE_BUCKET", "No Bucket", "store.bucket"),
        ("FLUVIAL_STORE_KIND", "tape", "store.kind"),
        ("FLUVIAL_STORE_SECURE", "perhaps", "store.secure"),
        ("FLUVIAL_UPDATE_BYTES_MAX", "10", "update_bytes_max"),
        ("FLUVIAL_UPDATE_BYTES_MAX", "8MB", "update_bytes_max"),
    ],
)
def test_a_wrong_value_is_refused_by_name(home: Path, variable: str, value: str, setting: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        load_settings(home, environ={**REMOTE, variable: value})
    assert caught.value.error_id == "FLV-1002"
    assert f"setting {setting}:" in caught.value.message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLUVIAL_UPDATE_BYTES_MAX", "8MB"),
        ("FLUVIAL_STORE_BUCKET", "No Bucket"),
        ("FLUVIAL_LOG_FORMAT", "xml"),
        ("HTTPS_PROXY", "socks5://a:1"),
    ],
)
def test_the_hint_of_a_wrong_value_mends_it(home: Path, variable: str, value: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        load_settings(home, environ={**REMOTE, variable: value})
    assert caught.value.hint == f"set {variable} to such a value, or unset it"
    load_settings(home, environ=REMOTE)


def test_the_hint_of_a_value_that_lacks_names_the_variable(home: Path) -> None:
    environ = {name: value for name, value in REMOTE.items() if name != "FLUVIAL_STORE_SECRET_KEY"}
    with pytest.raises(UsageProblem, match=r"store\.secret_key") as caught:
        load_settings(home, environ=environ)
    assert caught.value.hint == "set FLUVIAL_STORE_SECRET_KEY"


def test_a_damaged_file_is_named(running_home: Path) -> None:
    stack_path(running_home).write_text('{"store_kind": "min')
    with pytest.raises(UsageProblem) as caught:
        load_settings(running_home, environ={})
    assert caught.value.error_id == "FLV-1003"


def test_no_text_form_shows_the_secret(home: Path) -> None:
    settings = load_settings(home, environ=REMOTE)
    assert "very-secret" not in f"{settings} {settings!r} {settings.store}"


def test_settings_cannot_be_changed(home: Path) -> None:
    settings = load_settings(home, environ=REMOTE)
    with pytest.raises(AttributeError):
        settings.update_bytes_max = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["line\nbreak", "bell\a", "not utf-8 \udcff"])
def test_a_home_that_java_could_not_be_told_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        resolve_home(tmp_path / name)
    assert caught.value.error_id == "FLV-1017"
    str(caught.value).encode()


@pytest.mark.parametrize("name", ["Zoë", "a\u00a0b", "👩\u200d🔬", "مرحبا", "a,b"])
def test_any_other_letter_will_do(tmp_path: Path, name: str) -> None:
    assert resolve_home(tmp_path / name) == tmp_path / name


def test_the_home_is_absolute_and_the_argument_wins(tmp_path: Path) -> None:
    assert resolve_home(None, {"FLUVIAL_HOME": "relative"}) == Path.cwd() / "relative"
    assert resolve_home(tmp_path, {"FLUVIAL_HOME": "relative"}) == tmp_path


def test_a_role_of_a_secured_store_has_its_own_keys_and_no_others(home: Path) -> None:
    home.mkdir()
    (home / "tls").mkdir()
    (home / "tls" / "ca.pem").write_text("a CA")
    roles: tuple[StackRole, ...] = ("admin", "worker", "reader")
    for role in roles:
        path = credentials_path(home, role)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            msgspec.json.encode(CredentialsFile(store_access_key=role, store_secret_key=f"s-{role}"))
        )
    state = StackFile(store_kind="minio", running=True, kafka_port=20001, store_port=20002, secured=True)
    stack_path(home).write_bytes(msgspec.json.encode(msgspec.structs.replace(state, store_secured=True)))
    for role in roles:
        store = load_settings(home, {}, role=role).store
        assert (store.access_key, store.secret_key) == (role, f"s-{role}")
        assert (store.url, store.ca_file) == ("https://127.0.0.1:20002", home / "tls" / "ca.pem")
    _, sources = load_settings_with_sources(home, {}, role="worker")
    assert sources["store.secret_key"] == "store-keys/worker.json"
    with pytest.raises(UsageProblem, match="`fluvial up`"):
        load_settings(home, {}, role="device")
    stack_path(home).write_bytes(
        msgspec.json.encode(state)
    )  # secured before MinIO could be, and not yet up again
    store = load_settings(home, {}, role="device").store
    assert (store.access_key, store.url) == ("admin", "http://127.0.0.1:20002")
