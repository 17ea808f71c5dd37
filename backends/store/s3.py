"""The object store over plain S3: MinIO on the local stack, and any server with conditional writes.

Spoken through minio-py, which retries nothing here that could hide an outage for long: reads and plain writes
are idempotent and get two quick retries (a restarted server closes idle connections); a conditional write
gets none, because a retry after a lost answer would meet its own object and report that somebody else was
first.
"""

from __future__ import annotations

import contextlib
import io
import re
from typing import TYPE_CHECKING, Final

import minio
import tenacity
import urllib3
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from aggregation.errors import ConnectionProblem
from backends.object_store import (
    ObjectNotFound,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    check_key,
    check_prefix,
    wrong_key,
)
from backends.store.http import open_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import StoreSettings

CONNECT_TIMEOUT_S: Final = 5.0
# Of one wait for bytes, not of a whole object. A server that is killed or just starting may leave a request
# unanswered.
READ_TIMEOUT_S: Final = 20.0
CONNECTIONS_MAX: Final = 32
PART_BYTES: Final = 64 * 1024 * 1024
CONFLICT_ATTEMPTS_MAX: Final = 8

_REFUSED: Final = frozenset(
    {
        "AccessDenied",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_FULL: Final = frozenset({"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"})
_CLASH: Final = frozenset({"XMinioObjectExistsAsDirectory", "XMinioParentIsObject"})
_BUSY: Final = frozenset(
    {
        "IncompleteBody",  # a connection that was cut in the middle of a PUT, or a disk that took only a part
        "InternalError",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
    }
)
_URLLIB3_OBJECT: Final = re.compile(r"^<?[\w.]*Connection\w*(\(.*?\)| object at \w+>): ")
_HTTP_SERVER_ERROR: Final = 500
_HTTP_STORAGE_FULL: Final = 507


class _ConflictError(Exception):
    """Two conditional writes met (409): neither is refused yet, so ask again."""


class S3Store:
    """An ``ObjectStore`` in one bucket of an S3 server."""

    def __init__(self, settings: StoreSettings, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        """Prepare connections to the server; none is opened before the first call."""
        self._settings = settings
        self._bucket = settings.bucket
        self._client = _client(settings, read_timeout_s, retries=2)
        self._client_of_creates = _client(settings, read_timeout_s, retries=0)

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        check_key(key)
        with self._outages(key):
            response = self._client.get_object(self._bucket, key)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

    def put(self, key: str, data: bytes) -> None:
        """See ``ObjectStore.put``."""
        check_key(key)
        with self._outages(key):
            self._client.put_object(self._bucket, key, io.BytesIO(data), len(data), part_size=PART_BYTES)

    def create(self, key: str, data: bytes) -> bool:
        """See ``ObjectStore.create``. One PUT with ``If-None-Match: *``: at most 5 GiB."""
        check_key(key)
        ask = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_ConflictError),
            stop=tenacity.stop_after_attempt(CONFLICT_ATTEMPTS_MAX),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=0.5),
            reraise=True,
        )
        try:
            with self._outages(key):
                return bool(ask(self._create_once, key, data))
        except _ConflictError:
            raise StoreUnavailable(
                "FLV-4002",
                f"the store answered 409 to {CONFLICT_ATTEMPTS_MAX} conditional writes of {key!r} in a row",
                where=self.describe(),
                hint="repeat the call; if it lasts, `fluvial doctor` tries the store's conditional writes",
            ) from None

    def exists(self, key: str) -> bool:
        """See ``ObjectStore.exists``."""
        check_key(key)
        try:
            with self._outages(key):
                self._client.stat_object(self._bucket, key)
        except ObjectNotFound:
            # A HEAD has no body to say whether the key or the bucket is missing; the two must not be
            # confused.
            self._require_bucket()
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """See ``ObjectStore.list``."""
        check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[str]:
        with self._outages(prefix):
            for item in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                if item.object_name is not None:
                    yield item.object_name

    def remove(self, prefix: str) -> int:
        """Delete every object below the folder ``prefix``; how many."""
        keys = list(self._list(prefix))
        with self._outages(prefix):
            refused = list(self._client.remove_objects(self._bucket, [DeleteObject(key) for key in keys]))
        if refused:
            raise ConnectionProblem(
                "FLV-4007",
                f"the store did not delete {len(refused)} of {len(keys)} objects: {refused[0].code}",
                where=f"{self.describe()}, {refused[0].name}",
                hint="see that its keys may delete in this bucket, then repeat the command",
            )
        return len(keys)

    def describe(self) -> str:
        """See ``ObjectStore.describe``."""
        name = "MinIO" if self._settings.kind == "minio" else "S3"
        through = f" through the proxy {self._settings.shown().proxy}" if self._settings.proxy else ""
        return f"{name} {self._settings.url} bucket {self._bucket}{through}"

    def make_bucket(self) -> None:
        """Make the bucket if it is missing. For the local stack; elsewhere buckets are the operator's."""
        with self._outages(self._bucket):
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def _create_once(self, key: str, data: bytes) -> bool:
        # The public put_object turns unknown headers into user metadata and would overwrite; only this one
        # sends them as they are. A contract test fails if a new minio-py changes that.
        try:
            self._client_of_creates._put_object(  # noqa: SLF001
                self._bucket,
                key,
                data,
                headers={"If-None-Match": "*", "Content-Type": "application/octet-stream"},
            )
        except S3Error as error:
            if error.code == "PreconditionFailed":
                return False
            if error.code in {"ConditionalRequestConflict", "OperationAborted"}:
                raise _ConflictError from error
            raise
        return True

    def _require_bucket(self) -> None:
        with self._outages(self._bucket):
            if not self._client.bucket_exists(self._bucket):
                raise self._no_bucket()

    def _no_bucket(self) -> ConnectionProblem:
        return ConnectionProblem(
            "FLV-4006",
            f"the store has no bucket {self._bucket!r}",
            where=self.describe(),
            hint="`fluvial up` makes it on the local stack; elsewhere make it with your store's own tool",
        )

    @contextlib.contextmanager
    def _outages(self, key: str) -> Iterator[None]:
        """Map everything that minio-py and urllib3 raise to our errors."""
        try:
            yield
        except S3Error as error:
            raise self._from_s3(error, key) from error
        except ServerError as error:
            full = error.status_code == _HTTP_STORAGE_FULL
            raise (self._full if full else self._unavailable)(f"HTTP {error.status_code}") from error
        except InvalidResponseError as error:
            raise self._unavailable("the answer is not S3 (is the port another service's?)") from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unavailable(_shortly(error)) from error

    def _from_s3(self, error: S3Error, key: str) -> Exception:
        code, status = error.code or "", error.response.status
        if code == "NoSuchKey":
            return ObjectNotFound(key, where=self.describe())
        if code == "NoSuchBucket":
            return self._no_bucket()
        if code in _REFUSED:
            clock = " (this machine's clock is off)" if code == "RequestTimeTooSkewed" else ""
            return StoreRefused(
                "FLV-4003",
                f"the store refuses our keys: {code}{clock}",
                where=self.describe(),
                hint="compare the keys and where they come from with `fluvial config show --sources`",
            )
        if code in _CLASH:
            return wrong_key(key, "a key that is not also a prefix of other keys")
        if code in _FULL or status == _HTTP_STORAGE_FULL:
            return self._full(code)
        if code in _BUSY or status >= _HTTP_SERVER_ERROR:
            return self._unavailable(f"{code}: {error.message}")
        return ConnectionProblem(
            "FLV-4007",
            f"the store refuses the request for {key!r}: HTTP {status}, {code}: {error.message}",
            where=self.describe(),
            hint="check that the server speaks S3 with conditional writes: `fluvial doctor`",
        )

    def _unavailable(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(
            "FLV-4002",
            f"the object store does not serve: {reason}",
            where=self.describe(),
            hint="see its state with `fluvial doctor`, start the local one with `fluvial up`",
        )

    def _full(self, reason: str) -> StoreFull:
        return StoreFull(
            "FLV-4004",
            f"the object store is full: {reason}",
            where=self.describe(),
            hint="make room on the store's disk; work goes on by itself once there is some",
        )


def _client(settings: StoreSettings, read_timeout_s: float, *, retries: int) -> minio.Minio:
    policy = urllib3.Retry(
        total=retries, backoff_factor=0.1, status_forcelist=[502, 503, 504], raise_on_status=False, redirect=0
    )
    pool = open_pool(
        settings,
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
        maxsize=CONNECTIONS_MAX,
        retries=policy if retries else urllib3.Retry(total=0, redirect=0, raise_on_status=False),
    )
    # A fixed region spares a round trip that asks for it, which restricted keys are often refused.
    return minio.Minio(
        settings.endpoint,
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        session_token=settings.session_token or None,
        secure=settings.secure,
        region=settings.region,
        http_client=pool,
    )


def _shortly(error: BaseException) -> str:
    """The innermost reason in words, without the Python object that urllib3 puts in front."""
    reason = getattr(error, "reason", None)
    inner = reason if isinstance(reason, BaseException) else error
    return _URLLIB3_OBJECT.sub("", str(inner)) or type(inner).__name__
