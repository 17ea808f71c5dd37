"""The object store on MinIO, spoken through minio-py. The one call that has to be conditional goes through boto3.

minio-py has conditional writes in no public method. Reads and plain writes are idempotent and get two quick retries: a
restarted server closes idle connections.
"""

from __future__ import annotations

import contextlib
import functools
import io
import ssl
from typing import TYPE_CHECKING, Final

import minio
import urllib3
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from aggregation.errors import ConnectionProblem
from backends.object_limits import ObjectLimits, ObjectTooLarge
from backends.object_store import ObjectNotFound, StoreRefused, check_key, check_prefix
from backends.store.http import broken_off, open_pool
from backends.store.limits import CONNECT_TIMEOUT_S, CONNECTIONS_MAX, READ_TIMEOUT_S
from backends.store.s3_errors import from_answer, not_trusted, shortly, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import StoreSettings
    from backends.store.s3 import S3Store

PART_BYTES: Final = 64 * 1024 * 1024


class MinioStore:
    """An ``ObjectStore`` in one bucket of a MinIO server."""

    def __init__(self, settings: StoreSettings, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        """Prepare connections to the server; none is opened before the first call."""
        self.limits = ObjectLimits()
        self._settings = settings
        self._bucket = settings.bucket
        self._read_timeout_s = read_timeout_s
        self._client = _client(settings, read_timeout_s)

    @functools.cached_property
    def _creating(self) -> S3Store:
        from backends.store.s3 import S3Store  # who only reads never pays for it

        return S3Store(self._settings, read_timeout_s=self._read_timeout_s)

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        """See ``ObjectStore.get``."""
        check_key(key)
        with self._outages(key):
            response = self._client.get_object(self._bucket, key)
            try:
                limit, length = self.limits.of(key, bytes_max), response.headers.get("Content-Length")
                # An answer in chunks does not say how long it is: then no more is read than there may be.
                too_large = length is not None and int(length) > limit
                data = b"" if too_large else response.read(limit + 1 if length is None else None)
                if too_large or len(data) > limit:
                    raise ObjectTooLarge(key, limit, where=self.describe())
                return bytes(data)
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
        return self._creating.create(key, data)

    def exists(self, key: str) -> bool:
        """See ``ObjectStore.exists``."""
        check_key(key)
        try:
            with self._outages(key):
                self._client.stat_object(self._bucket, key)
        except ObjectNotFound:
            self._require_bucket(key)
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

    def _require_bucket(self, key: str) -> None:
        """As ``S3Store``'s: by a list of that very key, which a prefix policy allows where it forbids the bucket."""
        with contextlib.suppress(StoreRefused), self._outages(key):
            next(iter(self._client.list_objects(self._bucket, prefix=key)), None)

    @contextlib.contextmanager
    def _outages(self, key: str) -> Iterator[None]:
        """Map everything that minio-py and urllib3 raise to our errors."""
        where = self.describe()
        try:
            yield
        except S3Error as error:
            code = error.code or ""
            about = self._bucket if code == "NoSuchBucket" else key
            raise from_answer(code, error.response.status, error.message or "", about, where) from error
        except ServerError as error:
            raise from_answer("", error.status_code, "", key, where) from error
        except InvalidResponseError as error:
            reason = "the answer is not S3 (is the port another service's?)"
            raise broken_off(reason, self._settings, where) from error
        except urllib3.exceptions.ProtocolError as error:
            raise broken_off(shortly(error), self._settings, where) from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            if isinstance(getattr(error, "reason", error), urllib3.exceptions.SSLError | ssl.SSLError):
                raise not_trusted(shortly(error), where) from error
            raise unavailable(shortly(error), where) from error


def _client(settings: StoreSettings, read_timeout_s: float) -> minio.Minio:
    pool = open_pool(
        settings,
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
        maxsize=CONNECTIONS_MAX,
        retries=urllib3.Retry(
            total=2, backoff_factor=0.1, status_forcelist=[502, 503, 504], raise_on_status=False, redirect=0
        ),
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
