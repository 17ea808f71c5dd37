"""The policies that versions name."""

from __future__ import annotations

from aggregation.policy import Policy
from backends.outages import UNREADABLE, retry_through_outage
from stream_apps.process_context import ProcessContext


class Policies:
    """The policies of a task by their hash, each loaded once."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context
        self._known = {context.policy.sha256: context.policy}

    def known(self, sha256: str) -> Policy | None:
        """The policy of this hash, if it is the task's first one or one that a version was made by."""
        return self._known.get(sha256)

    def of(self, sha256: str) -> Policy:
        """The policy of this hash; waits while it cannot be read."""
        if sha256 not in self._known:
            store = self._context.store
            self._known[sha256] = retry_through_outage(
                "load the policy", lambda: store.policy(sha256), UNREADABLE, self._context.clock
            )
        return self._known[sha256]
