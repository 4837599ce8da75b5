"""What every request passes before and after the service: token, size, time, counts. Plain ASGI."""

import asyncio
import hmac
import time
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rm_assets.core.errors import ServiceError
from rm_assets.serving.faults import fault_body, headers_of, status_of
from rm_assets.serving.metrics import Metrics

OPEN_PATHS = ("/health", "/ready", "/docs", "/docs/oauth2-redirect", "/openapi.json")
"""What needs no token: it tells nothing of what is scored."""
PATHS = ("/v1/score", "/v1/compare", "/v1/best-of", "/metrics", *OPEN_PATHS)
DISCARDED_BYTES, DISCARD_SECONDS = 8 * 2**20, 2.0
"""How much of a refused body is still read, and thrown away: who is cut off while sending would not see the answer."""


@dataclass(frozen=True)
class Limits:
    """What one request may take."""

    max_body_bytes: int = 2**20
    timeout_seconds: float = 30.0


class Gate:
    """ASGI middleware around the whole service."""

    def __init__(self, app: ASGIApp, *, limits: Limits, token: str | None, metrics: Metrics) -> None:
        self._app, self._limits, self._token, self._metrics = app, limits, token, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts a request and lets it pass; other scopes (the lifespan) pass unseen."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"
        exchange, began = _Exchange(receive, send), time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            await self._limited(scope, exchange)
        finally:
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(path, str(exchange.status or 500)).inc()
            self._metrics.request_seconds.labels(path).observe(time.perf_counter() - began)

    async def _limited(self, scope: Scope, exchange: "_Exchange") -> None:
        if not self._may_pass(scope):
            await exchange.refuse(_unauthorized())
            return
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                body = await self._body(scope, exchange)
                await self._app(scope, _replay(body, exchange.receive), exchange.send)
        except ServiceError as error:
            await exchange.refuse(error)
        except TimeoutError:
            if exchange.status is None:
                await exchange.refuse(_too_slow(self._limits.timeout_seconds))

    def _may_pass(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] in OPEN_PATHS:
            return True
        kind, _, given = _header(scope, b"authorization").partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token.encode())

    async def _body(self, scope: Scope, exchange: "_Exchange") -> bytes:
        """The whole body. Raises: ServiceError SERVICE_003 as soon as it is known to be too large."""
        most = self._limits.max_body_bytes
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared) > most:
            raise _too_large(most)
        body = bytearray()
        while not exchange.has_ended:
            body += (await exchange.receive()).get("body", b"")
            if len(body) > most:
                raise _too_large(most)
        return bytes(body)


class _Exchange:
    """One request and its answer: whether the body has come to its end, and the status once there is one."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.has_ended = False
        self.status: int | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        self.has_ended = not message.get("more_body", False)  # that the client has gone is an end, too
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def refuse(self, error: ServiceError) -> None:
        """Answers with the error and ends the connection."""
        status, body = status_of(error), fault_body(error)
        headers = {**headers_of(status), "content-length": str(len(body)), "connection": "close"}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                await self._discard()
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard(self) -> None:
        num_bytes = 0
        while not self.has_ended and num_bytes < DISCARDED_BYTES:
            num_bytes += len((await self.receive()).get("body", b""))


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what comes."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _unauthorized() -> ServiceError:
    return ServiceError(
        "SERVICE_004", "the token is missing or wrong", fix="send the header `Authorization: Bearer TOKEN`"
    )


def _too_large(most: int) -> ServiceError:
    return ServiceError(
        "SERVICE_003",
        f"the body is larger than {most:,} bytes",
        fix="send fewer responses at a time, or raise --max-body-bytes",
    )


def _too_slow(seconds: float) -> ServiceError:
    return ServiceError(
        "SERVICE_006",
        f"no answer within {seconds:g} seconds",
        why="the body came slowly, many requests wait, or this one is large",
        fix="send fewer responses at a time, or raise --timeout-seconds",
    )
