"""The object store over S3 as AWS documents it, spoken through boto3: any server with conditional writes.

Its credentials are those of the settings, or what boto3 finds: variables, files and profiles, a web identity (IRSA), a
container's or an instance's role, STS. boto3 renews what ends while we run.

A conditional write is asked once: a retry after a lost answer would meet its own object, and report that somebody else
was first. Everything else is idempotent and gets two quick retries.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final

import boto3
import tenacity
import urllib3
from botocore import exceptions
from botocore.config import Config

from backends.object_limits import ObjectLimits, ObjectTooLarge
from backends.object_store import ObjectNotFound, check_key, check_prefix
from backends.store.http import broken_off
from backends.store.limits import CONNECT_TIMEOUT_S, CONNECTIONS_MAX, READ_TIMEOUT_S
from backends.store.s3_errors import (
    CONFLICTS,
    NO_SUCH_OBJECT,
    TAKEN,
    conflict_lasts,
    from_answer,
    no_bucket,
    not_trusted,
    refused,
    shortly,
    unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import StoreSettings

ATTEMPTS_MAX: Final = 3
CONFLICT_ATTEMPTS_MAX: Final = 8
REMOVED_AT_ONCE: Final = 1000
"""S3 deletes so many objects in one request."""
_NO_CREDENTIALS: Final = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.ProfileNotFound,
    exceptions.TokenRetrievalError,
    exceptions.UnauthorizedSSOTokenError,
)


_BROKEN_OFF: Final = (
    exceptions.ConnectionClosedError,
    exceptions.HTTPClientError,  # of which a connection that could not be made is none
    exceptions.ResponseStreamingError,
    urllib3.exceptions.ProtocolError,
)
_HTTP_BAD_REQUEST: Final = 400


class _ConflictError(Exception):
    """Two conditional writes met (409): neither is refused yet, so ask again."""


class S3Store:
    """An ``ObjectStore`` in one bucket of an S3 server."""

    def __init__(self, settings: StoreSettings, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        """Prepare connections to the server; none is opened before the first call."""
        self.limits = ObjectLimits()
        self._settings = settings
        self._bucket = settings.bucket
        self._read_timeout_s = read_timeout_s
        self._encryption = _encryption(settings)

    @functools.cached_property
    def _session(self) -> Any:
        with self._outages(""):
            return boto3.session.Session(profile_name=self._settings.profile or None)

    @functools.cached_property
    def _client(self) -> Any:
        return self._open(ATTEMPTS_MAX)

    @functools.cached_property
    def _client_of_creates(self) -> Any:
        return self._open(1)

    def get(self, key: str, *, bytes_max: int | None = None) -> bytes:
        """See ``ObjectStore.get``."""
        check_key(key)
        with self._outages(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            limit, body = self.limits.of(key, bytes_max), answer["Body"]
            length = answer.get("ContentLength")
            # An answer in chunks does not say how long it is: then no more is read than there may be.
            data = b"" if (length or 0) > limit else body.read(limit + 1 if length is None else None)
            if max(length or 0, len(data)) > limit:
                body.close()
                raise ObjectTooLarge(key, limit, where=self.describe())
            return bytes(data)

    def put(self, key: str, data: bytes) -> None:
        """See ``ObjectStore.put``. One PUT: at most 5 GiB."""
        check_key(key)
        with self._outages(key):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data, **self._encryption)

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
            raise conflict_lasts(key, CONFLICT_ATTEMPTS_MAX, self.describe()) from None

    def exists(self, key: str) -> bool:
        """See ``ObjectStore.exists``."""
        check_key(key)
        try:
            with self._outages(key):
                self._client.head_object(Bucket=self._bucket, Key=key)
        except ObjectNotFound:
            self._require_bucket(key)
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """See ``ObjectStore.list``."""
        check_prefix(prefix)
        return self._list(prefix)

    def remove(self, prefix: str) -> int:
        """Delete every object below the folder ``prefix``; how many."""
        keys = list(self._list(prefix))
        for first in range(0, len(keys), REMOVED_AT_ONCE):
            some = [{"Key": key} for key in keys[first : first + REMOVED_AT_ONCE]]
            with self._outages(prefix):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": some, "Quiet": True}
                )
            for failed in answer.get("Errors", []):
                raise from_answer(failed["Code"], 403, failed["Message"], failed["Key"], self.describe())
        return len(keys)

    def describe(self) -> str:
        """See ``ObjectStore.describe``."""
        name = "MinIO" if self._settings.kind == "minio" else "S3"
        through = f" through the proxy {self._settings.shown().proxy}" if self._settings.proxy else ""
        return f"{name} {self._settings.url} bucket {self._bucket}{through}"

    def make_bucket(self) -> None:
        """Make the bucket if it is missing. For tests: buckets are the operator's."""
        with (
            self._outages(self._bucket),
            contextlib.suppress(self._client.exceptions.BucketAlreadyOwnedByYou),
        ):
            self._client.create_bucket(Bucket=self._bucket)

    def _list(self, prefix: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        with self._outages(prefix):
            for page in pages:
                yield from (item["Key"] for item in page.get("Contents", ()))

    def _create_once(self, key: str, data: bytes) -> bool:
        try:
            self._client_of_creates.put_object(
                Bucket=self._bucket, Key=key, Body=data, IfNoneMatch="*", **self._encryption
            )
        except exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            if code in TAKEN:
                return False
            if code in CONFLICTS:
                raise _ConflictError from error
            raise
        return True

    def _require_bucket(self, key: str) -> None:
        """A HEAD has no body to say whether object or bucket is missing, and the two must not be confused.

        Asked by a list of that very key: who is let in by a prefix may not ask for the bucket itself. Who may not list
        either gets 403 for what is missing, so a 404 that came was true.
        """
        try:
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
        except exceptions.ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchBucket":
                raise no_bucket(self._bucket, self.describe()) from error
        except exceptions.BotoCoreError as error:
            raise unavailable(_shortly(error), self.describe()) from error

    def _open(self, attempts: int) -> Any:
        settings = self._settings
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=self._read_timeout_s,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            max_pool_connections=CONNECTIONS_MAX,
            s3={"addressing_style": settings.addressing},
            # Other servers than AWS do not all know the newer checksums; ours stand in what names the objects.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # What is not asked through the proxy of the settings is asked directly, whatever the variables say.
            proxies={"http": settings.proxy, "https": settings.proxy} if settings.proxy else {},
        )
        with self._outages(""):
            return self._session.client(
                "s3",
                endpoint_url=settings.url,
                region_name=settings.region,
                aws_access_key_id=settings.access_key or None,
                aws_secret_access_key=settings.secret_key or None,
                aws_session_token=settings.session_token or None,
                verify=str(settings.ca_file) if settings.ca_file is not None else None,
                config=config,
            )

    @contextlib.contextmanager
    def _outages(self, key: str) -> Iterator[None]:
        """Map everything that boto3 raises to our errors."""
        where = self.describe()
        try:
            yield
        except exceptions.ClientError as error:
            said, status = error.response["Error"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            if not said.get("Message") and status == _HTTP_BAD_REQUEST:  # no answer of S3's
                raise broken_off(f"HTTP {status}", self._settings, where) from error
            code = "NoSuchKey" if said["Code"] in NO_SUCH_OBJECT else said["Code"]
            about = self._bucket if code == "NoSuchBucket" else key
            raise from_answer(code, status, said.get("Message", ""), about, where) from error
        except exceptions.SSLError as error:
            raise not_trusted(_shortly(error), where) from error
        except _NO_CREDENTIALS as error:
            raise refused(f"no credentials for the store: {error}", where) from error
        except exceptions.ReadTimeoutError as error:
            raise unavailable(_shortly(error), where) from error
        except _BROKEN_OFF as error:
            raise broken_off(_shortly(error), self._settings, where) from error
        except (exceptions.BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
            raise unavailable(_shortly(error), where) from error


def _encryption(settings: StoreSettings) -> dict[str, str]:
    """How the server is to encrypt what it stores; nothing: as the bucket says."""
    if not settings.encryption:
        return {}
    said = {"ServerSideEncryption": settings.encryption}
    return said | ({"SSEKMSKeyId": settings.kms_key} if settings.kms_key else {})


def _shortly(error: BaseException) -> str:
    """Why, in words: boto3 puts its own error around urllib3's."""
    cause = getattr(error, "kwargs", {}).get("error")
    return shortly(cause if isinstance(cause, BaseException) else error)
