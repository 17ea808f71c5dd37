"""Reading the settings: from the local stack's files and from the environment.

This is the only file that reads the environment. ``load_settings`` merges three sources, the later winning:

1. ``<home>/stack.json``: what ``fluvial up`` started on this machine (addresses, limits, never a secret);
2. ``<home>/credentials.json`` (mode 600): the keys of that stack's object store, and of no other; where it is secured,
   a role's are in ``<home>/store-keys/<role>.json``, and those are the administrator's;
3. ``FLUVIAL_*`` variables: for workers on other machines.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import platformdirs

from aggregation.errors import ConnectionProblem, UsageProblem
from backends import caches
from backends.folders import expanded, of_this_user
from backends.kafka_checks import check_kafka
from backends.logging_setup import LogFormat
from backends.merging import Merge, is_address, wrong
from backends.proxies import is_proxy, proxy_of, without_password
from backends.settings import (
    ADMIN,
    DEFAULT_HOME,
    KAFKA_SECRETS,
    KEY_SECRETS,
    TRACE_RATIO_DEFAULT,
    UPDATE_BYTES_MAX_DEFAULT,
    CredentialsFile,
    KafkaSecurity,
    KeySettings,
    Settings,
    StackFile,
    StackRole,
    StoreSettings,
    credentials_path,
    file_store_path,
    stack_ca,
    stack_path,
    stack_security,
)
from backends.store_checks import check_addresses, check_store
from backends.text_files import plain_utf8
from backends.variables import unknown_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

_Record = TypeVar("_Record", bound=msgspec.Struct)


def resolve_home(home: Path | str | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The folder of local state, absolute: the argument, else FLUVIAL_HOME, else ``./.fluvial``.

    Raises UsageProblem: FLV-1017, Java and a terminal could not be told its name.
    """
    environ = os.environ if environ is None else environ
    chosen = Path(home or environ.get("FLUVIAL_HOME") or DEFAULT_HOME)
    folder = expanded(chosen).resolve()
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in str(folder)):
        raise UsageProblem(
            "FLV-1017",
            "the home folder's path has a control character in it, or bytes that are not UTF-8",
            where=repr(str(folder)),
            hint="choose another with `--home DIR` or FLUVIAL_HOME, or rename the folder",
        )
    return folder


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The per-user folder of downloads, builds and compiled code: FLUVIAL_CACHE, else the platform's own place.

    A user without a home directory (no HOME, and an id that nobody has named) has one below the temporary folder.
    """
    environ = os.environ if environ is None else environ
    chosen = environ.get("FLUVIAL_CACHE")
    if chosen:
        return expanded(Path(chosen)).resolve()
    with contextlib.suppress(RuntimeError):
        found = Path(platformdirs.user_cache_dir("fluvial"))
        if found.is_absolute():
            return found
    return of_this_user()


def keep_compiled_code(beside_source: Path) -> Path | None:
    """Where numba keeps compiled code, None for nowhere; see ``backends.caches``. Call it before numba is imported."""
    return caches.keep_compiled_code(os.environ, beside_source, (cache_dir, of_this_user))


def keep_other_caches() -> None:
    """A place for what matplotlib keeps, where the user has no home that can be written."""
    caches.keep_matplotlib(os.environ, (cache_dir, of_this_user))


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a process that we start: ours, and ``extra`` over it."""
    return {**os.environ, **(extra or {})}


def crash_point_asked(environ: Mapping[str, str] | None = None) -> str:
    """FLUVIAL_CRASH_AT, for ``backends.crash_points``; "" when it is not set."""
    environ = os.environ if environ is None else environ
    return environ.get("FLUVIAL_CRASH_AT", "")


def prices_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """FLUVIAL_PRICES, when it is set: the file of unit prices for ``backends.prices``."""
    environ = os.environ if environ is None else environ
    chosen = environ.get("FLUVIAL_PRICES")
    return expanded(Path(chosen)).resolve() if chosen else None


def flower_python(environ: Mapping[str, str] | None = None) -> Path | None:
    """FLUVIAL_FLOWER_PYTHON, when it is set: the interpreter in which Flower apps run."""
    environ = os.environ if environ is None else environ
    chosen = environ.get("FLUVIAL_FLOWER_PYTHON")
    return expanded(Path(chosen)) if chosen else None


def use_flower_python(python: Path) -> None:
    """As if FLUVIAL_FLOWER_PYTHON said ``python``: for this process and those that it starts."""
    os.environ["FLUVIAL_FLOWER_PYTHON"] = str(python.absolute())


def variables_that_nobody_reads(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """FLUVIAL_ variables that are set and mean nothing, each with the one that may be meant ("" for none)."""
    return unknown_variables(os.environ if environ is None else environ)


def traceback_asked(environ: Mapping[str, str] | None = None) -> bool:
    """FLUVIAL_TRACEBACK: whether errors of users' code show the traceback of his own frames."""
    environ = os.environ if environ is None else environ
    return environ.get("FLUVIAL_TRACEBACK", "").lower() not in {"", "0", "false", "no"}


def log_format_asked(environ: Mapping[str, str] | None = None) -> LogFormat:
    """FLUVIAL_LOG_FORMAT alone: whatever else is wrong has to be logged in some format. FLV-1002 for an unknown one."""
    merge = Merge(os.environ if environ is None else environ)
    if not merge.from_variable("log_format", "FLUVIAL_LOG_FORMAT"):
        return "human"
    try:
        asked: LogFormat = msgspec.convert(merge.values["log_format"], LogFormat)
    except msgspec.ValidationError:
        raise wrong("log_format", merge.values["log_format"], "human or json", merge) from None
    return asked


def java_home(environ: Mapping[str, str] | None = None) -> Path | None:
    """JAVA_HOME, when it is set: it chooses the Java that runs the broker."""
    environ = os.environ if environ is None else environ
    chosen = environ.get("JAVA_HOME")
    return Path(chosen) if chosen else None


def read_stack_file(home: Path) -> StackFile | None:
    """The local stack's description, or None when there has never been one.

    Raises UsageProblem: FLV-1003, the file is there and not readable as one.
    """
    return _read_json(stack_path(home), StackFile)


def read_credentials_file(home: Path, role: StackRole = ADMIN) -> CredentialsFile | None:
    """The local store's keys for a role, or None when there are none.

    Raises UsageProblem: FLV-1003, the file is there and not readable as one.
    """
    return _read_json(credentials_path(home, role), CredentialsFile)


def load_settings(
    home: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    role: StackRole = "reader",
) -> Settings:
    """Merge stack file, credentials and environment into validated settings.

    ``role``: as whom to speak to the local stack's services, where they are secured. Elsewhere the environment says it.

    Raises ConnectionProblem: FLV-1001, nothing says where Kafka or the store are (the stack is down). UsageProblem:
    FLV-1002, a value is not what it must be; FLV-1003, a file is damaged.
    """
    return load_settings_with_sources(home, environ, role=role)[0]


def load_settings_with_sources(
    home: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    role: StackRole = "reader",
) -> tuple[Settings, dict[str, str]]:
    """As ``load_settings``, with the source of each value, such as ``{"store.kind": "stack.json"}``."""
    environ = os.environ if environ is None else environ
    folder = resolve_home(home, environ)
    merge = Merge(environ)
    merge.put("home", str(folder), _home_source(home, environ))
    stack = read_stack_file(folder)
    if stack is not None and stack.running:
        _merge_stack(merge, folder, stack, role)
    _merge_environment(merge)
    _require_addresses(merge, folder, stack)
    return _build(merge), merge.sources


def load_key_settings(environ: Mapping[str, str] | None = None) -> KeySettings:
    """How private keys are opened, where nothing else of the settings is needed. UsageProblem FLV-1002."""
    merge = Merge(os.environ if environ is None else environ)
    _merge_keys(merge)
    return msgspec.convert(_within("key", merge.values), KeySettings, dec_hook=_path_from_text)


def _home_source(home: Path | str | None, environ: Mapping[str, str]) -> str:
    if home is not None:
        return "--home"
    return "FLUVIAL_HOME" if environ.get("FLUVIAL_HOME") else "default"


def _merge_stack(merge: Merge, folder: Path, stack: StackFile, role: StackRole) -> None:
    merge.put("bootstrap_servers", f"127.0.0.1:{stack.kafka_port}", "stack.json")
    if stack.secured:
        kafka = stack_security(folder, role)
        for field in msgspec.structs.fields(KafkaSecurity):
            if (value := getattr(kafka, field.name)) != field.default:
                merge.put(f"kafka.{field.name}", str(value), "stack.json")
    merge.put("update_bytes_max", stack.update_bytes_max, "stack.json")
    merge.put("store.kind", stack.store_kind, "stack.json")
    if stack.store_kind == "file":
        merge.put("store.path", str(file_store_path(folder)), "stack.json")
        return
    merge.put("store.endpoint", f"127.0.0.1:{stack.store_port}", "stack.json")
    merge.put("store.bucket", stack.bucket, "stack.json")
    if stack.store_secured:
        merge.put("store.secure", "true", "stack.json")
        merge.put("store.ca_file", str(stack_ca(folder)), "stack.json")
    whose = role if stack.store_secured else ADMIN
    credentials = read_credentials_file(folder, whose)
    if credentials is not None:
        source = str(credentials_path(folder, whose).relative_to(folder))
        merge.put("store.access_key", credentials.store_access_key, source)
        merge.put("store.secret_key", credentials.store_secret_key, source)


def _merge_environment(merge: Merge) -> None:
    merge.from_variable("bootstrap_servers", "FLUVIAL_BOOTSTRAP_SERVERS")
    merge.from_variable("update_bytes_max", "FLUVIAL_UPDATE_BYTES_MAX")
    merge.from_variable("log_format", "FLUVIAL_LOG_FORMAT")
    merge.from_variable("otlp_endpoint", "FLUVIAL_OTLP_ENDPOINT")
    merge.from_variable("trace_ratio", "FLUVIAL_TRACE_RATIO")
    if merge.environ.get("FLUVIAL_STORE_ENDPOINT") or merge.environ.get("FLUVIAL_STORE_PATH"):
        # Another store than the local stack's: its keys must not be sent there, so nothing of it is kept.
        for name in [name for name in merge.values if name.startswith("store.")]:
            del merge.values[name], merge.sources[name]
    if merge.from_variable("store.endpoint", "FLUVIAL_STORE_ENDPOINT"):
        _split_endpoint(merge)
        merge.put("store.kind", "s3", "FLUVIAL_STORE_ENDPOINT")
    if merge.from_variable("store.path", "FLUVIAL_STORE_PATH"):
        merge.put("store.kind", "file", "FLUVIAL_STORE_PATH")
    _merge_store(merge)
    if merge.sources.get("bootstrap_servers") == "FLUVIAL_BOOTSTRAP_SERVERS":
        # Another Kafka than the local stack's: how one gets into that one says nothing of this.
        for name in [name for name in merge.values if name.startswith("kafka.")]:
            del merge.values[name], merge.sources[name]
    for field in msgspec.structs.fields(KafkaSecurity):
        take = merge.secret_from if field.name in KAFKA_SECRETS else merge.from_variable
        take(f"kafka.{field.name}", f"FLUVIAL_KAFKA_{field.name.upper()}")
    _merge_keys(merge)


def _merge_keys(merge: Merge) -> None:
    for field in msgspec.structs.fields(KeySettings):
        take = merge.secret_from if field.name in KEY_SECRETS else merge.from_variable
        take(f"key.{field.name}", f"FLUVIAL_KEY_{field.name.upper()}")


def _merge_store(merge: Merge) -> None:
    for name in (
        "kind", "bucket", "secure", "region", "profile", "ca_file", "addressing", "encryption", "kms_key",
    ):  # fmt: skip
        merge.from_variable(f"store.{name}", f"FLUVIAL_STORE_{name.upper()}")
    # It stands in many environments for other programs: a store that is reached by http has no use for it.
    if "store.ca_file" not in merge.values and _is_secure(merge):
        merge.from_variable("store.ca_file", "AWS_CA_BUNDLE")
    for name in ("access_key", "secret_key", "session_token"):
        merge.secret_from(f"store.{name}", f"FLUVIAL_STORE_{name.upper()}")


def _is_secure(merge: Merge) -> bool:
    secure = merge.values.get("store.secure", False)
    return secure if isinstance(secure, bool) else str(secure).lower() in {"1", "true"}


def _split_endpoint(merge: Merge) -> None:
    """Accept a URL where a host:port is expected: its scheme says whether the connection is secure."""
    value = str(merge.values["store.endpoint"])
    if "://" not in value:
        return
    url = urlsplit(value)
    if url.scheme not in {"http", "https"} or url.path.strip("/") or not url.netloc or "@" in url.netloc:
        raise wrong("store.endpoint", value, "host:port, or a URL like https://store.example:9000", merge)
    has_port = url.netloc.rpartition(":")[2].isdigit()
    port = "" if has_port else (":443" if url.scheme == "https" else ":80")
    merge.put("store.endpoint", url.netloc + port, "FLUVIAL_STORE_ENDPOINT")
    merge.put("store.secure", url.scheme == "https", "FLUVIAL_STORE_ENDPOINT")


def _require_addresses(merge: Merge, folder: Path, stack: StackFile | None) -> None:
    missing = [name for name in ("bootstrap_servers", "store.kind") if name not in merge.values]
    if not missing:
        return
    state = "has never been started" if stack is None else "is down"
    variables = {"bootstrap_servers": "FLUVIAL_BOOTSTRAP_SERVERS", "store.kind": "FLUVIAL_STORE_ENDPOINT"}
    names = " and ".join(variables[name] for name in missing)
    raise ConnectionProblem(
        "FLV-1001",
        f"the local stack {state}, and {names} {'is' if len(missing) == 1 else 'are'} not set",
        where=f"home {folder}",
        hint="start it with `fluvial up`, or point at running services with FLUVIAL_BOOTSTRAP_SERVERS and "
        "FLUVIAL_STORE_ENDPOINT",
    )


def _build(merge: Merge) -> Settings:
    merge.default("update_bytes_max", UPDATE_BYTES_MAX_DEFAULT)
    merge.default("log_format", "human")
    merge.default("otlp_endpoint", "")
    merge.default("trace_ratio", TRACE_RATIO_DEFAULT)
    groups: dict[str, type[msgspec.Struct]] = {
        "store": StoreSettings,
        "kafka": KafkaSecurity,
        "key": KeySettings,
    }
    for group, kind in groups.items():
        for field in msgspec.structs.fields(kind):
            if field.default is not msgspec.NODEFAULT:
                merge.default(f"{group}.{field.name}", field.default)
    _put_proxy(merge)
    document = {name: value for name, value in merge.values.items() if "." not in name}
    document |= {group: _within(group, merge.values) for group in groups}
    try:
        # Not strict: environment variables are text, and "8388608" or "true" must become a number or a bool.
        settings = msgspec.convert(document, Settings, strict=False, dec_hook=_path_from_text)
    except msgspec.ValidationError as error:
        name = str(error).rpartition("`$.")[2].rstrip("`")
        raise wrong(name, merge.values.get(name), str(error).partition(" - at")[0], merge) from None
    check_addresses(settings, merge)
    check_store(settings.store, merge)
    check_kafka(settings.kafka, merge)
    return settings


def _within(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(f"{group}."): value
        for name, value in values.items()
        if name.startswith(f"{group}.")
    }


def _put_proxy(merge: Merge) -> None:
    endpoint = str(merge.values["store.endpoint"])
    if merge.values["store.kind"] == "file" or not is_address(endpoint):
        return
    proxy, source = proxy_of(merge.environ, endpoint, secure=_is_secure(merge))
    if proxy:
        merge.put("store.proxy", proxy, source)
        if not is_proxy(proxy):
            expected = "the URL of an HTTP proxy, such as http://proxy.example:3128"
            raise wrong("store.proxy", without_password(proxy), expected, merge)


def _path_from_text(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str) and value:
        return expanded(Path(value)).resolve()
    message = f"expected a path, got {value!r}"
    raise ValueError(message)


def _read_json(path: Path, kind: type[_Record]) -> _Record | None:
    try:
        return msgspec.json.decode(plain_utf8(path.read_bytes()), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise UsageProblem(
            "FLV-1003",
            f"{path.name} cannot be read: {error}",
            where=str(path),
            hint="move the file away and run `fluvial up`: it writes a new one"
            + (" (data in the store stays locked to the old keys)" if kind is CredentialsFile else ""),
        ) from error
