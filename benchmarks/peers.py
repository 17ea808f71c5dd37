"""Fluvial beside Flower and NVFlare, in one run: rounds in which every client sends one update and trains nothing.

    python benchmarks/peers.py [--peers NAME ...] [--parameters 100000 ...] [--clients 8] [--rounds 10] [--json]

Each peer is installed from the package index into a virtual environment of its own in the cache (`fluvial doctor` names
it), at the versions in this file. Everybody's server and clients run on this machine, a process a client. Time runs
from the end of round 2 to the end of the last. What can be compared and what cannot stands in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from backends import keys
from backends.environment import child_environment
from backends.kafka.reading import LogReader
from backends.tasks import keys_folder
from benchmarks import machine, peer_programs, synthetic
from benchmarks.peer_runs import (
    Load,
    Peer,
    Result,
    Watch,
    await_rounds,
    logged_rounds,
    noted_rounds,
    own_environment,
)
from fluvial.local import ports
from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from schemas.certificates import Role
from schemas.envelope import open_envelope
from schemas.topics import models_topic

FLOWER: Final = Peer("Flower", ("flwr[simulation]==1.42.0", "numpy==2.4.6"))
NVFLARE: Final = Peer("NVFlare", ("nvflare==2.9.0", "numpy==2.4.6"))
ROOT: Final = Path(__file__).parents[1]
TASK: Final = "peers"
ROUNDS_MIN: Final = 4
CLIENTS_MIN: Final = 2
PARAMETERS_MIN: Final = 1000
START_TIMEOUT_S: Final = 120.0
QUIET: Final = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def fluvial(folder: Path, load: Load) -> Result:
    """Kafka, MinIO, a worker, a merger; the clients are the SDK's devices. int8 updates, as by default."""
    stack = LocalStack(folder / ".fluvial", reporter=Output(quiet=True), secured=False)
    try:
        settings = stack.up()
        made = synthetic.create(
            settings,
            task=TASK,
            parameters=load.parameters,
            partitions=1,
            devices=load.clients,
            policy={
                "updates": {"norm_clip": 10.0},
                "window": {"updates_max": load.clients},
                "buffer": {"updates": load.clients},
            },
        )
        command = [sys.executable, "-m", "fluvial.cli", "--home", str(settings.home)]
        with Watch() as watch, LogReader(settings, "peers") as reader:
            for service in stack.status():
                if service.pid:
                    watch.follow(service.pid)
            children = []
            for role, where in (("worker", ["--region", made.region]), ("merger", [])):
                line = [*command, role, "--task", TASK, "--name", role, *where]
                log = folder / f"{role}.log"
                children.append(watch.start(line, log, cwd=ROOT, environment=child_environment()))
            for device in made.devices:
                key = keys.signer_path(keys_folder(settings.home, TASK), made.region, Role.DEVICE, device)
                line = [sys.executable, "-m", "benchmarks.peer_device", str(settings.home)]
                line += [TASK, made.region, str(key), str(load.rounds)]
                log = folder / f"{device}.log"
                started = watch.start(line, log, cwd=ROOT, environment=child_environment(), client=True)
                children.append(started)

            def announced() -> list[float]:
                """When versions 1, 2, … were announced (LogAppendTime)."""
                found: dict[int, float] = {}
                low, high = reader.bounds(models_topic(TASK), 0)
                for record in reader.read(models_topic(TASK), 0, low, high):
                    version = open_envelope(record.value or b"").record["version"]
                    found.setdefault(version, record.timestamp_ms / 1000)
                return [at_s for version, at_s in sorted(found.items()) if version]

            ends = await_rounds(announced, load, children, folder / "worker.log")
        return Result("Fluvial", load, ends, watch)
    finally:
        stack.down()


def _flower_app(folder: Path) -> None:
    (folder / "peer").mkdir()
    (folder / "peer" / "__init__.py").touch()
    (folder / "peer" / "apps.py").write_text(peer_programs.FLOWER_APPS)


def flower_simulation(folder: Path, load: Load) -> Result:
    """Flower's simulation: server and clients' states in one process, clients' work in Ray's actors."""
    python = FLOWER.environment() / "bin" / "python"
    _flower_app(folder)
    (folder / "simulate.py").write_text(peer_programs.FLOWER_SIMULATION)
    noted, log = folder / "rounds.jsonl", folder / "simulation.log"
    environment = own_environment(folder, load, {**QUIET, "PEERS_ROUNDS": str(noted)})
    with Watch(("ray::", "default_worker.py")) as watch:
        child = watch.start([str(python), "simulate.py"], log, cwd=folder, environment=environment)
        ends = await_rounds(lambda: noted_rounds(noted, load.clients), load, [child], log)
    return Result("Flower, simulation", load, ends, watch)


def flower_deployment(folder: Path, load: Load) -> Result:
    """Flower as it is deployed: a SuperLink, a SuperNode a client, a process an update; no TLS, state in memory."""
    programs = FLOWER.environment() / "bin"
    _flower_app(folder)
    (folder / "pyproject.toml").write_text(peer_programs.FLOWER_PROJECT)
    address = f"127.0.0.1:{ports.choose()}"
    (folder / "config.toml").write_text(peer_programs.FLOWER_CONFIGURATION.format(address=address))
    noted, log = folder / "rounds.jsonl", folder / "superlink.log"
    environment = own_environment(
        folder, load, {**QUIET, "FLWR_HOME": str(folder), "PEERS_ROUNDS": str(noted)}
    )
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    with Watch() as watch:
        children = []
        host, port = address.split(":")
        line = [str(programs / "flower-superlink"), "--insecure", "--disable-runtime-dependency-installation"]
        line += ["--host", host, "--port", port]
        children.append(watch.start(line, log, cwd=folder, environment=environment))
        _await_port(int(port), children, log)
        taken = {int(port)}
        for number in range(load.clients):
            taken.add(own := ports.choose(avoid=frozenset(taken)))
            line = [str(programs / "flower-supernode"), "--insecure", "--superlink", address]
            line += ["--host", host, "--port", str(own)]
            node = folder / f"supernode-{number}.log"
            children.append(watch.start(line, node, cwd=folder, environment=environment, client=True))
        line = [str(programs / "flwr"), "run", str(folder), "peers"]
        submitted = folder / "run.log"
        children.append(watch.start(line, submitted, cwd=folder, environment=environment, client=True))
        ends = await_rounds(lambda: noted_rounds(noted, load.clients), load, children, submitted)
    return Result("Flower, deployment", load, ends, watch)


def _await_port(port: int, children: Sequence[subprocess.Popen[bytes]], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ports.is_listening(port):
        if time.monotonic() > deadline or any(child.poll() is not None for child in children):
            raise SystemExit(f"nothing listens on port {port}; the log:\n{log.read_text(errors='replace')}")
        time.sleep(0.2)


def nvflare(folder: Path, load: Load) -> Result:
    """NVFlare's simulator, a process a client; they ask for tasks every 50 ms instead of every 2 s."""
    python = NVFLARE.environment() / "bin" / "python"
    (folder / "client.py").write_text(peer_programs.NVFLARE_CLIENT)
    (folder / "job.py").write_text(peer_programs.NVFLARE_JOB)
    log = folder / "job.log"
    environment = own_environment(folder, load, {"PEERS_WORKSPACE": str(folder / "workspace")})
    with Watch(("simulator_worker",)) as watch:
        child = watch.start([str(python), "job.py"], log, cwd=folder, environment=environment)
        ends = await_rounds(lambda: logged_rounds(log, load.clients), load, [child], log)
    return Result("NVFlare, simulator", load, ends, watch)


SYSTEMS: Final[dict[str, Callable[[Path, Load], Result]]] = {
    "fluvial": fluvial,
    "flower": flower_simulation,
    "flower-deployment": flower_deployment,
    "nvflare": nvflare,
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peers", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="which, in this order"
    )
    parser.add_argument(
        "--parameters", nargs="+", type=int, default=[100_000, 1_000_000], help="float32, of the model"
    )
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10, help="of which the first two are not measured")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    if (
        options.rounds < ROUNDS_MIN
        or options.clients < CLIENTS_MIN
        or min(options.parameters) < PARAMETERS_MIN
    ):
        parser.error(
            f"at least {ROUNDS_MIN} rounds, {CLIENTS_MIN} clients and {PARAMETERS_MIN} parameters are needed"
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load_before = psutil.getloadavg()
    rows = []
    try:
        for peer in (FLOWER, NVFLARE):
            if any(name.startswith(peer.name.lower()) for name in options.peers):
                peer.environment()
        for parameters in options.parameters:
            for name in options.peers:
                print(f"peers: {name}, {parameters} parameters", file=sys.stderr)
                with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as folder:
                    load = Load(parameters, options.clients, options.rounds)
                    rows.append(SYSTEMS[name](Path(folder), load).document())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    report = {
        "machine": machine.describe(),
        "load_average": [round(one, 1) for one in load_before],
        "peers": [*FLOWER.requirements, *NVFLARE.requirements],
        "clients": options.clients,
        "rounds": options.rounds,
        "runs": rows,
    }
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(
        f"{machine.describe()}, load {load_before[0]:.1f} before\n{options.clients} clients, {options.rounds} rounds"
    )
    print(f"{'parameters':>10}  {'system':<20}  updates/s  server CPU, ms an update  server RSS, MB")
    for row in rows:
        print(
            f"{row['parameters']:>10}  {row['system']:<20}  {row['updates_per_second']:>9}  "
            f"{row['server_cpu_ms_per_update']:>24}  {row['server_peak_rss_mb']:>14}"
        )


if __name__ == "__main__":
    main()
