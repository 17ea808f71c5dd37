"""Which guide the next version names, for the defence ``guide``: of a task without one, none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aggregation.policy import Policy
from stream_apps.merger.version import Version


@dataclass(frozen=True, slots=True)
class NextGuide:
    """The SHA-256 of a guide for the next version, "" for none; ``wait``: no version is made before there is one."""

    sha256: str = ""
    wait: bool = False


NO_GUIDE: Final = NextGuide()


class Guiding:
    """Chooses no guide, and takes a version of another merger for one only if it names none."""

    def after(self, head: Version, policy: Policy) -> NextGuide:  # noqa: ARG002 (for those that choose one)
        """The guide for the version after ``head``, which is merged under ``policy``."""
        return NO_GUIDE

    def flaw_of(self, guide_sha256: str, head: Version, policy: Policy) -> str:  # noqa: ARG002 (as above)
        """Why no merger names this guide in the version after ``head``; "" where one may."""
        return "it names a guide, and its task has none" if guide_sha256 else ""


UNGUIDED: Final = Guiding()
