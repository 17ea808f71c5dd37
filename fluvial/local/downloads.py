"""Kafka's jars and the binaries of MinIO and Toxiproxy: fetched or built once per user, kept by their exact version.

A download goes to a folder of its own and takes its final name in one step when it is complete, so an
interrupted one leaves nothing that could be taken for a whole one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aggregation.errors import EnvironmentProblem
from backends.caches import has_home
from backends.environment import cache_dir, child_environment
from fluvial.local import files, tools
from fluvial.local.pinned import read_pins, unpinned
from fluvial.local.resources import infra_file
from fluvial.processes.signals import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fluvial.terminal.output import Reporter, Waiting

    _Detail = Callable[[], str]
    _Progress = Callable[[Path], str]

MINIO_MODULE: Final = "github.com/minio/minio"
TOXIPROXY_MODULE: Final = "github.com/Shopify/toxiproxy/v2/cmd/server"
KAFKA_PINS: Final = "kafka/jars.sha256"
BUILD_TIMEOUT_S: Final = 1800.0
"""How long one process waits for another that builds the same thing."""
_POLL_S: Final = 0.5
_ABANDONED_AFTER_S: Final = 24 * 3600.0
_TAIL_LINES: Final = 5


def kafka_jars_path() -> Path:
    """Where the jars of the pinned Kafka are, or would be."""
    pinned = infra_file("kafka/pom.xml").read_bytes() + infra_file(KAFKA_PINS).read_bytes()
    digest = hashlib.sha256(pinned).hexdigest()
    return cache_dir() / f"kafka-{digest[:16]}"


def minio_binary_path() -> Path:
    """Where the binary of the pinned MinIO is, or would be."""
    return cache_dir() / f"minio-{_minio_version()}" / "minio"


def kafka_jars(reporter: Reporter) -> Path:
    """The folder of Kafka's jars, fetched with Maven if it is not there yet (about 45 MB).

    Raises EnvironmentProblem: FLV-1005 no Maven, FLV-1006 the download failed, FLV-1025 it is not what was pinned,
    FLV-1015 the cache cannot be written.
    """
    final = kafka_jars_path()
    if final.is_dir() or _adopted_jars(final):
        return final
    maven = tools.require_maven()
    with _one_at_a_time(final, "another process to fetch Kafka's jars", reporter):
        if not final.is_dir():
            _fetch_kafka_jars(final, maven.path, reporter)
    return final


def _jars_of_before() -> Path:
    """Where releases before the list of hashes kept the jars of the same pom."""
    return cache_dir() / f"kafka-{hashlib.sha256(infra_file('kafka/pom.xml').read_bytes()).hexdigest()[:16]}"


def _adopted_jars(final: Path) -> bool:
    """Take the jars of an earlier release, if they are there and are those that are pinned: no network is needed."""
    before = _jars_of_before()
    if not before.is_dir() or unpinned(before, read_pins(infra_file(KAFKA_PINS).read_text(encoding="utf-8"))):
        return False
    with _new_folder(final) as folder:
        shutil.copytree(before, folder, dirs_exist_ok=True)
    return True


def _fetch_kafka_jars(final: Path, maven: str, reporter: Reporter) -> None:
    reporter.say("Kafka: fetching its jars with Maven, once (about 45 MB)")
    with _new_folder(final) as folder:
        command = [
            *(maven, "--batch-mode", "--quiet", "--file", str(infra_file("kafka/pom.xml"))),
            *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"),
        ]
        code, tail = _run(
            command,
            {},
            folder.parent,
            what="Maven to fetch Kafka's jars",
            reporter=reporter,
            progress=_jar_count(folder),
        )
        if code != 0 or not any(folder.glob("kafka_*.jar")):
            raise EnvironmentProblem(
                "FLV-1006",
                f"Maven could not fetch Kafka's jars (exit {code})",
                where=tail,
                hint="check the network (and proxy or mirror in ~/.m2/settings.xml), then repeat the command",
            )
        require_pinned(folder)


def require_pinned(folder: Path) -> None:
    """EnvironmentProblem FLV-1025 unless the jars in ``folder`` are those whose hashes stand in the source tree."""
    problems = unpinned(folder, read_pins(infra_file(KAFKA_PINS).read_text(encoding="utf-8")))
    if problems:
        raise EnvironmentProblem(
            "FLV-1025",
            f"{len(problems)} of Kafka's jars are not what was pinned: {problems[0]}",
            where=str(infra_file(KAFKA_PINS)),
            hint="remove it from ~/.m2/repository and repeat the command; if it lasts, ask whoever runs the mirror",
        )


def minio_is_possible() -> bool:
    """Whether MinIO is there, or can be built."""
    return minio_binary_path().is_file() or not tools.go_problem()


def minio_binary(reporter: Reporter) -> Path:
    """The MinIO server, built with Go if it is not there yet (about 3 minutes on two cores).

    Raises EnvironmentProblem: FLV-1014 no Go, FLV-1007 the build failed, FLV-1015 the cache cannot be written.
    """
    final = minio_binary_path()
    if final.is_file():
        return final
    problem = tools.go_problem()
    if problem:
        message = f"MinIO is built once with Go 1.24 or later, and {problem}"
        raise EnvironmentProblem("FLV-1014", message, hint=tools.GO_HINT)
    with _one_at_a_time(final.parent, "another process to build MinIO", reporter):
        if not final.is_file():
            _build_minio(final, reporter)
    return final


def _build_minio(final: Path, reporter: Reporter) -> None:
    def failed(code: int, tail: str) -> EnvironmentProblem:
        return EnvironmentProblem(
            "FLV-1007",
            f"Go could not build MinIO (exit {code})",
            where=tail,
            hint="check the network and repeat, or use the file store: `fluvial up --store file`",
        )

    reporter.say("MinIO: building it with Go, once (about 3 minutes on two cores)")
    _build_with_go(f"{MINIO_MODULE}@{_minio_version()}", final, failed, reporter, what="MinIO")


def toxiproxy_binary(reporter: Reporter) -> Path:
    """The Toxiproxy server, built with Go if it is not there yet (some 20 seconds). For ``fluvial chaos``.

    Raises EnvironmentProblem: FLV-6405 no Go, or the build failed; FLV-1015 the cache cannot be written.
    """
    version = infra_file("toxiproxy/version.txt").read_text(encoding="utf-8").strip()
    final = cache_dir() / f"toxiproxy-{version}" / "server"
    if final.is_file():
        return final
    problem = tools.go_problem()
    if problem:
        raise _no_toxiproxy(f"it is built once with Go 1.24 or later, and {problem}")
    with _one_at_a_time(final.parent, "another process to build Toxiproxy", reporter):
        if not final.is_file():
            reporter.say("Toxiproxy: building it with Go, once")
            _build_with_go(
                f"{TOXIPROXY_MODULE}@{version}",
                final,
                lambda code, tail: _no_toxiproxy(f"Go could not build it (exit {code})", where=tail),
                reporter,
                what="Toxiproxy",
            )
    return final


def _no_toxiproxy(reason: str, where: str = "") -> EnvironmentProblem:
    return EnvironmentProblem(
        "FLV-6405",
        f"network faults need Toxiproxy: {reason}",
        where=where,
        hint="mend that, or leave them out: `fluvial chaos --faults kill,pause,disk`",
    )


def _build_with_go(
    module: str,
    final: Path,
    failed: Callable[[int, str], EnvironmentProblem],
    reporter: Reporter,
    *,
    what: str,
) -> None:
    """Build the binary ``final`` of a Go module. Raises what ``failed`` makes of exit code and last lines."""
    with _new_folder(final.parent) as folder:
        command = ["go", "install", "-v", "-ldflags=-s -w", module]
        # The flags of the user's own projects (vendoring, build ids) do not apply to this build.
        environment = {"GOBIN": str(folder), "GOFLAGS": "", "CGO_ENABLED": "0"}
        code, tail = _run(
            command,
            environment,
            folder.parent,
            what=f"Go to build {what}",
            reporter=reporter,
            progress=_package_count,
        )
        if code != 0 or not (folder / final.name).is_file():
            raise failed(code, tail)


def _minio_version() -> str:
    return infra_file("minio/version.txt").read_text(encoding="utf-8").strip()


def _jar_count(folder: Path) -> _Progress:
    def progress(_log: Path) -> str:
        return f"{len(list(folder.glob('*.jar')))} jars"

    return progress


def _package_count(log: Path) -> str:
    lines = log.read_bytes().count(b"\n")
    return f"{lines} packages so far" if lines else "downloading"


@contextlib.contextmanager
def _one_at_a_time(final: Path, what: str, reporter: Reporter) -> Iterator[None]:
    """Homes share the cache: two that start at once shall not both fetch. FLV-1015 if the cache cannot be written."""
    with contextlib.ExitStack() as held:
        with _writable(final.parent):
            lock = final.with_name(f"{final.name}.lock")
            held.enter_context(files.exclusive(lock, reporter, what, timeout_s=BUILD_TIMEOUT_S))
        yield


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Make ``folder``; FLV-1015 where it, or something in it, cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-1015",
            f"cannot write to {folder}: {error.strerror}",
            hint="make it writable, or choose another cache with FLUVIAL_CACHE",
        ) from error


@contextlib.contextmanager
def _new_folder(final: Path) -> Iterator[Path]:
    """A folder to fill; it becomes ``final`` if the block ends well, and is removed otherwise."""
    with _writable(final.parent):
        _remove_abandoned(final)
        temporary = Path(tempfile.mkdtemp(prefix=f"{final.name}.partial-", dir=final.parent))
    try:
        target = temporary / "content"
        target.mkdir()
        yield target
        try:
            target.rename(final)
        except OSError:
            # Another process may have finished first: its copy is as good as ours.
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(final: Path) -> None:
    """Remove what downloads left that were killed outright. A day old: nobody is still at it."""
    for folder in final.parent.glob(f"{final.name}.partial-*"):
        if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(folder, ignore_errors=True)


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    what: str,
    reporter: Reporter,
    progress: _Progress,
) -> tuple[int, str]:
    """Run a long command, saying how far it is: (exit code, the last lines of its output)."""
    log_path = folder / "log"
    with log_path.open("wb") as log, reporter.waiting(what) as waiting:
        child = None
        try:
            with undisturbed():
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Go and Maven keep what they fetch in the user's home, and a user need not have one.
                    env=child_environment({**({} if has_home() else {"HOME": str(folder)}), **environment}),
                    start_new_session=True,
                )
            _wait(child, waiting, lambda: progress(log_path))
        except BaseException:
            # Interrupted: take the compiler and its children along.
            if child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            raise
    lines = [line for line in log_path.read_text("utf-8", "replace").splitlines() if line.strip()]
    return child.returncode, "\n  ".join(lines[-_TAIL_LINES:])


def _wait(child: subprocess.Popen[bytes], waiting: Waiting, progress: _Detail) -> None:
    while True:
        try:
            child.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            waiting.note(progress())
        else:
            return
