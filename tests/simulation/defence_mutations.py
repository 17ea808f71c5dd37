"""What is taken away of shares, what is usual, quarantine and guides, one rule a mutation."""

from __future__ import annotations

from tests.simulation.mutation import ADMISSION, ENCODING, FOLD, Mutation

SHARES, USUAL, GUIDE, GUIDES = (
    "aggregation/fold/shares.py",
    "aggregation/defences/usual.py",
    "aggregation/defences/guide.py",
    "stream_apps/merger/guides.py",
)

DEFENCE_MUTATIONS = (
    Mutation(
        "fair shares: a device has as many updates of a version as it likes",
        ((ADMISSION, "    if share is not None and share.tokens < 1:\n", "    if False:\n"),),
    ),
    Mutation(
        "quarantine: it never begins",
        ((SHARES, "        if most and share.refused.bit_count() >= most:\n", "        if False:\n"),),
    ),
    Mutation(
        "pardons: a quarantine that an operator lifts goes on",
        (
            (
                SHARES,
                "        del self.quarantined[device]\n        return True\n",
                "        return True\n",
            ),
        ),
    ),
    Mutation(
        "state in the snapshot: who had a share is forgotten",
        (
            (
                ENCODING,
                'Shares(map(_share, record.get("shares", ())), ',
                "Shares((), ",
            ),
        ),
    ),
    Mutation(
        "state in the snapshot: the guide is forgotten",
        ((ENCODING, "        guide=guide,\n", "        guide=None,\n"),),
    ),
    Mutation(
        "each device alike: of what is usual every update says as much",
        (
            (
                USUAL,
                "        count = share_count(own or 1)\n",
                "        count = share_count(1)\n",
            ),
        ),
    ),
    Mutation(
        "norms by their squares: a short update says as much as a long one",
        ((USUAL, "    return parts * parts\n", "    return SQUARES_MAX\n"),),
    ),
    Mutation(
        "the memory of what is usual: a version's pools are its own",
        (
            (
                USUAL,
                "    pool = {bucket: kept * count // of for bucket, count in before}\n",
                "    pool = {}\n",
            ),
        ),
    ),
    Mutation(
        "the clip to what is usual: an update may be as long as the policy's norm",
        (
            (
                "aggregation/defences/median.py",
                "    if not usual.norm > 0.0:",
                "    if True or not usual.norm > 0.0:",
            ),
        ),
    ),
    Mutation(
        "the guide: who contradicts it counts",
        ((GUIDE, "        if seen.cosine < least:\n", "        if False:\n"),),
    ),
    Mutation(
        "agreement with the guide: it changes no weight",
        (
            (
                GUIDE,
                "        left = agreement(seen.cosine, least, usual.cosine) * fair // WEIGHT_ONE\n",
                "        left = fair\n",
            ),
        ),
    ),
    Mutation(
        "fairness: who is accepted more than usual weighs as much",
        (
            (
                GUIDE,
                "    return min(WEIGHT_ONE, WEIGHT_ONE * usual // own) if usual else WEIGHT_ONE\n",
                "    return WEIGHT_ONE\n",
            ),
        ),
    ),
    Mutation(
        "the cone: a version goes wherever its updates do",
        (
            (
                "aggregation/server/cone.py",
                "    if along * along >= least * least * squares * guide_squares:\n",
                "    if True:\n",
            ),
        ),
    ),
    Mutation(
        "the bucket's rule: a device chooses its bucket by its name alone",
        (
            (
                "aggregation/merges/buckets.py",
                '_PREFIX + model_sha256.encode("ascii") + b"\\0" + device_id.encode()',
                '_PREFIX + b"\\0" + device_id.encode()',
            ),
        ),
    ),
    Mutation(
        "buckets at the merge: all of them are simply added",
        (
            (
                "aggregation/server/buckets.py",
                "    if not merge.robust or len(present) < BUCKETS_MIN:\n",
                "    if True:\n",
            ),
        ),
    ),
    Mutation(
        "the guide's age: one of long ago still counts",
        (
            (
                FOLD,
                "        and 0 <= barrier.version - guide.version <= state.policy.defence.guide_versions_max\n",
                "        and guide.version > 0\n",
            ),
        ),
    ),
    Mutation(
        "waiting for a guide: a version is made without one",
        (
            (
                GUIDES,
                '        wait = defence.guide_missing == "wait"\n        if not self._spell.unguided:\n',
                "        wait = False\n        if not self._spell.unguided:\n",
            ),
        ),
    ),
    Mutation(
        "what a version names as its guide: a merger takes whatever is announced",
        (
            (
                GUIDES,
                "            self._chosen = (head.number, found)\n",
                (
                    "            self._chosen = (head.number, found)\n"
                    "            return NextGuide(self._store.put_object(b'no guide'))\n"
                ),
            ),
        ),
    ),
)
