"""What is taken away of rounds, lots, weights by examples and rates, one rule a mutation."""

from __future__ import annotations

from tests.simulation.mutation import ADMISSION, Mutation

STATE, LATENESS, RATES, SCHEDULES = (
    "aggregation/fold/state.py",
    "aggregation/server/lateness.py",
    "aggregation/server/rates.py",
    "aggregation/schedules/table.py",
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
)
