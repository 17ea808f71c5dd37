"""What comes into the fold (events) and what goes out of it (effects). All frozen.

Events are what a record *says* once its bytes were decoded and its signature verified; a record that failed
there comes in as ``Refused``. Effects are what the interpreter (worker or audit) has to make true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregation.defences import NOT_KNOWN, Usual
from aggregation.defences.usual import Histograms
from aggregation.reasons import NOTHING, Because

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from aggregation.codecs import CodecName, Direction
    from aggregation.fold.bases import Base
    from aggregation.fold.rejections import RejectionReason
    from aggregation.merges import Bucket
    from aggregation.policy import Policy


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record that did not get as far as being an authenticated event."""

    rejection: RejectionReason
    because: Because
    device_id: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """An authenticated ClientUpdate. Tensor *t* is ``names[t]``, ``shapes[t]``, ``scales[t]``, ``data[t]``.

    The weights' tensors come first, as ``codec`` encodes them, then the buffers', as ``codecs.values`` does,
    then those of the control variates, by ``codec`` again.

    ``data`` may be views of the record's bytes, in the place of copies.

    ``signer`` is its certificate's name among what is revoked; "": the serial.
    ``record_bytes`` is the size of the whole record, envelope included. ``cohort`` is what the device says of itself,
    0 to 99, else None: for whoever looks on; the fold does not read it. ``timestamp_ms`` is the record's LogAppendTime.
    ``certified_cohort`` is what the CA says of it, "" for none: a lot may go by that.
    """

    task: str
    region: str
    device_id: str
    certificate_serial: str
    base_version: int
    base_sha256: str
    update_id: str
    num_examples: int
    codec: CodecName
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    scales: tuple[float, ...]
    data: tuple[bytes, ...]
    signature: bytes
    record_bytes: int = 0
    cohort: int | None = None
    signer: str = ""
    timestamp_ms: int = 0
    certified_cohort: str = ""


@dataclass(frozen=True, slots=True)
class EdgeWindow:
    """What an edge's RegionalAggregate says of one of its windows; ``sha256`` (hex) is that of its payload.

    ``bases`` ascending and ``buckets`` as the record has them: nothing in here is checked but its encoding.
    """

    task: str
    region: str
    partition: int
    sequence: int
    version: int
    policy_sha256: str
    counts: Mapping[str, int]
    accepted: int
    weight_total: int
    staleness_total: int
    staleness_max: int
    update_bytes: int
    previous_sha256: str
    sha256: str
    histograms: Histograms
    buckets: tuple[Bucket, ...]
    bases: tuple[Base, ...]


@dataclass(frozen=True, slots=True)
class EdgeAggregate:
    """An authenticated EdgeAggregate: a window of the log of ``edge``, published to that of ``region`` above it.

    ``model_sha256`` is the model of the version that the window was folded at. ``sums`` is int64[n], those that the
    window's record names; None where it accepted nothing. ``signer``, ``certificate_serial``, ``record_bytes`` and
    ``timestamp_ms`` are as in an update.
    """

    task: str
    region: str
    edge: str
    certificate_serial: str
    model_sha256: str
    window: EdgeWindow
    sums: npt.NDArray[np.int64] | None
    signature: bytes
    record_bytes: int = 0
    signer: str = ""
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Guide:
    """A direction that a guardian signed for the version ``version`` whose model's SHA-256 is ``model_sha256``.

    ``signer`` is its certificate's name among what is revoked.
    """

    version: int
    model_sha256: str
    direction: Direction
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Barrier:
    """An authenticated Barrier: from this offset on, the partition is at ``version`` under ``policy``.

    ``policy`` and ``reference`` are the objects that ``policy_sha256`` and ``reference_sha256`` name; whoever
    calls the fold loads them first, by hash (they are None on a barrier that ``state.applies`` says changes
    nothing). So is ``guide`` of ``guide_sha256``, which stays None where no guardian of this task signed that object.
    ``usual`` is what is usual in the task, ``timestamp_ms`` the record's LogAppendTime.

    Of this and the other control records ``signer`` is the name of the signer's certificate among what is revoked; ""
    in tasks where none of them can be.
    """

    task: str
    region: str
    version: int
    manifest_sha256: str
    model_sha256: str
    reference_sha256: str
    policy_sha256: str
    floor: int
    reason: str
    policy: Policy | None = None
    reference: Direction | None = None
    signer: str = ""
    usual: Usual = NOT_KNOWN
    guide_sha256: str = ""
    guide: Guide | None = None
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """An authenticated Tick.

    A worker's clock says that the window which began at this offset is old enough.
    """

    task: str
    region: str
    partition: int
    window_first_offset: int
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Revoke:
    """An authenticated Revoke: of a device id, of a certificate serial (hex), or both. "" means not given.

    ``certificate`` is the certificate's name among what is revoked; "": the serial.
    """

    task: str
    device_id: str
    certificate_serial: str
    reason: str
    signer: str = ""
    certificate: str = ""

    @property
    def named(self) -> tuple[str, ...]:
        """What is barred from here on."""
        return tuple(name for name in (self.device_id, self.certificate or self.certificate_serial) if name)


@dataclass(frozen=True, slots=True)
class Skip:
    """An authenticated Skip: the record at ``offset`` of this partition, which made the fold raise, is parked.

    It acts where that record stands, as ``Parked``. Where it stands itself it changes nothing.
    """

    task: str
    region: str
    partition: int
    offset: int
    reason: str
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Pardon:
    """An authenticated Pardon: the quarantine of a device that would last until version ``until`` ends here."""

    task: str
    region: str
    device_id: str
    until: int
    reason: str
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """What is folded in the place of a record that makes the fold raise: the Skip at ``skip_offset`` names it.

    Nothing of the record itself is in here, so whoever folds it again needs no code that can read it.
    """

    skip_offset: int
    reason: str


Event = Update | EdgeAggregate | Barrier | Tick | Revoke | Skip | Pardon | Parked | RejectedRecord


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one offset.

    ``outcome`` is ``accepted``, ``control``, ``skipped`` or a ``Rejection``'s outcome. ``because`` says why; one that
    was read from a Verdict of v1 holds its words only. ``weight`` is the staleness
    weight in units of 1/65536, ``clip`` the factor in (0, 1] that the norm was clipped by, ``norm`` the L2 norm
    before clipping, ``norm_deviations`` and ``cosine`` the anomaly scores; all 0 where the record did not get
    that far.
    """

    offset: int
    outcome: str
    because: Because = NOTHING
    device_id: str = ""
    update_id: str = ""
    base_version: int = -1
    staleness: int = -1
    weight: int = 0
    clip: float = 0.0
    norm: float = 0.0
    norm_deviations: float = 0.0
    cosine: float = 0.0

    @property
    def detail(self) -> str:
        """Why, in words. Whoever shows them escapes what devices wrote in them."""
        return self.because.text


@dataclass(frozen=True, slots=True)
class WindowClosed:
    """A window's content, ready to become an aggregate.

    ``sums`` is int64[``layout.sum_elements_of(buckets)``], or None when nothing was accepted. ``histograms``,
    ``buckets`` and ``bases`` (ascending) are None where the policy is of a format that knows none. ``model_sha256`` is
    the model of ``version``; no record of the window says it.
    """

    sequence: int
    first_offset: int
    next_offset: int
    version: int
    policy_sha256: str
    counts: Mapping[str, int]
    accepted: int
    weight_total: int
    staleness_total: int
    staleness_max: int
    update_bytes: int
    contributors_sha256: str
    sums: npt.NDArray[np.int64] | None
    histograms: Histograms | None = None
    buckets: tuple[Bucket, ...] | None = None
    bases: tuple[Base, ...] | None = None
    model_sha256: str = ""


Effect = Verdict | WindowClosed
