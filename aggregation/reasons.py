"""Why a record got its verdict: every reason, its code, its values with their types, and the words for people.

A verdict carries a code and values, both of ours (Verdict v2). Words are written by whoever shows one, from this table:
no text of a library, no ``repr`` of an interpreter, nothing that an upgrade could change stands in what is published.
Codes, names and the order of values are on the wire: none is ever given a second meaning. A new reason is a new code.

Verdicts of tasks before ``fluvial/genesis/v4`` hold the words themselves, as this table writes them, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from aggregation import reason_words as words

Value = int | float | str
"""Of the types ``long`` (64 bits with sign), ``double`` and ``string``."""
VALUE_CHARACTERS_MAX: Final = 200
"""Of a string among the values: what a device or an operator wrote may be of any length."""

Words = Callable[..., str]
NONE: Final[Mapping[str, type]] = {}
"""A reason without values."""


class Reason(Enum):
    """(code, the outcome that it leads to, its values' names and types, the words for them)."""

    NOTHING = 0, "", NONE, lambda: ""
    TEXT = -1, "", {"text": str}, lambda text: text
    """What a verdict says that was written as words. Stands in no Verdict v2."""
    LATER = (
        -2,
        "",
        {"code": int, "values": str},
        lambda code, values: f"reason {code} of a later Fluvial: {values}",
    )
    """A code that this Fluvial does not know. Stands in no Verdict."""

    # -- bytes
    NO_VALUE = 101, "undecodable", NONE, lambda: "the record has no value"
    TOO_LARGE = (
        102, "too_large", {"bytes": int, "bytes_max": int},
        lambda size, allowed: f"{size} bytes, the policy allows {allowed}",
    )  # fmt: skip
    FAR_TOO_LARGE = (
        103, "too_large", {"limit": int, "bytes_max": int},
        lambda limit, allowed: f"over {limit} bytes, the policy allows {allowed}",
    )  # fmt: skip
    NOT_SINGLE_OBJECT = 104, "undecodable", NONE, lambda: "not single-object encoded Avro"
    UNKNOWN_FINGERPRINT = (
        105, "unknown_schema", {"fingerprint": str}, lambda name: f"unknown schema fingerprint {name}",
    )  # fmt: skip
    ANOTHER_RECORD = (
        106, "undecodable", {"expected": str, "record": str},
        lambda expected, name: f"expected a {expected}, got a {name}",
    )  # fmt: skip
    ANOTHER_KIND = (
        107, "undecodable", {"kind": str, "record": str},
        lambda kind, name: f"the envelope says {kind!r}, the payload is a {name}",
    )  # fmt: skip
    NOT_WHOLE = 108, "undecodable", {"record": str}, lambda name: f"not a whole {name}"
    """Stands in verdicts of v1 only, with what a library said of it."""
    BYTES_LEFT = (
        109, "undecodable", {"bytes": int, "record": str},
        lambda size, name: f"{size} bytes too many after a {name}",
    )  # fmt: skip
    TOO_MANY_ITEMS = (
        110, "undecodable", {"items_max": int, "record": str},
        lambda limit, name: f"over {limit} items in a {name}",
    )  # fmt: skip
    ANOTHER_TOPIC = (
        111, "undecodable", {"record": str}, lambda name: f"a {name} does not belong into an updates topic",
    )  # fmt: skip
    MALFORMED = 112, "undecodable", {"record": str, "flaw": str, "at": int}, words.malformed
    """``flaw`` is one of ``schemas.canonical.Flaw``; ``at`` the byte where the flawed value begins, header included."""

    # -- certificates and signatures
    CERTIFICATE_TOO_LARGE = (
        201, "bad_certificate", {"bytes": int, "bytes_max": int},
        lambda size, limit: f"a certificate of {size} bytes, the limit is {limit}",
    )  # fmt: skip
    NOT_A_CERTIFICATE = 202, "bad_certificate", NONE, lambda: "not a certificate of ours"
    KEY_NOT_ED25519 = 203, "bad_certificate", NONE, lambda: "the key is not Ed25519"
    NO_CA = (
        204,
        "bad_certificate",
        {"region": str},
        lambda region: f"no CA is known for the region {region!r}",
    )
    CA_MAY_NOT = (
        205, "bad_certificate", {"region": str, "role": str},
        lambda region, role: f"the CA of {region} may not vouch for a {role}",
    )  # fmt: skip
    NOT_ISSUED = 206, "bad_certificate", {"region": str}, lambda region: f"not issued by the CA of {region}"
    NOT_CANONICAL_DER = 207, "bad_certificate", NONE, lambda: "not in canonical DER form"
    IS_A_CA = 208, "bad_certificate", NONE, lambda: "a CA certificate may not sign records"
    NOT_ONE_NAME = (
        209, "bad_certificate", NONE,
        lambda: "it has to carry exactly one spiffe:// URI, and a device's at most its cohort's behind it",
    )  # fmt: skip
    WRONG_NAME = (
        210, "bad_certificate", {"uri": str}, lambda uri: f"expected spiffe://<region>/<role>/<id>, got {uri!r}",
    )  # fmt: skip
    EXPIRED = (
        220, "certificate_expired", {"serial": str, "timestamp_ms": int},
        lambda serial, at_ms: f"certificate {serial} was not valid at {at_ms} ms",
    )  # fmt: skip
    ROLE_MAY_NOT = (
        221, "bad_certificate", {"role": str, "record": str}, lambda role, kind: f"a {role} may not sign a {kind}",
    )  # fmt: skip
    NOT_SIGNED = (
        222, "bad_signature", {"signer": str}, lambda name: f"the signature is not {name}'s over this payload",
    )  # fmt: skip
    WORKER_OF_ANOTHER_REGION = (
        223, "bad_signature", {"region": str}, lambda region: f"signed by a worker of {region}",
    )  # fmt: skip
    ANOTHER_DEVICE = (
        224, "bad_signature", {"device_id": str, "signer": str},
        lambda device, signer: f"it names device {device!r}, signed by {signer}",
    )  # fmt: skip
    LONG_UPDATE_ID = (
        225, "wrong_layout", {"characters_max": int}, lambda limit: f"update_id is over {limit} characters",
    )  # fmt: skip
    DEVICE_OF_ANOTHER_REGION = (
        226, "wrong_region", {"region": str, "signers_region": str},
        lambda region, own: f"it is for {region!r}, its device is of {own}",
    )  # fmt: skip
    NOT_SIGNED_FOR_THIS = (
        227, "bad_signature", {"signer": str},
        lambda name: f"the signature is not {name}'s over this payload in this task: it was changed, or signed for "
        "another task, such as an earlier one of this name",
    )  # fmt: skip

    # -- updates
    ACCEPTED_CLIPPED = 300, "accepted", {"norm": float, "norm_clip": float}, words.clip
    DEVICE_REVOKED = 301, "revoked", {"device_id": str}, lambda name: f"device {name} was revoked"
    CERTIFICATE_REVOKED = 302, "revoked", {"serial": str}, lambda serial: f"certificate {serial} was revoked"
    ANOTHER_TASK = (
        303, "wrong_task", {"task": str, "own": str},
        lambda task, own: f"it is for the task {task!r}, this log is {own!r}",
    )  # fmt: skip
    ANOTHER_REGION = (
        304, "wrong_region", {"region": str, "own": str},
        lambda region, own: f"it is for the region {region!r}, this log is {own!r}",
    )  # fmt: skip
    ANOTHER_PARTITION = (
        305, "wrong_partition", {"partition": int, "own": int},
        lambda home, own: f"its device belongs to partition {home}, this is {own}",
    )  # fmt: skip
    AHEAD = (
        306, "future_base", {"base_version": int, "version": int},
        lambda base, version: f"base version {base}, this partition has only seen version {version}",
    )  # fmt: skip
    STALE = 307, "too_stale", {"base_version": int, "version": int, "versions_max": int}, words.stale
    BELOW_FLOOR = (
        308, "too_stale", {"base_version": int, "version": int, "versions_max": int, "floor": int}, words.below_floor,
    )  # fmt: skip
    NEVER_SEEN = (
        309, "unknown_base", {"base_version": int}, lambda base: f"this partition never saw a version {base}",
    )  # fmt: skip
    ANOTHER_MODEL = (
        310, "unknown_base", {"base_version": int, "model": str, "base": str},
        lambda base, model, got: f"version {base} is {model}, the update was trained on {got}",
    )  # fmt: skip
    CONTRIBUTED = (
        311, "duplicate", {"device_id": str, "base_version": int},
        lambda name, base: f"device {name} has already contributed to version {base}",
    )  # fmt: skip
    ANOTHER_CODEC = (
        312, "wrong_layout", {"codec": str, "codecs": str},
        lambda codec, taken: f"codec {codec}, the policy takes {taken}",
    )  # fmt: skip
    OTHER_TENSORS = (
        313, "wrong_layout", {"tensors": int, "expected": int},
        lambda count, own: f"{count} tensors, not the model's {own} by name and order",
    )  # fmt: skip
    OTHER_SHAPE = 314, "wrong_layout", NONE, lambda: "a tensor's shape is not the model's"
    TENSOR_BYTES = (
        315, "wrong_layout", {"tensor": str, "bytes": int, "expected": int},
        lambda name, size, expected: f"tensor {name} has {size} bytes, expected {expected}",
    )  # fmt: skip
    TENSOR_SCALE = (
        316,
        "wrong_layout",
        {"codec": str},
        lambda codec: f"a {codec} tensor has a scale other than 1",
    )
    TENSOR_LEVEL = (
        317, "wrong_layout", {"tensor": str, "level": int},
        lambda name, level: f"tensor {name} has the level {level}, or padding that is not 0",
    )  # fmt: skip
    BUFFER_BYTES = (
        318, "wrong_layout", {"tensor": str, "bytes": int, "expected": int},
        lambda name, size, expected: f"buffer {name} has {size} bytes, expected {expected}",
    )  # fmt: skip
    BUFFER_SCALE = (
        319,
        "wrong_layout",
        {"tensor": str},
        lambda name: f"buffer {name} has a scale other than 1",
    )
    NO_NUMBER = (
        320, "not_finite", NONE, lambda: "a scale or an element is NaN, infinite, or a scale is negative",
    )  # fmt: skip
    BELOW_ZERO = (
        321, "out_of_range", {"tensor": str},
        lambda name: f"buffer {name} has an element below 0, none of it may be",
    )  # fmt: skip
    NORM = (
        322, "norm_exceeded", {"norm": float, "norm_max": float},
        lambda norm, allowed: f"norm {norm:.6g}, the policy allows {allowed:g}",
    )  # fmt: skip
    DEVIATES = (
        323, "anomalous", {"norm": float, "norm_deviations": float, "norm_deviations_max": float}, words.deviates,
    )  # fmt: skip
    AGAINST = 324, "anomalous", {"cosine": float, "cosine_min": float}, words.against
    STALE_FOR_LONG = (
        325, "too_stale",
        {"base": int, "version": int, "versions_max": int, "seconds": float, "seconds_max": float},
        words.stale_for_long,
    )  # fmt: skip
    OVER_SHARE = (
        326, "over_share", {"device_id": str, "version": int, "per_version": int}, words.over_share,
    )  # fmt: skip
    QUARANTINED = (
        327, "quarantined", {"device_id": str, "until": int}, words.quarantined,
    )  # fmt: skip
    NO_CHANGE = 328, "anomalous", NONE, lambda: "it changes nothing: all of its weights' deltas are 0"
    AGAINST_GUIDE = (
        329, "anomalous", {"cosine": float, "cosine_min": float},
        lambda cosine, least: f"its cosine with the guide is {cosine:.3f}, the policy asks for {least:g} or more",
    )  # fmt: skip
    ROUND_OVER = (
        330, "round_over", {"base": int, "version": int},
        lambda base, version: f"the round of version {base} is over, the task is at version {version}",
    )  # fmt: skip
    NOT_SELECTED = (
        331, "not_selected", {"device_id": str, "base": int},
        lambda device, base: f"{device} was not selected to answer version {base}",
    )  # fmt: skip
    COHORT_OVER_SHARE = (
        332, "over_share", {"cohort": str, "version": int, "window_max": int},
        lambda cohort, version, most: (
            f"the window at version {version} has {most} updates of the cohort {cohort}, the policy's most"
        ),
    )  # fmt: skip

    # -- windows of edges
    EDGE_WINDOW = (
        340, "aggregated", {"edge": str, "sequence": int, "accepted": int},
        lambda edge, sequence, accepted: f"window {sequence} of {edge}, of {accepted} updates",
    )  # fmt: skip
    EDGE_AGAIN = (
        341, "duplicate", {"edge": str, "sequence": int, "next": int},
        lambda edge, sequence, following: f"window {sequence} of {edge} came before, its next is {following}",
    )  # fmt: skip
    EDGE_GAP = (
        342, "bad_aggregate", {"edge": str, "sequence": int, "next": int},
        lambda edge, sequence, following: f"window {sequence} of {edge} does not follow its last one, its next is "
        f"{following}",
    )  # fmt: skip
    EDGE_MISLABELLED = (
        343, "bad_aggregate", {"edge": str},
        lambda edge: f"the window in it is of another log than that of {edge}",
    )  # fmt: skip
    EDGE_POLICY = (
        344, "bad_aggregate", {"edge": str, "policy": str, "own": str},
        lambda edge, policy, own: f"{edge} folded it under the policy {policy}, in force is {own}",
    )  # fmt: skip
    EDGE_TOO_MANY = (
        345, "over_share", {"edge": str, "accepted": int, "updates_max": int},
        lambda edge, accepted, allowed: f"with this window {edge} has {accepted} updates at this version, the policy "
        f"allows {allowed}",
    )  # fmt: skip
    EDGE_FORM = (
        346, "bad_aggregate", {"edge": str, "flaw": str},
        lambda edge, flaw: f"no log comes to this window of {edge}: its {flaw}",
    )  # fmt: skip
    EDGE_NORM = (
        347, "bad_aggregate", {"edge": str, "section": str},
        lambda edge, section: f"the sums of {section} of {edge} are longer than so many clipped updates are",
    )  # fmt: skip
    EDGE_LATE_BUFFERS = (
        348, "too_stale", {"edge": str, "base": int, "version": int},
        lambda edge, base, version: f"{edge} folded it at version {base}, this is version {version}: means of buffers "
        "are of one version",
    )  # fmt: skip
    EDGE_UNREADABLE = (
        349, "undecodable", {"edge": str, "flaw": str},
        lambda edge, flaw: f"not the one encoding of a window of {edge}: its {flaw}",
    )  # fmt: skip

    # -- control records
    BARRIER = (
        401, "control", {"version": int, "reason": str},
        lambda version, reason: f"barrier to version {version} ({reason})",
    )  # fmt: skip
    BARRIER_BEHIND = (
        402, "control", {"version": int, "own": int},
        lambda version, own: f"barrier to version {version} changes nothing at version {own}",
    )  # fmt: skip
    TICK = 403, "control", {"first_offset": int}, lambda first: f"tick for the window from {first}"
    TICK_BEHIND = (
        404, "control", {"first_offset": int}, lambda first: f"tick for a window that is closed already ({first})",
    )  # fmt: skip
    REVOKE = 405, "control", {"device_id": str, "serial": str, "reason": str}, words.revoke
    SKIP = (
        406,
        "control",
        {"offset": int, "reason": str},
        lambda offset, why: f"skip of offset {offset}: {why}",
    )
    PARKED = (
        407, "skipped", {"skip_offset": int, "reason": str},
        lambda offset, why: f"parked by the operator's Skip at offset {offset}: {why}",
    )  # fmt: skip
    PARDON = (
        408, "control", {"device_id": str, "until": int, "reason": str},
        lambda device, until, why: f"the quarantine of {device} until version {until} ends here: {why}",
    )  # fmt: skip
    PARDON_OF_NOTHING = (
        409, "control", {"device_id": str, "until": int, "reason": str},
        lambda device, until, why: f"{device} is in no quarantine until version {until} here, nothing is lifted: {why}",
    )  # fmt: skip
    CONTROL_OF_ANOTHER_TASK = 411, "wrong_task", {"task": str}, lambda task: f"it is for the task {task!r}"
    CONTROL_OF_ANOTHER_REGION = (
        412,
        "wrong_region",
        {"region": str},
        lambda name: f"it is for the region {name!r}",
    )
    CONTROL_OF_ANOTHER_PARTITION = (
        413, "wrong_partition", {"partition": int}, lambda number: f"it is for the partition {number}",
    )  # fmt: skip
    SIGNER_REVOKED = (
        414, "revoked", {"serial": str}, lambda serial: f"it is signed with certificate {serial}, which was revoked",
    )  # fmt: skip

    def __init__(self, code: int, outcome: str, fields: Mapping[str, type], words: Words) -> None:
        self.code = code
        self.outcome = outcome
        self.fields = fields
        self.words = words


REASONS: Final = {reason.code: reason for reason in Reason if reason.code >= 0}
"""Every reason that a verdict can carry, by its code."""


@dataclass(frozen=True, slots=True)
class Because:
    """A reason with its values.

    ``forged``: of a control record that is not authentic, the kind that it says it is; else "". ``library``: what a
    library said, in tasks whose verdicts hold words; None in all others.
    """

    reason: Reason
    values: tuple[Value, ...] = ()
    forged: str = ""
    library: str | None = None

    @property
    def text(self) -> str:
        """The words. What devices wrote stands in them as it is: whoever shows them escapes it."""
        text = self.reason.words(*self.values)
        if self.library is not None:
            text = f"{text}: {self.library}"
        return f"forged {self.forged}: {text}" if self.forged else text

    @property
    def named(self) -> dict[str, Value]:
        """The values by their names."""
        return dict(zip(self.reason.fields, self.values, strict=True))


def because(reason: Reason, *values: Value, library: str | None = None) -> Because:
    """A reason with its values, in the order of the table."""
    return Because(reason, values, library=library)


def said(text: str) -> Because:
    """What a verdict of v1 says."""
    return Because(Reason.TEXT, (text,)) if text else NOTHING


def reason_of(code: int, values: tuple[Any, ...], forged: str) -> Because:
    """The reason that a verdict carries; a code or values that this Fluvial does not know are ``Reason.LATER``."""
    reason = REASONS.get(code)
    if reason is None or [type(one) for one in values] != list(reason.fields.values()):
        return Because(Reason.LATER, (code, ", ".join(map(str, values))), forged)
    return Because(reason, values, forged)


NOTHING: Final = Because(Reason.NOTHING)
"""Nothing is to be said: an update that counts as it is."""
