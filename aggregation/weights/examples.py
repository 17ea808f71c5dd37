"""Weights by examples: FedAvg's n_k / n (McMahan et al. 2017, algorithm 1), under a bound.

What a device says of its examples is a claim that nobody can check. So all that is above a bound counts as the bound:
a boast weighs what the policy lets every device weigh.
"""

from __future__ import annotations


def by_examples(weight: int, num_examples: int, examples_max: int) -> int:
    """What is left of ``weight``, 1 to 65536, of an update of so many examples: the share that they are of the bound.

    Units of 1/65536, rounded down, at least 1. Fewer than one example counts as one.
    """
    counted = min(max(num_examples, 1), examples_max)
    return max(1, weight * counted // examples_max)
