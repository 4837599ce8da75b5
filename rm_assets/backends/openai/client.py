"""Requests to an OpenAI-compatible server: many at a time, each tried again where that can help, answers in order.

The requests of one call share an event loop and not a pool of threads: a request under way can then be broken off when
another fails or the caller is interrupted, and the server stops generating for it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import httpx2

from rm_assets.core.digests import unit_interval
from rm_assets.core.errors import ServerError
from rm_assets.core.servers import is_loopback

RETRIED = frozenset({408, 409, 425, 429})
"""Statuses below 500 that say "not now" and not "not like this"."""
REFUSES_ONE = frozenset({400, 413, 422})
"""Statuses about one request: too long for the context, against a filter, malformed. Others are about key, model or account."""
OUT_OF_QUOTA = "insufficient_quota"
"""How OpenAI, and who follows it, marks such an answer."""
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
CONNECT_SECONDS = 10.0
GET_RETRIES, GET_SECONDS = 2, 30.0
"""A question before the work: that a server is down should be known at once."""
EXCERPT_CHARS = 300
SECRET_CHARS = 12
"""A shorter key (EMPTY, none) keeps nobody out, and stands in texts by chance."""

Json = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Call:
    """One request: what messages call it, and its JSON body. The name also seeds the waits between its tries."""

    name: str
    body: Json


class RequestRefusedError(ServerError):
    """SERVER_004: the server refuses this very request, and may answer others."""


class ServerClient:
    """One server, its key, and how patiently it is asked. The key is read from its variable when it is first needed."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key_env: str | None,
        concurrency: int,
        timeout_seconds: float,
        retries: int,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._api_key_env, self._concurrency, self._timeout_seconds = api_key_env, concurrency, timeout_seconds
        self._retries, self._first_wait_seconds = retries, first_wait_seconds

    @cached_property
    def _key(self) -> str | None:
        return key_from_environment(self._api_key_env)

    def get(self, path: str) -> Json:
        """The JSON object at `path`. Raises: ServerError."""

        async def ask() -> Json:
            async with self._session() as http:
                return await self._answer(
                    lambda: http.get(path),
                    path,
                    retries=min(self._retries, GET_RETRIES),
                    timeout_seconds=min(self._timeout_seconds, GET_SECONDS),
                )

        return asyncio.run(ask())

    def post_all(
        self,
        path: str,
        calls: Sequence[Call],
        use: Callable[[int, Json], Result],
        refused: Callable[[int, RequestRefusedError], Result] | None = None,
    ) -> list[Result]:
        """`use(position, answer)` of each call, in the order of `calls`. `use` runs as soon as its answer is there.

        The first failure, also one of `use`, breaks off all requests under way; but where there is `refused`, it says what
        becomes of a call that the server refuses alone.

        Raises: ServerError SERVER_001 to SERVER_006, or what `use` raises.
        """

        async def ask_all() -> list[Result]:
            slots = asyncio.Semaphore(self._concurrency)

            async def ask(http: httpx2.AsyncClient, position: int, call: Call) -> Result:
                try:
                    async with slots:
                        answer = await self._answer(
                            lambda: http.post(path, json=call.body),
                            call.name,
                            retries=self._retries,
                            timeout_seconds=self._timeout_seconds,
                        )
                    return use(position, answer)
                except RequestRefusedError as error:
                    if refused is None:
                        raise
                    return refused(position, error)

            async with self._session() as http:
                return await _all_or_first_failure([ask(http, position, call) for position, call in enumerate(calls)])

        return asyncio.run(ask_all())

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[httpx2.AsyncClient]:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        async with httpx2.AsyncClient(
            base_url=self.base_url,
            headers=headers,
            follow_redirects=False,  # the key is for this server alone
            trust_env=not is_loopback(self.base_url),  # a proxy has no way to this machine's own ports
            timeout=httpx2.Timeout(None, connect=min(CONNECT_SECONDS, self._timeout_seconds)),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=self._concurrency),
        ) as http:
            yield http

    async def _answer(
        self, send: Callable[[], Awaitable[httpx2.Response]], name: str, *, retries: int, timeout_seconds: float
    ) -> Json:
        """The answer to one request, after as many tries as it needs and may have."""
        for attempt in range(retries + 1):
            unread: str | None = None
            wait = wait_seconds(name, attempt, self._first_wait_seconds)
            try:
                async with asyncio.timeout(timeout_seconds):
                    response = await send()
            except TimeoutError:
                trouble = f"no answer within {timeout_seconds:g} s"
            except httpx2.RequestError as error:
                trouble = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            else:
                if response.is_success:
                    answer = _json_object(response)
                    if answer is not None:
                        return answer
                    unread = response.text
                elif _is_final(response):
                    self._refuse(response, name)
                trouble = self._said(response)
                wait = max(wait, _retry_after_seconds(response) or 0.0)
            if wait > LONGEST_RETRY_AFTER_SECONDS:
                trouble += f"; it asks to wait {wait:.0f} s"
                break
            if attempt < retries:
                await asyncio.sleep(wait)
        if unread is not None:
            self.misunderstood(name, f"it is not a JSON object, tried {attempt + 1} times", unread)
        raise ServerError(
            "SERVER_001",
            f"{self.base_url} gave no answer to {name}, tried {attempt + 1} times",
            why=self._without_key(trouble),
            fix="start the server, or correct base_url; if it is overloaded, lower execution.server_concurrency or "
            "raise execution.server_timeout_seconds and server_retries",
        )

    def misunderstood(self, name: str, why: str, answer: Any) -> NoReturn:
        """Raises ServerError SERVER_005 that quotes the answer to the call `name`."""
        raise ServerError(
            "SERVER_005",
            f"the answer of {self.base_url} to {name} is not understood: {self._excerpt(str(answer))}",
            why=why,
            fix="check that base_url is the root of an OpenAI-compatible API, and the server's version",
        ) from None

    def broken_off(self, name: str, reason: str) -> NoReturn:
        """Raises ServerError SERVER_004: the response to the call `name` ended neither at its end nor at its limit."""
        raise (RequestRefusedError if reason == "content_filter" else ServerError)(
            "SERVER_004",
            f"{self.base_url} broke off the response to {name}",
            why=f"its `finish_reason` is {self._excerpt(reason)!r}",
            fix="remove this prompt from the prompts, or turn the server's filter off"
            if reason == "content_filter"
            else "look into the server's log and run again; if it ends so each time, remove this prompt from the prompts",
        )

    def _refuse(self, response: httpx2.Response, name: str) -> NoReturn:
        said = self._said(response)
        if _is_out_of_quota(response):
            raise ServerError(
                "SERVER_006",
                f"{self.base_url} answers no more: the account's quota is used up",
                why=said,
                fix="pay for more, or wait until the quota is renewed; then run again, committed shards are kept",
            )
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise ServerError(
                "SERVER_002",
                f"{self.base_url} refuses " + ("the API key" if self._key else "requests without an API key"),
                why=said,
                fix="set api_key_env to the name of the environment variable that holds a key of this server",
            )
        if response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            raise ServerError(
                "SERVER_003",
                f"{self.base_url} knows no {name}",
                why=said,
                fix="correct base_url (it commonly ends in /v1) or the model's name",
            )
        if response.is_redirect:
            raise ServerError(
                "SERVER_004",
                f"{self.base_url} points to another address for {name}",
                why=f"redirects are not followed, lest the key go elsewhere; {said}",
                fix=f"if you trust it, set base_url to match {self._excerpt(response.headers.get('location', ''))}",
            )
        raise (RequestRefusedError if response.status_code in REFUSES_ONE else ServerError)(
            "SERVER_004",
            f"{self.base_url} refused {name}",
            why=said,
            fix="change what the server names; a prompt too long for its context has to be left out",
        )

    def _said(self, response: httpx2.Response) -> str:
        return f"the server said {response.status_code} {response.reason_phrase}: {self._excerpt(response.text)}"

    def _excerpt(self, text: str) -> str:
        # Before the cut: of a key that the cut halves, one half would stay.
        text = self._without_key(" ".join(text.split()))
        return text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 1] + "…"

    def without_secret(self, text: str) -> str:
        """A text to be kept: if the server echoes the key, without it."""
        return self._without_key(text) if len(self._key or "") >= SECRET_CHARS else text

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "(the API key)") if self._key else text


def key_from_environment(variable: str | None) -> str | None:
    """The API key in that environment variable; None where the recipe names none.

    Raises: ServerError SERVER_002 if it is not set, or holds what no header can; the message never shows it.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ServerError(
            "SERVER_002",
            f"the environment variable {variable} " + ("holds no usable API key" if key else "is not set"),
            why="it holds characters that no HTTP header can carry" if key else "api_key_env names it",
            fix=f"export {variable}=... where the run is started, or remove api_key_env for a server without key",
        )
    return key


def wait_seconds(name: str, attempt: int, first: float) -> float:
    """Doubles with each attempt, times a factor in [0.5, 1.5) so that calls that failed together do not return together."""
    return min(LONGEST_WAIT_SECONDS, first * 2.0**attempt) * (0.5 + unit_interval("wait", name, attempt))


def _is_final(response: httpx2.Response) -> bool:
    """Whether asking again gives the same refusal."""
    return _is_out_of_quota(response) or (response.status_code not in RETRIED and not response.is_server_error)


def _is_out_of_quota(response: httpx2.Response) -> bool:
    """Unlike too many requests at a time, which have the same status."""
    return response.status_code == HTTPStatus.PAYMENT_REQUIRED or (
        response.status_code == HTTPStatus.TOO_MANY_REQUESTS and OUT_OF_QUOTA in response.text
    )


def _json_object(response: httpx2.Response) -> Json | None:
    """The body as a JSON object; None if it is cut short, nested without end, or something else."""
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


async def _all_or_first_failure(parts: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _retry_after_seconds(response: httpx2.Response) -> float | None:
    """What the header Retry-After asks for: seconds, or a date."""
    header = response.headers.get("retry-after", "").strip()
    if header.isdecimal():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
