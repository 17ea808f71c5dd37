"""What ``fluvial doctor`` looks at. Each check is one function that returns its row and changes nothing.

The machine itself first (``fluvial.local.machine``), then what the stack is made of, then its services.
"""

from __future__ import annotations

import shlex
import shutil
import stat
import sys
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import urllib3
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from aggregation.errors import ConnectionProblem, FluvialError
from backends.environment import cache_dir, load_settings, read_stack_file
from backends.kafka.admin import admin_client, asked
from backends.kafka.diagnosis import require_no_refusal
from backends.kafka.topic_settings import HIDDEN, compare_topics, in_words, shown_values
from backends.settings import ADMIN, credentials_path, stack_security, store_keys_folder
from backends.store.conditional import RACERS, winners_of_a_race
from backends.store.factory import open_object_store
from backends.store.http import open_pool
from fluvial.local import downloads, tools
from fluvial.local.checks import Check, Status
from fluvial.local.files import PRIVATE_MODE
from fluvial.local.machine import examine_machine
from fluvial.local.stack import LocalStack
from fluvial.local.tool_files import properties_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backends.object_store import ObjectStore
    from backends.settings import Settings
    from fluvial.terminal.invocation import Invocation

PYTHON_MIN: Final = (3, 11)
PYTHON_BELOW: Final = (3, 13)
DISK_FREE_BYTES_MIN: Final = 2 * 1024**3
CLOCK_SKEW_S_MAX: Final = 60.0
_KAFKA_TIMEOUT_S: Final = 5.0
_LIMITS: Final = ("message.max.bytes", "replica.fetch.max.bytes", "socket.request.max.bytes")
_UP: Final = "fluvial up"


def examine(invocation: Invocation) -> list[Check]:
    """Run every check that applies: the machine's always, the stack's when something is configured."""
    home = invocation.home
    checks = [_python(), *examine_machine(home), _java(), _maven(), _go(), _disk(home), _credentials(home)]
    checks += _services(invocation.home)
    try:
        settings = load_settings(invocation.home_option, role="admin")
    except ConnectionProblem as error:
        return [*checks, Check("settings", "note", error.message, _UP)]
    except FluvialError as error:
        return [*checks, Check("settings", "problem", f"{error.error_id}: {error.message}", error.hint)]
    return [*checks, *_kafka(settings), *_proxy(settings), *_store(settings), _clock(settings)]


def _python() -> Check:
    version = sys.version.split()[0]
    if PYTHON_MIN <= sys.version_info[:2] < PYTHON_BELOW:
        return Check("python", "ok", version)
    return Check("python", "problem", f"{version}, needs 3.11 or 3.12", "make setup PYTHON=python3.11")


def _java() -> Check:
    java = tools.find_java()
    if java is None:
        return Check("java", "problem", "not found, Kafka needs 17 or later", tools.JAVA_HINT)
    if java.version < tools.JAVA_VERSION_MIN:
        return Check("java", "problem", f"{java.version_text}, Kafka needs 17 or later", tools.JAVA_HINT)
    return Check("java", "ok", f"{java.version_text} ({java.path})")


def _maven() -> Check:
    if downloads.kafka_jars_path().is_dir():
        return Check("kafka jars", "ok", f"cached in {downloads.kafka_jars_path()}")
    maven = tools.find_maven()
    if maven is None:
        return Check("maven", "problem", "not found, and Kafka's jars are not cached", tools.MAVEN_HINT)
    return Check("maven", "ok", f"{maven.version_text}; Kafka's jars come with the first `{_UP}`")


def _go() -> Check:
    if downloads.minio_binary_path().is_file():
        return Check("minio binary", "ok", f"cached in {downloads.minio_binary_path().parent}")
    problem = tools.go_problem()
    if problem:
        return Check("go", "note", f"{problem}: a file store takes MinIO's place", tools.GO_HINT)
    return Check("go", "ok", f"MinIO is built with the first `{_UP}` (about 3 minutes)")


def _disk(home: Path) -> Check:
    found = []
    worst: Status = "ok"
    for folder in (home, cache_dir()):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        found.append(f"{free / 1024**3:.1f} GiB free at {existing}")
        worst = "problem" if free < DISK_FREE_BYTES_MIN else worst
    mend = "make room, or move: FLUVIAL_HOME for data, FLUVIAL_CACHE for downloads" if worst != "ok" else ""
    return Check("disk", worst, ", ".join(dict.fromkeys(found)), mend)


def _credentials(home: Path) -> Check:
    paths = [
        path for path in (credentials_path(home), *store_keys_folder(home).glob("*.json")) if path.exists()
    ]
    if not paths:
        return Check("credentials", "ok", "none yet")
    for path in paths:
        if (mode := stat.S_IMODE(path.stat().st_mode)) != PRIVATE_MODE:
            found = f"mode {mode:o} of {path.name}, others may read the keys"
            return Check("credentials", "problem", found, f"chmod 600 {path}")
    return Check("credentials", "ok", "mode 600")


def _services(home: Path) -> list[Check]:
    try:
        if read_stack_file(home) is None:
            return [Check("stack", "note", "never started here", _UP)]
        statuses = LocalStack(home).status()
    except FluvialError as error:
        return [Check("stack", "problem", f"{error.error_id}: {error.message}", error.hint)]
    checks = []
    for service in statuses:
        if service.state == "running":
            pid = f" (pid {service.pid})" if service.pid else ""
            checks.append(Check(service.name, "ok", f"{service.address}{pid}"))
        elif service.state == "dead":
            checks.append(Check(service.name, "problem", "should run, and its process is gone", _UP))
        else:
            checks.append(Check(service.name, "note", "stopped", _UP))
    return checks


def _kafka(settings: Settings) -> list[Check]:
    try:
        require_no_refusal(settings)
    except FluvialError as error:
        return [Check("kafka answers", "problem", f"{error.error_id}: {error.message}", error.hint)]
    admin = admin_client(settings)
    try:
        metadata = admin.list_topics(timeout=_KAFKA_TIMEOUT_S)
        broker = next(iter(metadata.brokers))
        topics = sorted(name for name in metadata.topics if name.startswith("fl."))
        limits = _broker_limits(admin, broker, settings)
        return [
            Check("kafka answers", "ok", f"{settings.bootstrap_servers}, {len(topics)} topics of ours"),
            limits,
            _topics(admin, topics, settings),
        ]
    except KafkaException as error:
        found = (
            f"no answer from {settings.bootstrap_servers} in {_KAFKA_TIMEOUT_S:.0f} s: {error.args[0].str()}"
        )
        return [Check("kafka answers", "problem", found, f"{_UP}, or correct FLUVIAL_BOOTSTRAP_SERVERS")]


def _broker_limits(admin: AdminClient, broker: int, settings: Settings) -> Check:
    try:
        values = _configuration(admin, ResourceType.BROKER, str(broker))
    except KafkaException as error:
        if error.args[0].code() not in HIDDEN:
            raise
        values = {}
    hidden = [name for name in _LIMITS if name not in values]
    low = [
        f"{name}={values[name]}"
        for name in _LIMITS
        if int(values.get(name, settings.message_bytes_max)) < settings.message_bytes_max
    ]
    if low:
        found = f"broker has {', '.join(low)}, an update may need {settings.message_bytes_max}"
        return Check(
            "message limits", "problem", found, f"{_UP} --update-bytes-max {settings.update_bytes_max}"
        )
    if hidden:
        found = f"the broker does not show {', '.join(hidden)}"
        return Check(
            "message limits", "note", found, "let a Kafka user with DescribeConfigs run `fluvial doctor`"
        )
    return Check(
        "message limits", "ok", f"broker, producers and consumers agree on {settings.message_bytes_max} bytes"
    )


def _topics(admin: AdminClient, topics: Sequence[str], settings: Settings) -> Check:
    compared = compare_topics(admin, topics, settings)
    if not compared.differ and compared.hidden:
        found = f"the settings of {len(compared.hidden)} of {len(topics)} may not be seen from here"
        return Check("topics", "note", found, "let a Kafka user with DescribeConfigs run `fluvial doctor`")
    if not compared.differ:
        return Check("topics", "ok", f"{len(topics)} checked")
    topic, differing = next(iter(compared.differ.items()))
    added = ",".join(f"{name}={wanted}" for name, (_, wanted) in differing.items())
    mend = (
        f"{_config_tool()} --bootstrap-server {settings.bootstrap_servers}{_as_administrator(settings)} "
        f"--alter --entity-type topics --entity-name {topic} --add-config {added}"
    )
    return Check("topics", "problem", in_words(compared.differ), mend)


def _config_tool() -> str:
    """Kafka's own tool: on this machine by the jars that the local stack has, elsewhere by its script."""
    jars = downloads.kafka_jars_path()
    if not jars.is_dir():
        return "kafka-configs.sh"
    return f"java -cp {shlex.quote(f'{jars}/*')} kafka.admin.ConfigCommand"


def _as_administrator(settings: Settings) -> str:
    path = properties_file(settings.home)
    is_ours = settings.kafka == stack_security(settings.home, ADMIN)
    return f" --command-config {shlex.quote(str(path))}" if is_ours and path.exists() else ""


def _configuration(admin: AdminClient, kind: ResourceType, name: str) -> dict[str, str]:
    resource = ConfigResource(kind, name)
    future = asked(admin.describe_configs([resource], request_timeout=_KAFKA_TIMEOUT_S))[resource]
    return shown_values(future.result())


def _proxy(settings: Settings) -> list[Check]:
    if not settings.store.proxy:
        return []
    found = f"the store is asked through {settings.store.shown().proxy}; Kafka knows no proxies"
    return [Check("proxy", "ok", found, "NO_PROXY names those that are asked directly")]


def _store(settings: Settings) -> list[Check]:
    try:
        store = open_object_store(settings.store)
        store.exists("doctor/probe")
        answers = Check("store answers", "ok", store.describe())
        return [answers, _race(store)]
    except FluvialError as error:
        return [Check("store answers", "problem", f"{error.error_id}: {error.message}", error.hint)]


def _race(store: ObjectStore) -> Check:
    won = winners_of_a_race(store)
    if won == 1:
        return Check("conditional writes", "ok", f"{RACERS} racers, one winner")
    found = f"{RACERS} racers, {won} winners: two mergers could both publish a version"
    return Check("conditional writes", "problem", found, "use a store that honours If-None-Match: * on PUT")


def _clock(settings: Settings) -> Check:
    if settings.store.kind == "file":
        return Check("clock", "ok", _now())
    try:
        pool = open_pool(settings.store)
        answer = pool.request("GET", settings.store.url, timeout=_KAFKA_TIMEOUT_S, retries=False)
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (urllib3.exceptions.HTTPError, KeyError, ValueError):
        return Check("clock", "note", f"{_now()}; the store tells no time to compare with")
    skew_s = time.time() - theirs
    if abs(skew_s) > CLOCK_SKEW_S_MAX:
        found = f"{_now()}, {skew_s:+.0f} s against the store's"
        return Check("clock", "problem", found, "set the clock: `sudo timedatectl set-ntp true`")
    return Check("clock", "ok", f"{_now()}, within {max(1.0, abs(skew_s)):.0f} s of the store's")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
