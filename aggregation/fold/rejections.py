"""Why a record does not count, and what anybody can do about it: one table for verdicts, hints and error pages.

Each reason has its name in verdicts (``outcome``), its page in ``docs/errors`` (``error_id``), what an operator can do
about it, and what the device can do. Names and ids are on the wire and in people's notes: they never change.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

ACCEPTED: Final = "accepted"
CONTROL: Final = "control"
PARKED: Final = "skipped"
AGGREGATED: Final = "aggregated"
"""The outcomes that are not rejections: an update that counts, a valid control record, a record that nobody judged
because an operator's Skip parked it, and a window of an edge that counts.
"""

PARKED_HINT_FOR_DEVICES: Final = (
    "nothing to mend on the device: train on the next version; an operator knows why this one was parked"
)


class RejectionReason(Enum):
    """Why a record does not count."""

    UNDECODABLE = (
        "undecodable",
        "FLV-2101",
        "whatever writes this is no Fluvial device, or was cut short on its way: look at its raw bytes",
        "publish with this version of Fluvial: the bytes are not a whole signed envelope",
    )
    UNKNOWN_SCHEMA = (
        "unknown_schema",
        "FLV-2102",
        "bytes of a schema that workers do not know: of a newer Fluvial (upgrade the workers), or of no Fluvial at all",
        "workers are older than this device: upgrade them first",
    )
    TOO_STALE = (
        "too_stale",
        "FLV-2103",
        "fetch the current model with `fluvial device fetch`, then train   (staleness.versions_max)",
        "fetch the current model, then train again: `fluvial device fetch`   (policy.staleness.versions_max)",
    )
    TOO_LARGE = (
        "too_large",
        "FLV-2104",
        "send a smaller model or the int8 codec   (limit: updates.bytes_max)",
        "use `--codec int8` or a smaller model   (limit: policy.updates.bytes_max)",
    )
    WRONG_LAYOUT = (
        "wrong_layout",
        "FLV-2105",
        "it trains another model than the task's: compare its task file with `fluvial task list`",
        "train the task's own model: `fluvial device fetch` writes one of the right layout",
    )
    NOT_FINITE = (
        "not_finite",
        "FLV-2106",
        "training has diverged on the device: lower its learning rate",
        'lower CONFIG["learning_rate"] in the task file, or scale the inputs to about 0 … 1',
    )
    BAD_CERTIFICATE = (
        "bad_certificate",
        "FLV-2107",
        "issue a certificate by the region's own CA with `fluvial ca issue`",
        "issue one with `fluvial ca issue --task T --region R NAME`",
    )
    CERTIFICATE_EXPIRED = (
        "certificate_expired",
        "FLV-2108",
        "issue a new certificate with `fluvial ca issue`",
        "issue another, of a new name, with `fluvial ca issue --task T --region R NAME`",
    )
    REVOKED = (
        "revoked",
        "FLV-2109",
        "an operator has barred this device or certificate; a new certificate needs a new device id",
        "an operator barred this device: ask them why",
    )
    BAD_SIGNATURE = (
        "bad_signature",
        "FLV-2110",
        "the bytes were changed on the way, or signed with another key than the certificate's",
        "sign with the key that `fluvial ca issue` wrote beside the certificate",
    )
    WRONG_TASK = (
        "wrong_task",
        "FLV-2111",
        "the device publishes to another task's topic: check its task name",
        "name the task that this log belongs to with `--task`",
    )
    WRONG_REGION = (
        "wrong_region",
        "FLV-2112",
        "the device publishes to another region's topic: check its region",
        "publish to the region of the device's certificate with `--region`",
    )
    WRONG_PARTITION = (
        "wrong_partition",
        "FLV-2113",
        "the record was copied here, or its writer does not key by device id with murmur2",
        "let the SDK choose the partition: it follows from the device id",
    )
    DUPLICATE = (
        "duplicate",
        "FLV-2114",
        "nothing to mend: a device counts once per base version; fetch the next version first",
        "nothing to do: one contribution counts for each version; wait for the next",
    )
    UNKNOWN_BASE = (
        "unknown_base",
        "FLV-2115",
        "the device trained on a model that this task never published: fetch it again",
        "fetch the current model with `fluvial device fetch`, then train again",
    )
    FUTURE_BASE = (
        "future_base",
        "FLV-2116",
        "the device knows a version before its partition does: its announcement came from elsewhere",
        "fetch the announced model with `fluvial device fetch`, then train again",
    )
    NORM_EXCEEDED = (
        "norm_exceeded",
        "FLV-2117",
        "clip on the device, or see whether its training has diverged   (limit: updates.norm_max)",
        'lower CONFIG["learning_rate"] or train fewer epochs   (limit: policy.updates.norm_max)',
    )
    ANOMALOUS = (
        "anomalous",
        "FLV-2118",
        "look at the device: an attack and very unusual data look the same   (limits: defence.*)",
        "compare this device's data and learning rate with its peers'   (limits: policy.defence)",
    )
    OUT_OF_RANGE = (
        "out_of_range",
        "FLV-2119",
        "a running variance below 0 makes no sense: whatever wrote it sends something else than the model's buffers",
        "send the buffers as they stand after training, not their change   (SDK: `device.contribution`)",
    )
    OVER_SHARE = (
        "over_share",
        "FLV-2120",
        "it contributes more often than others may: devices share a key, or it floods   (shares.per_version)",
        "nothing to mend: a device counts once a version, wait for the next   (policy.shares.per_version)",
    )
    QUARANTINED = (
        "quarantined",
        "FLV-2121",
        "most of its last updates were anomalous (`fluvial devices`): revoke it, wait, or end it with `fluvial pardon`",
        "mend what the last refused updates name, then wait, or ask an operator to end the quarantine",
    )
    ROUND_OVER = (
        "round_over",
        "FLV-2122",
        'it trained for longer than the round lasted: a longer buffer.seconds_max, or buffer.mode = "buffer"',
        "nothing to mend: the version it trained on has a successor, train on that   (policy.buffer.mode)",
    )
    NOT_SELECTED = (
        "not_selected",
        "FLV-2123",
        "the device does not ask for its lot before it trains, or means to be heard more often   (selection.*)",
        "ask before training: `device.is_selected(base)`; another version selects it   (policy.selection)",
    )
    BAD_AGGREGATE = (
        "bad_aggregate",
        "FLV-2124",
        "the edge's window is not what a log can come to, or does not follow its last: `fluvial audit` folds its log",
        "nothing to mend on a device: an edge wrote this, see docs/edges.md   (policy.edges)",
    )

    def __init__(self, outcome: str, error_id: str, hint_for_operators: str, hint_for_devices: str) -> None:
        self.outcome = outcome
        self.error_id = error_id
        self.hint_for_operators = hint_for_operators
        self.hint_for_devices = hint_for_devices


REJECTIONS: Final = {reason.outcome: reason for reason in RejectionReason}
"""Every reason, by its outcome."""

OUTCOMES: Final = (ACCEPTED, CONTROL, PARKED, AGGREGATED, *REJECTIONS)
"""Every outcome that a verdict can have."""
