"""Every error that Fluvial raises on purpose, as one tree.

::

    FluvialError                 has an id, a message, a hint; ``category`` decides the exit code
    ├── UsageProblem             wrong arguments, a refused policy or task file           (exit 4)
    ├── EnvironmentProblem       the machine lacks something: Java, a free port, disk     (exit 2)
    ├── ConnectionProblem        Kafka or the object store is away or refuses us          (exit 2)
    ├── AccessProblem            Kafka answers, and refuses us: waiting mends nothing      (exit 2)
    ├── TimeoutProblem           something did not happen within its named limit          (exit 3)
    ├── Finding                  a check ran to its end and found a difference            (exit 1)
    └── IntegrityProblem         a log or an object is not what a signature or hash says  (exit 1)

Expected outcomes of a record (it is stale, it is forged) are *not* exceptions: they are ``Rejection``
members, counted and published as verdicts. An exception means a defect, an outage, or wrong use.

Ids are stable: an id is never given a second meaning, and each has a page in ``docs/errors/``.
Groups: 1xxx the machine and its settings, 2xxx policies, tasks and keys, 21xx refused updates,
3xxx the log and the fold, 4xxx the object store and checkpoints, 5xxx audit, 6xxx the command line,
9000 a defect of ours.
"""

from __future__ import annotations

from typing import ClassVar


class FluvialError(Exception):
    """An error with a stable id, a message that says expected/got/which, and a hint with the next command."""

    exit_code: ClassVar[int] = 5

    def __init__(self, error_id: str, message: str, *, hint: str = "", where: str = "") -> None:
        super().__init__(message)
        self.error_id = error_id
        self.message = message
        self.hint = hint
        self.where = where
        self.users_traceback = ""
        """Of a mistake in a user's own file: the frames that lie in his files, for whoever asks for them."""

    def __str__(self) -> str:
        lines = [f"error[{self.error_id}]: {self.message}"]
        if self.where:
            lines.append(f"  {self.where}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UsageProblem(FluvialError):
    """The caller asked for something that cannot be: wrong arguments, a policy that contradicts itself."""

    exit_code = 4


class EnvironmentProblem(FluvialError):
    """The machine lacks something that the action needs."""

    exit_code = 2


class ConnectionProblem(FluvialError):
    """An outside system cannot be reached, or does not let us in."""

    exit_code = 2


class AccessProblem(FluvialError):
    """An outside system answers and refuses us for who we are, or for how we speak: waiting mends nothing."""

    exit_code = 2


class TimeoutProblem(FluvialError):
    """Something that was waited for did not happen within its limit."""

    exit_code = 3


class Finding(FluvialError):
    """A check ran to its end, and what it checked is not as it should be."""

    exit_code = 1


class IntegrityProblem(FluvialError):
    """Bytes are not what a hash, a signature or a sequence number says they are."""

    exit_code = 1
