"""What the rounds of a crowd make: updates of real training, or updates of a given size that nobody trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aggregation.codecs import encode_delta
from aggregation.errors import FluvialError, UsageProblem
from fluvial.simulating.training import Failed, Job
from producers.fleet.failures import FailedRounds, failed_round
from producers.sdk.private_layers import PrivateLayers
from producers.sdk.turns import is_ever_selected
from producers.sdk.updates import (
    Contribution,
    check_size,
    choose_codec,
    honest_record,
    seal_update,
    update_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from aggregation.codecs import CodecName
    from fluvial.session.engine import Engine
    from fluvial.simulating.signing import Authors
    from fluvial.simulating.training import Split, Trained, Trainers
    from learning import TrainConfig
    from producers.fleet.failures import FailedRound
    from producers.sdk.bases import Base
    from producers.sdk.updates import Publication

FAILED_IN_A_ROW: Final = 3
AHEAD_A_PROCESS: Final = 3
SYNTHETIC_UPDATES: Final = 64
"""Different updates of a synthetic crowd; a device's is one of them."""
SYNTHETIC_NORM: Final = 1.0
_SYNTHETIC_STREAM: Final = 9
_MESSAGE_BYTES_MAX: Final = 1 << 31


class TrainedWork:
    """A task's own training, by ``trainers``. Everybody's failure is everybody's own, until nobody succeeds."""

    def __init__(
        self,
        engine: Engine,
        authors: Authors,
        trainers: Trainers,
        *,
        split: Split,
        config: TrainConfig,
        codec: CodecName,
        on_failure: Callable[[FailedRound, bool], None],
    ) -> None:
        self.failed = FailedRounds()
        self.ahead = 0 if trainers.processes == 1 else AHEAD_A_PROCESS * trainers.processes
        self._engine = engine
        self._authors = authors
        self._trainers = trainers
        self._split = split
        self._config = config
        self._codec = codec
        self._on_failure = on_failure
        self._in_a_row = 0
        self._private = PrivateLayers()

    def region(self, device: int) -> str:
        """See ``Work``."""
        return self._authors.regions[device % len(self._authors.regions)]

    def may_answer(self, device: int, base: Base, waited_s: float) -> bool:
        """See ``Work``."""
        return self._authors.may_answer(device, base, waited_s)

    def is_ever_selected(self, device: int, base: Base) -> bool:
        """See ``Work``."""
        return is_ever_selected(base.policy, self._authors.cohort(device))

    def begin(self, device: int, base: Base) -> Future[Trained | Failed] | None:
        """See ``Work``."""
        return self._trainers.begin(self._job(device, base))

    def end(self, device: int, base: Base, begun: Any) -> Publication | None:
        """See ``Work``. UsageProblem FLV-6310 once round after round of everybody has failed."""
        done = self._trainers.end(self._job(device, base), begun)
        author, engine = self._authors.of(device), self._engine
        try:
            if isinstance(done, Failed):
                raise done.error()
            record = honest_record(
                author,
                base,
                engine.bases.layout,
                codec=self._codec,
                outcome=done,
                created_at_ms=engine.now_ms,
            )
            value = seal_update(author, record)
            check_size(value, base.policy, _MESSAGE_BYTES_MAX)
            self._private.keep(author.device_id, done.private)
        except FluvialError as error:
            self._fail(author.device_id, author.region, base.version, error)
            return None
        self._in_a_row = 0
        return author.publication(value, record["update_id"])

    def _job(self, device: int, base: Base) -> Job:
        seed = (self._split.seed << 20) + device
        config = self._config.at(seed=seed, version=base.version)
        private = self._private.of(self._authors.of(device).device_id)
        return Job(self._split, device, base.parameters, config, private)

    def _fail(self, device: str, region: str, base_version: int, error: FluvialError) -> None:
        failed = failed_round(device=device, region=region, base_version=base_version, error=error)
        self._on_failure(failed, self.failed.add(failed))
        self._in_a_row += 1
        if self._in_a_row >= FAILED_IN_A_ROW * min(self._split.devices, SYNTHETIC_UPDATES):
            raise nobody_succeeds(self.failed, self._in_a_row)


def nobody_succeeds(failed: FailedRounds, rounds: int) -> UsageProblem:
    """UsageProblem FLV-6310: so many rounds in a row fail, with the chief cause."""
    first = failed.causes[0].first
    return UsageProblem(
        "FLV-6310",
        f"{rounds} rounds in a row fail: {first.message} ({first.error_id})",
        where=first.where,
        hint=first.hint or "`fluvial run FILE --simulate` shows the same in seconds",
    )


class SyntheticWork:
    """Updates that nobody trained: one of a few random ones of an ordinary length, encoded beforehand."""

    ahead = 0

    def __init__(self, engine: Engine, authors: Authors, *, codec: CodecName, seed: int) -> None:
        self.failed = FailedRounds()
        self._engine = engine
        self._authors = authors
        layout, policy = engine.bases.layout, engine.bases.at(0).policy
        self._codec = choose_codec(policy, codec)
        random = np.random.default_rng([seed, _SYNTHETIC_STREAM])
        common = random.standard_normal(layout.parameters)
        self._made: list[dict[str, Any]] = []
        for _ in range(SYNTHETIC_UPDATES):
            # They agree in half of what they say, as devices of one task do: else every detector would be right.
            delta = common + random.standard_normal(layout.parameters)
            delta *= SYNTHETIC_NORM / np.linalg.norm(delta)
            own = delta.astype(np.float32)
            tensors = encode_delta(own, layout, self._codec, random)
            self._made.append(
                update_record(
                    authors.of(0),
                    engine.bases.at(0),
                    tensors,
                    layout,
                    codec=self._codec,
                    outcome=Contribution(own, 1, 0.0),
                    created_at_ms=0,
                )
            )

    def region(self, device: int) -> str:
        """See ``Work``."""
        return self._authors.regions[device % len(self._authors.regions)]

    def may_answer(self, device: int, base: Base, waited_s: float) -> bool:
        """See ``Work``."""
        return self._authors.may_answer(device, base, waited_s)

    def is_ever_selected(self, device: int, base: Base) -> bool:
        """See ``Work``."""
        return is_ever_selected(base.policy, self._authors.cohort(device))

    def begin(self, device: int, base: Base) -> None:
        """See ``Work``: there is nothing to do."""

    def end(self, device: int, base: Base, begun: Any) -> Publication | None:  # noqa: ARG002 (as ``Work`` has it)
        """See ``Work``."""
        author = self._authors.of(device)
        record = self._made[(device + base.version) % len(self._made)]
        update_id = author.update_id(base)
        # As ``update_record`` says it; what is the same for all was said beforehand.
        value = seal_update(
            author,
            record
            | {
                "region": author.region,
                "device_id": author.device_id,
                "base_version": base.version,
                "base_sha256": base.sha256,
                "update_id": update_id,
                "created_at": self._engine.now_ms,
            },
        )
        return author.publication(value, update_id)
