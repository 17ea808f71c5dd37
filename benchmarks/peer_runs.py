"""Running somebody else's system: an environment of its own, its processes watched, all of them ended afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

import psutil

from backends.environment import cache_dir

SAMPLE_S: Final = 0.25
RUN_TIMEOUT_S: Final = 900.0
INSTALL_TIMEOUT_S: Final = 600.0
END_TIMEOUT_S: Final = 10.0
TAIL_CHARACTERS: Final = 1500


@dataclass(frozen=True)
class Peer:
    """A system from the package index, and the version that the figures are of."""

    name: str
    requirements: tuple[str, ...]

    def environment(self) -> Path:
        """Its virtual environment, made where it is not there yet. SystemExit says why that failed."""
        version = "-".join(re.sub(r"[^\w.=]", "", one).replace("==", "-") for one in self.requirements)
        folder = cache_dir() / "peers" / f"{version}-py{sys.version_info.major}.{sys.version_info.minor}"
        ready = folder / ".ready"
        if not ready.exists():
            uv = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.defpath)))
            if uv is None:
                raise SystemExit("uv is not in this environment; make it: `make setup`")
            print(f"peers: {self.name} into {folder}", file=sys.stderr)
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._call([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
            python = str(folder / "bin" / "python")
            self._call([uv, "pip", "install", "--quiet", "--python", python, *self.requirements])
            ready.touch()
        return folder

    def _call(self, command: list[str]) -> None:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S
            )
            code, said = done.returncode, done.stderr.strip()
        except subprocess.TimeoutExpired:
            code, said = 1, f"no answer within {INSTALL_TIMEOUT_S:.0f} s"
        if code:
            raise SystemExit(
                f"cannot install {' '.join(self.requirements)} for {self.name}: is the package index reached? "
                f"UV_INDEX_URL names another; `--peers` leaves this one out. uv said:\n{said[-TAIL_CHARACTERS:]}"
            )


@dataclass
class Sample:
    """What the server's processes had used at a time: processor seconds since they began, and bytes in memory."""

    at_s: float
    cpu_s: float
    rss_bytes: int


@dataclass
class _Seen:
    """A process: whether it is the server's, whether it is ours to end, and the processor seconds it had used."""

    server: bool
    ours: bool
    used_s: float = 0.0


class Watch:
    """Follows processes and all their children; ends every one that it started, with what came of it.

    ``client_marks``: a process with one of these in its command line is a client's, whoever started it.
    """

    def __init__(self, client_marks: Sequence[str] = ()) -> None:
        self.samples: list[Sample] = []
        self._client_marks = client_marks
        self._children: list[subprocess.Popen[bytes]] = []
        self._seen: dict[psutil.Process, _Seen] = {}
        self._gone: set[psutil.Process] = set()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for end in (psutil.Process.terminate, psutil.Process.kill):
            self._look()  # who is told to end may have started others meanwhile
            running = [one for one, seen in self._seen.items() if seen.ours and one.is_running()]
            for process in running:
                with suppress(psutil.NoSuchProcess):
                    end(process)
            psutil.wait_procs(running, timeout=END_TIMEOUT_S)
        for child in self._children:
            child.wait(timeout=END_TIMEOUT_S)

    def start(
        self,
        command: Sequence[str],
        log: Path,
        *,
        cwd: Path,
        environment: Mapping[str, str],
        client: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, so that Ctrl-C reaches this program first."""
        with log.open("wb") as out:
            child = subprocess.Popen(
                command, stdout=out, stderr=out, cwd=cwd, env=dict(environment), start_new_session=True
            )
        self._children.append(child)
        with self._lock:
            self._seen[psutil.Process(child.pid)] = _Seen(server=not client, ours=True)
        return child

    def follow(self, pid: int) -> None:
        """Count a process of the server's that runs already, and that others will end."""
        with self._lock:
            self._seen[psutil.Process(pid)] = _Seen(server=True, ours=False)

    def _follow(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._look()

    def _look(self) -> None:
        children: dict[int, list[psutil.Process]] = {}
        for process in psutil.process_iter(["ppid"]):
            children.setdefault(process.info["ppid"], []).append(process)
        rss = 0
        with self._lock:
            waiting = [process for process in self._seen if process not in self._gone]
            while waiting:
                process = waiting.pop()
                seen = self._seen[process]
                with suppress(psutil.NoSuchProcess):
                    waiting += [child for child in children.get(process.pid, ()) if self._is_new(child, seen)]
                    if not process.is_running():
                        self._gone.add(process)
                    elif seen.server and self._is_client(process):
                        # It was seen between its fork and its exec, when it still had its parent's command line.
                        seen.server, seen.used_s = False, 0.0
                    elif seen.server:
                        times = process.cpu_times()
                        seen.used_s = times.user + times.system
                        rss += process.memory_info().rss
            used_s = sum(seen.used_s for seen in self._seen.values())
        self.samples.append(Sample(time.time(), used_s, rss))

    def _is_new(self, process: psutil.Process, parent: _Seen) -> bool:
        if process in self._seen:
            return False
        server = parent.server and not self._is_client(process)
        self._seen[process] = _Seen(server=server, ours=parent.ours)
        return True

    def _is_client(self, process: psutil.Process) -> bool:
        line = " ".join(process.cmdline()) if self._client_marks else ""
        return any(mark in line for mark in self._client_marks)

    def cpu_s(self, begin_s: float, end_s: float) -> float:
        """Processor seconds of the server between two times, from the samples around them."""
        return self._cpu_at(end_s) - self._cpu_at(begin_s)

    def _cpu_at(self, at_s: float) -> float:
        for before, after in pairwise(self.samples):
            if before.at_s <= at_s <= after.at_s:
                share = (at_s - before.at_s) / (after.at_s - before.at_s)
                return before.cpu_s + share * (after.cpu_s - before.cpu_s)
        raise SystemExit("a round ended while nobody looked: more --rounds")

    @property
    def peak_rss_mb(self) -> float:
        """The most that the server's processes had in memory at one time; pages that they share count in each."""
        return max(sample.rss_bytes for sample in self.samples) / 1e6


@dataclass
class Load:
    """What everybody gets to do: ``rounds`` rounds, in each of which each of ``clients`` clients sends one update."""

    parameters: int
    clients: int
    rounds: int
    warm: int = 2
    """Rounds before the clock starts: connections are made and code is loaded in them."""


@dataclass
class Result:
    """A row: ``ends_s`` are the times at which rounds ended."""

    system: str
    load: Load
    ends_s: list[float]
    watch: Watch
    seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = self.ends_s[-1] - self.ends_s[self.load.warm - 1]

    def document(self) -> dict[str, object]:
        """For JSON and the table."""
        measured = self.load.clients * (self.load.rounds - self.load.warm)
        cpu_s = self.watch.cpu_s(self.ends_s[self.load.warm - 1], self.ends_s[-1])
        return {
            "system": self.system,
            "parameters": self.load.parameters,
            "updates": measured,
            "seconds": round(self.seconds, 3),
            "updates_per_second": round(measured / self.seconds, 2),
            "server_cpu_ms_per_update": round(1000 * cpu_s / measured, 2),
            "server_peak_rss_mb": round(self.watch.peak_rss_mb),
        }


def own_environment(folder: Path, load: Load, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a peer's processes: its own programs first, no home but ``folder``, nobody told of it."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}  # noqa: TID251
    return passed | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "RAY_TMPDIR": str(folder),
        "PYTHONPATH": str(folder),
        "PEERS_PARAMETERS": str(load.parameters),
        "PEERS_CLIENTS": str(load.clients),
        "PEERS_ROUNDS_MAX": str(load.rounds),
        **extra,
    }


def await_rounds(
    ended: Callable[[], list[float]], load: Load, children: Sequence[subprocess.Popen[bytes]], log: Path
) -> list[float]:
    """The times at which rounds ended, once all have. SystemExit with the log's end where they do not."""
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while len(found := ended()) < load.rounds:
        failed = [child for child in children if child.poll() not in (None, 0)]
        if failed or time.monotonic() > deadline:
            why = (
                f"ended with {failed[0].returncode}" if failed else f"took longer than {RUN_TIMEOUT_S:.0f} s"
            )
            tail = log.read_text(errors="replace")[-TAIL_CHARACTERS:]
            raise SystemExit(f"{len(found)} of {load.rounds} rounds, then it {why}; its log:\n{tail}")
        time.sleep(SAMPLE_S)
    time.sleep(2 * SAMPLE_S)  # a sample behind the last round
    return found[: load.rounds]


def noted_rounds(path: Path, clients: int) -> list[float]:
    """What Flower's strategy wrote. SystemExit where a client's update is missing from a round."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for number, good, at_s in map(json.loads, lines):
        if good != clients:
            raise SystemExit(f"round {number} had {good} updates of {clients} clients")
        found.append(at_s)
    return found


def logged_rounds(path: Path, clients: int) -> list[float]:
    """What NVFlare's server says of each round's last update."""
    text = path.read_text(errors="replace") if path.exists() else ""
    stamps = re.findall(rf"^(\S+ \S+),(\d+) - .*Aggregated {clients}/{clients} results", text, re.MULTILINE)
    return [
        time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S")) + int(millis) / 1000
        for stamp, millis in stamps
    ]
