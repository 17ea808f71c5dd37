"""Committing: one conditional PUT of the manifest makes a version true. What it names is stored before or derived.

1. Derive: sums, server step, manifest. Windows whose sums cannot be read or added are doubtful: somebody may lie.
2. Store the step's direction: workers load it as soon as they see the version's barrier.
3. Put the manifest, if none stands there. Of two mergers one wins.
4. The winner writes the model and the optimizer's state. Where it dies before, whoever adopts the version does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import rfc8785

from aggregation.errors import IntegrityProblem
from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate
from aggregation.server.lateness import MergedWindows
from aggregation.server.mixing import mixed_bases
from aggregation.server.rates import server_at
from aggregation.server.totals import WindowSums
from backends.crash_points import crash_point
from backends.log import Headers
from backends.outages import UNREADABLE, retry_through_outage
from schemas.manifest_rules import rules_after
from schemas.manifest_seals import sealed
from schemas.manifests import Manifest
from schemas.objects import sha256_hex
from schemas.windows import direction_of_guide
from stream_apps.merger.bounding import Bounding, Given
from stream_apps.merger.deciding import next_manifest
from stream_apps.merger.deriving import Derived, derive
from stream_apps.merger.guiding import UNGUIDED, Guiding
from stream_apps.merger.models import Models
from stream_apps.merger.policies import Policies
from stream_apps.merger.version import Version, version_of
from stream_apps.process_context import ProcessContext


class DoubtfulWindows(Exception):
    """These windows cannot be merged as they are: ``problem`` says why. Each has to be held against its log."""

    def __init__(self, windows: tuple[Aggregate, ...], problem: IntegrityProblem) -> None:
        super().__init__(problem.message)
        self.windows = windows
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Committed:
    """A version that this merger made; ``headers`` go on the records that tell of it."""

    version: Version
    manifest: Manifest
    headers: Headers


class Committing:
    """Makes versions of one task; ``guiding`` says which guide each names."""

    def __init__(
        self,
        context: ProcessContext,
        policies: Policies,
        guiding: Guiding = UNGUIDED,
        given: Given = lambda _window: False,
    ) -> None:
        self._context = context
        self._store = context.store
        self._policies = policies
        self._guiding = guiding
        self._bounding = Bounding(context, policies, given)
        self._models = Models(context)

    def waits_for_guide(self, head: Version) -> bool:
        """Whether no version is made after ``head`` before there is a guide for it."""
        return self._guiding.after(head, self._policies.of(head.policy_sha256)).wait

    def commit(self, head: Version, chosen: tuple[Aggregate, ...]) -> Committed | None:
        """The version after ``head``, of these windows; None where another merger was faster.

        Raises ``DoubtfulWindows`` where a window's sums are missing or damaged, or more than its updates can come to.
        """
        clock, observer = self._context.clock, self._context.observer
        observer.merging(head.number + 1, chosen)
        derived, manifest = retry_through_outage(
            "merge", lambda: self._next_version(head, chosen), UNREADABLE, clock
        )
        number, data = manifest.version, manifest.canonical()
        retry_through_outage(
            "store the step's direction", lambda: self._store.put_object(derived.reference), clock=clock
        )
        observer.committing(number)
        crash_point("merger.before-commit")
        if not retry_through_outage(f"commit version {number}", lambda: self._put(number, data), clock=clock):
            return None
        crash_point("merger.after-commit")
        retry_through_outage(
            "write the checkpoint",
            lambda: self._store.write_checkpoint(number, derived.model, derived.optimizer),
            clock=clock,
        )
        crash_point("merger.after-checkpoint")
        size = len(data) + len(derived.model) + len(derived.optimizer) + len(derived.reference)
        headers = observer.committed(manifest, chosen, size)
        return Committed(version_of(manifest, sha256_hex(data), derived.checkpoint), manifest, headers)

    def _put(self, version: int, data: bytes) -> bool:
        """The conditional PUT. A lost answer is no answer: then what stands there decides whether it was ours."""
        return self._store.commit(version, data) or self._store.manifest_bytes(version) == data

    def _next_version(self, head: Version, chosen: tuple[Aggregate, ...]) -> tuple[Derived, Manifest]:
        layout = self._context.layout
        policy, signer = self._policies.of(head.policy_sha256), self._context.signer
        rules = rules_after(head.number, policy, signer.domain)
        merged = MergedWindows.of(chosen, rules.lateness)
        if rules.says_lateness:
            _require_histograms(merged, head, policy)
        guide_sha256 = self._guiding.after(head, policy).sha256 if rules.says_lateness else ""
        guide = self._store.guide(guide_sha256, layout, self._context.trust)
        try:
            derived = derive(
                head.checkpoint,
                self._sums(merged),
                updates=merged.accepted,
                weight_total=merged.weight_total,
                policy=policy,
                server=server_at(policy, head.number + 1, merged.delay),
                layout=layout,
                guide=direction_of_guide(guide),
                bases=mixed_bases(merged.pairs, policy, head.number, self._models.read),
            )
        except IntegrityProblem as problem:
            raise DoubtfulWindows(chosen, problem) from problem
        try:
            made = next_manifest(
                self._context.genesis.task, head, chosen, derived, rules, guide_sha256=guide_sha256
            )
            finished = sealed(made, signer)
            finished.canonical()
        except (rfc8785.CanonicalizationError, msgspec.ValidationError) as error:
            # Each number is one that a window may have, and what they come to together none that a document can say.
            too_large = IntegrityProblem("FLV-3004", f"what the windows come to fits in no manifest: {error}")
            raise DoubtfulWindows(chosen, too_large) from error
        return derived, finished

    def _sums(self, merged: MergedWindows) -> Iterator[WindowSums]:
        """One at a time: a window's sums are twice as large as the model."""
        for one, weight in merged.pairs:
            if not (one.sum_sha256 and weight):
                continue
            if (said := self._bounding.said_problem(one)) is not None:
                raise DoubtfulWindows((one,), said)
            try:
                sums = self._store.sums(one.sum_sha256, self._context.layout, one.bucket_count)
            except IntegrityProblem as problem:
                raise DoubtfulWindows((one,), problem) from problem
            beyond = self._bounding.problem(one, sums)
            if beyond is not None:
                raise DoubtfulWindows((one,), beyond)
            yield WindowSums.of(sums, one, weight)


def _require_histograms(merged: MergedWindows, head: Version, policy: Policy) -> None:
    """A window that was folded under a policy which counts shares says its histograms."""
    silent = [one for one in merged.windows if one.policy_sha256 == head.policy_sha256 and not one.histograms]
    if policy.counts_shares and silent:
        problem = IntegrityProblem("FLV-3003", "a window under the policy in force says no histograms")
        raise DoubtfulWindows(tuple(silent), problem)
