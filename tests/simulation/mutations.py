"""What is taken away, one safeguard a mutation, by the lines that hold it."""

from __future__ import annotations

from tests.simulation.defence_mutations import DEFENCE_MUTATIONS
from tests.simulation.learning_mutations import LEARNING_MUTATIONS
from tests.simulation.mutation import (
    ADMISSION,
    AGGREGATES,
    ENCODING,
    FOLD,
    LOOP,
    MERGER,
    OUTBOX,
    STORE,
    TICKING,
    VOUCHING,
    WORKER,
    Mutation,
)

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
                "            for one in (record,):\n",
            ),
        ),
    ),
    Mutation(
        "the weight of buffers: a stale device's running statistics count as much as a fresh one's",
        (
            (
                FOLD,
                "    codecs.accumulate_values_into(values, admitted.buffers, admitted.weight)\n",
                "    codecs.accumulate_values_into(values, admitted.buffers, WEIGHT_ONE)\n",
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
                "            self.state.next_offset = max(self.state.next_offset, record.offset)\n" + LOOP,
            ),
        ),
    ),
    Mutation(
        "state in the snapshot: who has contributed is forgotten",
        (
            (
                ENCODING,
                '        counted=Contributions({entry["version"]: entry["devices"] for entry in record["counted"]}),\n',
                "        counted=Contributions(),\n",
            ),
        ),
    ),
    Mutation(
        "state in the snapshot: the norms of the detector are forgotten",
        (
            (
                ENCODING,
                '        history=NormHistory(record["norms"]),\n',
                "        history=NormHistory([]),\n",
            ),
        ),
    ),
    Mutation(
        "verdicts before the aggregate: a window is published while its verdicts are on their way",
        (
            (
                OUTBOX,
                (
                    "        retry_through_outage("
                    'f"publish the verdicts of {place}", self._flush_verdicts, clock=context.clock)\n'
                ),
                "        self._sent.clear()\n",
            ),
        ),
    ),
    Mutation(
        "the order of a window's effects: it is published, and then its verdicts are waited for",
        (
            (
                OUTBOX,
                (
                    "        retry_through_outage("
                    'f"publish the verdicts of {place}", self._flush_verdicts, clock=context.clock)\n'
                ),
                "",
            ),
            (
                OUTBOX,
                "        self._publish_aggregate(encoded, window.headers)\n",
                (
                    "        self._publish_aggregate(encoded, window.headers)\n"
                    '        retry_through_outage("publish verdicts", self._flush_verdicts, clock=context.clock)\n'
                ),
            ),
        ),
    ),
    Mutation(
        "verdicts that wait for each other: a window is published before they are handed over",
        (
            (
                OUTBOX,
                "        if self._windows:\n            self.send()\n",
                "        if self._windows:\n",
            ),
        ),
    ),
    Mutation(
        "the log before the verdict: a worker judges its own Tick before the log has it",
        (
            (
                WORKER,
                "        self._tick = self.context.writer.append(",
                (
                    '        self._outbox.add_verdict(Verdict(self.state.next_offset, "control"), (), self.state)\n'
                    "        self._tick = self.context.writer.append("
                ),
            ),
        ),
    ),
    Mutation(
        "objects before the aggregate: a window is published before what it names is stored",
        (
            (
                OUTBOX,
                "        for data in encoded.objects.values():\n",
                "        for data in encoded.objects.values() if encoded.aggregate.sequence == 0 else ():\n",
            ),
        ),
    ),
    Mutation(
        "the outbox: a window's effects are begun and not finished when the agent is cancelled",
        (
            (
                OUTBOX,
                "            await asyncio.to_thread(self._publish_window, windows[0])\n",
                "            await asyncio.to_thread(self._publish_window, windows.popleft())\n",
            ),
            (OUTBOX, "            windows.popleft()\n", ""),
            (
                OUTBOX,
                "            await asyncio.shield(work)\n",
                "            await work\n",
            ),
            (
                OUTBOX,
                "            if work.done() and self._under_way is work:\n",
                "            if not work.cancelled():\n",
            ),
        ),
    ),
    Mutation(
        "standing verdicts: a restarted worker takes the newest verdict for all of them",
        (
            (
                OUTBOX,
                "        standing = self.published.pop(verdict.offset, None)\n",
                (
                    "        newest = max(self.published, default=-1)\n"
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
                "        self._headers = ()\n        self._adopt_head()\n",
                "        self._headers = ()\n",
            ),
        ),
    ),
    Mutation(
        "ticks: an old window is never asked to close",
        ((TICKING, "    if now_s - window_since_s < age_s_max:\n", "    if True:\n"),),
    ),
    Mutation(
        "refused verdicts: what the broker did not take is not sent again",
        ((OUTBOX, "        if not refused:\n            return\n", "        return\n"),),
    ),
    Mutation(
        "what a worker vouches for: a head leaves some verdicts out",
        (
            (
                VOUCHING,
                "        self._marks.update(mark_of(verdict, value, self._place.context.trust.rules))\n",
                "        verdict.offset % 7 and self._marks.update(value)\n",
            ),
        ),
    ),
    Mutation(
        "a refused aggregate: a window counts as published whatever the broker said",
        ((OUTBOX, "        published.result(timeout=0)", "        published.done()"),),
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
    Mutation(
        "the fold that decides: of two windows the one counts that came last",
        (
            (
                "stream_apps/merger/judging.py",
                "        right = None if given is None else given.aggregate\n",
                "        right = claim.aggregate\n",
            ),
        ),
    ),
    Mutation(
        "windows folded again: a worker that starts goes on from whatever is signed",
        (
            (
                "stream_apps/worker/merged_windows.py",
                "                return tuple(islice(search.bases(manifest), BASES_MAX))\n",
                "                return windows.known[max(windows.known)]\n",
            ),
        ),
    ),
    Mutation(
        "the lateness of windows: a backlog counts as fresh",
        (
            (
                "aggregation/server/lateness.py",
                "        late = self.versions_of(aggregate)\n",
                "        late = 0\n",
            ),
        ),
    ),
    Mutation(
        "windows that are too late: they count a little, however late they come",
        (
            (
                "aggregation/server/lateness.py",
                "        return self.weights[late] if late < len(self.weights) else 0\n",
                "        return self.weights[min(late, len(self.weights) - 1)]\n",
            ),
        ),
    ),
    Mutation(
        "the holding of versions: what stands in the store was made by a merger",
        (
            (
                "stream_apps/merger/adopting.py",
                "            return self._held(number, head, windows) if self._store.is_committed(number) else None\n",
                (
                    "            manifest = decode_manifest(self.checked_manifest(number)) if "
                    "self._store.is_committed(number) else None\n"
                    "            return manifest and version_of("
                    "manifest, sha256_hex(self._store.manifest_bytes(number)), head.checkpoint)\n"
                ),
            ),
        ),
    ),
    *DEFENCE_MUTATIONS,
    *LEARNING_MUTATIONS,
)
