"""The key that signs what an operator decides: Revokes, Skips and Pardons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.keys import load_key_pair, signer_path
from backends.tasks import keys_folder
from fluvial.local.create import OPERATOR
from schemas.certificates import CONTROL, Role
from stream_apps.credentials import own_identity, require_valid

if TYPE_CHECKING:
    from pathlib import Path

    from backends.settings import Settings
    from schemas.certificates import Trust
    from schemas.envelope import KeyPair


def operators_key(settings: Settings, task: str, trust: Trust, place: Path | str | None) -> KeyPair:
    """The key at ``place``, a file or a ``pkcs11:`` URI; None for the operator's on this machine.

    UsageProblem FLV-3203 where readers would pass over what it signs; what opening it raises.
    """
    folder = keys_folder(settings.home, task)
    key_pair = load_key_pair(place or signer_path(folder, CONTROL, Role.OPERATOR, OPERATOR), settings.key)
    require_valid(own_identity(key_pair, trust, region=CONTROL, role=Role.OPERATOR))
    return key_pair
