"""What is taken away of rounds, lots, weights by examples and rates, one rule a mutation."""

from __future__ import annotations

from tests.simulation.mutation import ADMISSION, FOLD, Mutation

STATE, LATENESS, RATES, SCHEDULES, TOTALS, MIXING, CONTROL = (
    "aggregation/fold/state.py",
    "aggregation/server/lateness.py",
    "aggregation/server/rates.py",
    "aggregation/schedules/table.py",
    "aggregation/server/totals.py",
    "aggregation/server/mixing.py",
    "aggregation/server/control.py",
)

LEARNING_MUTATIONS = (
    Mutation(
        "rounds: an older version may be answered",
        ((ADMISSION, "    if base < version and state.policy.in_rounds:\n", "    if False:\n"),),
    ),
    Mutation(
        "the lot: whoever is not selected counts",
        ((ADMISSION, "    if not _is_selected(state, update, expected):\n", "    if False:\n"),),
    ),
    Mutation(
        "the cohort: all have the share of whoever is of none",
        (
            (
                ADMISSION,
                "    base, cohort = update.base_version, update.certified_cohort\n",
                '    base, cohort = update.base_version, ""\n',
            ),
        ),
    ),
    Mutation(
        "the cap of a cohort: it may fill a window",
        ((ADMISSION, "    if cohort and 0 < most <= state.window.cohorts[cohort]:\n", "    if False:\n"),),
    ),
    Mutation(
        "the widening of a lot: nobody else may answer, however long a version stands",
        ((STATE, "turns_after((until_ms - since_ms) / 1000.0, ", "turns_after(0.0, "),),
    ),
    Mutation(
        "weights by examples: an update weighs as much as any other",
        (
            (
                ADMISSION,
                " if by.by == BY_EXAMPLES else weight\n",
                " if False else weight\n",
            ),
        ),
    ),
    Mutation(
        "the end of a round: windows that come after it count",
        (
            (
                LATENESS,
                "        return Lateness(version, (WEIGHT_ONE,))\n",
                "        return Lateness(version, ())\n",
            ),
        ),
    ),
    Mutation(
        "the warm-up: the first versions go at the full rate",
        ((SCHEDULES, "    if steps < warming:\n", "    if False:\n"),),
    ),
    Mutation(
        "the rate of delays: a delayed version goes as far as any other",
        ((RATES, "    if 0 < server.delay_versions_max < delay:\n", "    if False:\n"),),
    ),
    Mutation(
        "the clip of control deltas: one device moves the variate as far as it likes",
        (
            (
                FOLD,
                "        clip=clip_to / measured.norm if measured.norm > clip_to else 1.0,\n",
                "        clip=1.0,\n",
            ),
        ),
    ),
    Mutation(
        "the weight of control deltas: a stale one counts as much as a fresh one",
        (
            (
                FOLD,
                "        weight=weight / WEIGHT_ONE,\n        clip=clip_to",
                "        weight=1.0,\n        clip=clip_to",
            ),
        ),
    ),
    Mutation(
        "the lateness of control deltas: a late window moves the variate as far as any other",
        (
            (
                TOTALS,
                "kernels.add_into(into, sums) if whole else kernels.add_late_into(into, sums, one.weight)",
                "kernels.add_into(into, sums)",
            ),
        ),
    ),
    Mutation(
        "the number of devices: the variate moves by the mean of a version's updates",
        ((CONTROL, "float(policy.control.devices)", "2.0"),),
    ),
    Mutation(
        "the bases: an update is said to have answered the newest version",
        ((FOLD, "    base = update.base_version\n", "    base = state.version\n"),),
    ),
    Mutation(
        "mixing: what older versions differ by is left out",
        ((MIXING, "        if number < version:\n", "        if False:\n"),),
    ),
    Mutation(
        "the lateness of bases: a late window brings its whole way along",
        ((MIXING, "weight_after(base.weight, weight)", "base.weight"),),
    ),
)
