"""The server's learning rate of one version: by the policy's schedule, and less where an update came late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from aggregation.schedules import rate_after

if TYPE_CHECKING:
    from aggregation.policy import Policy
    from aggregation.policy.v6 import ServerPolicy


def server_at(policy: Policy, version: int, delay: int) -> ServerPolicy:
    """The server's parameters by which ``version``, 1 or more, is made, its learning rate among them.

    ``delay`` is how many versions old the base of its most delayed update is, see ``MergedWindows.delay``. FADAS (Wang
    et al. 2024, algorithm 1, delay-adaptive): beyond ``server.delay_versions_max`` the rate is at most 1 / delay.
    """
    server = policy.server
    rate = rate_after(version - 1, server.learning_rate, policy.schedule)
    if 0 < server.delay_versions_max < delay:
        rate = min(rate, 1.0 / float(delay))
    return server if rate == server.learning_rate else msgspec.structs.replace(server, learning_rate=rate)
