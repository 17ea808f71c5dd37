"""OAUTHBEARER: where the tokens come from that say who a client is.

By OpenID Connect (RFC 6749, section 4.4) from a token endpoint: librdkafka has a method of its own, aiokafka takes
``TokenProvider``. Or by a function of the user's, such as the signer of a managed cloud, for both. A token is asked
for anew before it ends.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import math
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import urllib3
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from aggregation.errors import AccessProblem, ConnectionProblem, FluvialError, UsageProblem
from backends.settings import KafkaSecurity

TOKEN_TIMEOUT_S: Final = 10.0
FRESH_SHARE: Final = 0.8
"""A token is used for this share of its life, and then another is asked for: as librdkafka does."""
ANSWER_BYTES_MAX: Final = 1 << 20
_HTTP_OK: Final = 200
_HTTP_REFUSED: Final = range(400, 500)
_HTTP_BUSY: Final = frozenset({408, 425, 429})

Token = tuple[str, float]
"""A token, and the second since 1970 at which it ends."""


class _Callback(Protocol):
    def __call__(self) -> Token: ...


def librdkafka_tokens(kafka: KafkaSecurity) -> dict[str, Any]:
    """Librdkafka's own method, or the user's function."""
    if kafka.oauth_callback:
        ask = _of_the_user(kafka.oauth_callback)
        return {"oauth_cb": lambda _config: ask()}
    options = {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": kafka.oauth_token_url,
        "sasl.oauthbearer.client.id": kafka.oauth_client_id,
        "sasl.oauthbearer.client.secret": kafka.oauth_client_secret,
    }
    if kafka.oauth_scope:
        options["sasl.oauthbearer.scope"] = kafka.oauth_scope
    if kafka.oauth_ca_file is not None:
        options["https.ca.location"] = str(kafka.oauth_ca_file)
    return options


def token_provider(kafka: KafkaSecurity) -> TokenProvider:
    """The same for aiokafka."""
    if kafka.oauth_callback:
        return TokenProvider(_of_the_user(kafka.oauth_callback))
    return TokenProvider(lambda: _by_openid_connect(kafka))


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Gives the token that it has, and asks for another before that ends."""

    def __init__(self, ask: Callable[[], Token], now_s: Callable[[], float] = time.time) -> None:
        self._ask = ask
        self._now_s = now_s
        self._token = ""
        self._fresh_until_s = -math.inf

    async def token(self) -> str:
        """A token that has not ended.

        KafkaConnectionError, which aiokafka's own tasks survive, where none can be had. Its cause says why:
        AccessProblem FLV-3118, it is refused; ConnectionProblem FLV-3118, no answer; or what a user's function raised.
        """
        if self._now_s() >= self._fresh_until_s:
            try:
                token, ends_s = await asyncio.to_thread(self._ask)
                asked_s = self._now_s()
                fresh_until_s = asked_s + FRESH_SHARE * (ends_s - asked_s)
            except Exception as problem:
                raise KafkaConnectionError(f"no token: {type(problem).__name__}: {problem}") from problem
            self._token, self._fresh_until_s = token, fresh_until_s
        return self._token


def _of_the_user(name: str) -> _Callback:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageProblem(
            "FLV-3118",
            f"the function that gives tokens cannot be loaded: {error}",
            where=f"FLUVIAL_KAFKA_OAUTH_CALLBACK={name}",
            hint="name it as `module:function`; it takes nothing and returns a token and the second at which it ends",
        ) from error
    return cast("_Callback", found)


def _by_openid_connect(kafka: KafkaSecurity) -> Token:
    fields = {"grant_type": "client_credentials"} | (
        {"scope": kafka.oauth_scope} if kafka.oauth_scope else {}
    )
    headers = urllib3.make_headers(basic_auth=f"{kafka.oauth_client_id}:{kafka.oauth_client_secret}")
    with urllib3.PoolManager(ca_certs=str(kafka.oauth_ca_file) if kafka.oauth_ca_file else None) as pool:
        try:
            answer = pool.request(
                "POST",
                kafka.oauth_token_url,
                fields=fields,
                encode_multipart=False,
                headers=headers,
                timeout=TOKEN_TIMEOUT_S,
                retries=False,
                preload_content=False,
            )
            data = answer.read(ANSWER_BYTES_MAX)
            answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise _no_token(kafka, f"it does not answer ({type(error).__name__})", refused=False) from error
    if answer.status != _HTTP_OK:
        refused = answer.status in _HTTP_REFUSED and answer.status not in _HTTP_BUSY
        raise _no_token(kafka, f"it answers with status {answer.status}", refused=refused)
    try:
        document = json.loads(data)
        token = str(document["access_token"])
        return token, _end_of(token, document)
    except (ValueError, KeyError, TypeError) as error:
        raise _no_token(kafka, "its answer has no access_token with an end", refused=True) from error


def _end_of(token: str, document: dict[str, Any]) -> float:
    """``expires_in`` of the answer, else what the token itself says (RFC 7519, ``exp``)."""
    if "expires_in" in document:
        return time.time() + float(document["expires_in"])
    payload = token.split(".")[1]
    return float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])


def _no_token(kafka: KafkaSecurity, why: str, *, refused: bool) -> FluvialError:
    kind = AccessProblem if refused else ConnectionProblem
    return kind(
        "FLV-3118",
        f"no token for Kafka from the identity provider: {why}",
        where=f"token endpoint {kafka.oauth_token_url}, client {kafka.oauth_client_id}",
        hint="compare FLUVIAL_KAFKA_OAUTH_TOKEN_URL, FLUVIAL_KAFKA_OAUTH_CLIENT_ID and its secret with what the "
        "provider was told",
    )
