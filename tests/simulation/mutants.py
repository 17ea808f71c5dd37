"""Proof that the simulator bites: each mutation takes a safeguard away, and some seed has to notice.

``python -m tests.simulation.mutants`` runs every mutation in a copy of the sources. Exit code 0: all caught; 1: one
lived, or the sources no longer hold the lines that a mutation changes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("aggregation", "schemas", "backends", "learning", "producers", "stream_apps", "fluvial", "tests")
SEEDS_MAX = 400
TIMEOUT_S = 300.0
RAISED = ("AttributeError", "NameError", "ImportError", "SyntaxError", "TypeError")
"""What a mutation that is no longer valid code ends in: that is not a catch."""


@dataclass(frozen=True)
class Mutation:
    """``edits`` are (file, old, new); each old text stands in its file exactly once."""

    name: str
    edits: tuple[tuple[str, str, str], ...]


WORKER, FOLD, TAIL = (
    "stream_apps/worker/partition.py",
    "aggregation/fold/transition.py",
    "stream_apps/worker/resume_point.py",
)
MERGER, AGGREGATES, STORE = (
    "stream_apps/merger/merger.py",
    "aggregation/server/aggregates.py",
    "backends/store/task_store.py",
)
LOOP = "                async for one in self._records(min(self.state.next_offset, record.offset), record):\n"
SEALING, ADMISSION = "schemas/windows.py", "aggregation/fold/admission.py"

MUTATIONS = (
    Mutation(
        "the offset check: a record that comes twice is folded twice",
        (
            (
                FOLD,
                "    if offset < state.next_offset:\n        return ()\n",
                "    offset = state.next_offset\n",
            ),
            (WORKER, "        if record.offset < state.next_offset:\n            return\n", ""),
        ),
    ),
    Mutation(
        "the gap check: a record that the framework lost is passed over",
        (
            (FOLD, "    if offset > state.next_offset:\n", "    state.next_offset = offset\n    if False:\n"),
            (
                WORKER,
                LOOP,
                "                for one in (record,):\n",
            ),
        ),
    ),
    Mutation(
        "the dedup: a device may contribute to one base as often as it likes",
        ((ADMISSION, "    if update.device_id in state.counted.get(base, ()):\n", "    if False:\n"),),
    ),
    Mutation(
        "the partition check: a copy in another partition counts too",
        ((ADMISSION, "    if home != state.partition:\n", "    if False:\n"),),
    ),
    Mutation(
        "the conditional header: a manifest is written over the one that stands",
        (
            (
                STORE,
                "        return self.store.create(objects.manifest_key(self.task, version), manifest)\n",
                "        self.store.put(objects.manifest_key(self.task, version), manifest)\n        return True\n",
            ),
        ),
    ),
    Mutation(
        "the sequence check: a window is merged again when it comes again",
        (
            (
                AGGREGATES,
                "        if known is not None or sequence < self._next[slot]:\n            return False\n",
                "        self._next[slot] = sequence\n        self._known.pop((slot, sequence - 1), None)\n",
            ),
        ),
    ),
    Mutation(
        "the cursors: what a version holds stays waiting for the next",
        (
            (
                AGGREGATES,
                "        self._waiting = [a for a in self._waiting if a.sequence >= cursors[a.slot]]\n",
                "",
            ),
        ),
    ),
    Mutation(
        "barriers before the announcement: devices are told first",
        (
            (
                "stream_apps/merger/telling.py",
                "            self._write_barriers(version, region, headers)\n",
                (
                    "            self._announce(version, region, headers)\n"
                    "            self._write_barriers(version, region, headers)\n"
                ),
            ),
        ),
    ),
    Mutation(
        "the hash comparison: damaged bytes are taken as they come",
        ((STORE, "        if sha256_hex(data) != sha256:\n", "        if False:\n"),),
    ),
    Mutation(
        "the resume override: a worker goes on where its group has committed",
        (
            (
                "stream_apps/worker/region.py",
                "await asyncio.gather(*(self.partitions[partition].resume() for partition in mine))\n",
                "[]\n",
            ),
            (
                "stream_apps/worker/region.py",
                "        offsets = dict(zip(mine, found, strict=True))\n",
                "        offsets = {}\n",
            ),
            (
                WORKER,
                LOOP,
                "                self.state.next_offset = max(self.state.next_offset, record.offset)\n"
                + LOOP,
            ),
        ),
    ),
    Mutation(
        "state in the snapshot: who has contributed is forgotten",
        (
            (
                SEALING,
                '        counted={entry["version"]: set(entry["devices"]) for entry in record["counted"]},\n',
                "        counted={},\n",
            ),
        ),
    ),
    Mutation(
        "state in the snapshot: the norms of the detector are forgotten",
        ((SEALING, '        history=NormHistory(record["norms"]),\n', "        history=NormHistory([]),\n"),),
    ),
    Mutation(
        "verdicts before the aggregate: a window is published while its verdicts are on their way",
        (
            (
                WORKER,
                '        retry_through_outage(f"publish the verdicts of {self}", self._flush_verdicts, clock=outside.clock)\n',  # noqa: E501
                "        self._verdicts.clear()\n",
            ),
        ),
    ),
    Mutation(
        "objects before the aggregate: a window is published before what it names is stored",
        (
            (
                WORKER,
                "        for data in encoded.objects.values():\n",
                "        for data in encoded.objects.values() if self._tick is None else ():\n",
            ),
        ),
    ),
    Mutation(
        "the outbox: a window's effects are begun and not finished when the agent is cancelled",
        (
            (
                WORKER,
                "            await asyncio.to_thread(self._publish_window, self._outbox[0])\n",
                "            await asyncio.to_thread(self._publish_window, self._outbox.popleft())\n",
            ),
            (WORKER, "            self._outbox.popleft()\n", ""),
            (
                WORKER,
                "            await asyncio.shield(self._draining)\n",
                "            await self._draining\n",
            ),
        ),
    ),
    Mutation(
        "standing verdicts: a restarted worker takes the newest verdict for all of them",
        (
            (
                WORKER,
                "        standing = self._published.pop(verdict.offset, None)\n",
                (
                    "        newest = max(self._published, default=-1)\n"
                    "        standing = value if verdict.offset <= newest + 1 else None\n"
                ),
            ),
        ),
    ),
    Mutation(
        "the parent's hash: a version does not name the one before it",
        (
            (
                "stream_apps/merger/deciding.py",
                "        parent_sha256=head.manifest_sha256,\n",
                "        parent_sha256=head.model_sha256,\n",
            ),
        ),
    ),
    Mutation(
        "old barriers: a late merger sets a partition back",
        (
            (
                "aggregation/fold/state.py",
                " and barrier.version > self.version",
                "",
            ),
        ),
    ),
    Mutation(
        "the head after a lost race: the loser goes on from its own",
        (
            (
                MERGER,
                "        self._adopt_head()\n        self.context.observer.adopted(self.head",
                "        self.context.observer.adopted(self.head",
            ),
        ),
    ),
    Mutation(
        "acknowledged barriers: devices are told while a version's barriers are on their way",
        (
            (
                "stream_apps/merger/telling.py",
                (
                    '        self._flush(f"write the barriers of version {version.number} to {region}")\n'
                    "        for future in written:\n            future.result(timeout=0)\n"
                ),
                "",
            ),
        ),
    ),
)


def copy_of_sources(folder: Path) -> None:
    """The sources, beside nothing else."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)


def mutate(mutation: Mutation, folder: Path) -> None:
    """Change the sources in ``folder``; LookupError where they no longer hold what the mutation changes."""
    for file, old, new in mutation.edits:
        text = (folder / file).read_text()
        if text.count(old) != 1:
            raise LookupError(f"{mutation.name}: {file} holds {old!r} {text.count(old)} times, expected once")
        (folder / file).write_text(text.replace(old, new))


def simulate(folder: Path, seeds: int) -> tuple[int, str]:
    """The exit code of the simulator on the sources in ``folder``, and its first violation."""
    command = [
        sys.executable,
        "-m",
        "tests.simulation",
        "--seeds",
        str(seeds),
        "--until-violation",
        "--jobs",
        "1",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    said = [line for line in done.stderr.splitlines() if line.startswith("seed ")]
    return done.returncode, said[0] if said else done.stderr.strip()[-400:]


def try_one(mutation: Mutation, seeds: int) -> dict[str, object]:
    """Whether the mutation is caught, by which seed, and what it said."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fluvial-mutant-") as name:
        folder = Path(name)
        copy_of_sources(folder)
        mutate(mutation, folder)
        code, said = simulate(folder, seeds)
    caught = code == 1 and said.startswith("seed ") and not any(error in said for error in RAISED)
    return {
        "mutation": mutation.name,
        "caught": caught,
        "said": said,
        "seconds": round(time.monotonic() - began_s, 1),
    }


def main() -> int:
    """Exit code 0 when every mutation was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=SEEDS_MAX, help=f"schedules for each (default {SEEDS_MAX})"
    )
    parser.add_argument("--only", default="", help="mutations whose name begins so")
    parser.add_argument("--jobs", type=int, default=2, help="mutations at a time (default 2)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    chosen = [one for one in MUTATIONS if one.name.startswith(arguments.only)]
    results = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for result in pool.map(lambda one: try_one(one, arguments.seeds), chosen):
            results.append(result)
            verdict = "caught" if result["caught"] else "LIVES "
            print(
                f"{verdict} {result['mutation']}  ({result['seconds']} s)\n       {result['said']}",
                file=sys.stderr,
            )
    lived = [result["mutation"] for result in results if not result["caught"]]
    if arguments.json:
        print(json.dumps({"mutations": len(results), "lived": lived, "results": results}))
    else:
        print(
            f"{len(results)} mutations, {len(results) - len(lived)} caught"
            + "".join(f"\nlives: {n}" for n in lived)
        )
    return 1 if lived or not results else 0


if __name__ == "__main__":
    sys.exit(main())
