"""The HTTP service: rewards, comparisons and the best of several, with an OpenAPI page at /docs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from rm_assets import __version__
from rm_assets.core.errors import RmAssetsError, ServiceError
from rm_assets.core.protocols import Score
from rm_assets.serving.batching import Batcher
from rm_assets.serving.bodies import (
    BestAnswer,
    CompareAnswer,
    CompareBody,
    FaultAnswer,
    PromptBody,
    ResponsesBody,
    Rewards,
)
from rm_assets.serving.faults import fault_body, headers_of, status_of
from rm_assets.serving.gate import Gate, Limits
from rm_assets.serving.judgements import best_of, compare
from rm_assets.serving.metrics import Metrics
from rm_assets.serving.reward_model import RewardModel, conversations

FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": FaultAnswer, "description": text}
    for status, text in {
        400: "The body is not JSON.", 401: "The token is missing or wrong.", 413: "The body is too large.",
        422: "The body is not what is described here, or the model cannot read the prompt.",
        503: "Too many requests wait, or the service shuts down.", 504: "The time limit is over.",
    }.items()
}  # fmt: skip


def create_app(
    model: RewardModel,
    *,
    limits: Limits,
    token: str | None = None,
    batching: bool = True,
    wait_seconds: float = 0.0,
    max_queue: int = 256,
) -> FastAPI:
    """The service around a loaded model. Its batcher is closed, and drained, when the application shuts down."""
    metrics = Metrics()
    batcher = Batcher(
        model.scorer, batching=batching, wait_seconds=wait_seconds, max_queue=max_queue, metrics=metrics
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(title="rm_assets", version=__version__, lifespan=lifespan)
    app.add_middleware(Gate, limits=limits, token=token, metrics=metrics)
    app.add_exception_handler(RmAssetsError, _on_fault)
    app.add_exception_handler(RequestValidationError, _on_malformed)
    app.add_exception_handler(HTTPException, _on_no_such_path)
    _add_rewards(app, batcher)
    _add_state(app, model, batcher, metrics)
    return app


def _add_rewards(app: FastAPI, batcher: Batcher) -> None:
    async def scored(body: PromptBody, responses: list[str]) -> list[Score]:
        return await asyncio.wrap_future(batcher.submit(conversations(body.as_prompt(), responses)))

    # The gate looks at the token; here it is said for the OpenAPI page.
    bearer = HTTPBearer(auto_error=False, description="Only where the service was started with a token.")
    signed = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]

    @app.post("/v1/score", responses=FAULTS)
    async def score(body: ResponsesBody, _: signed) -> Rewards:
        """The reward of each response to a prompt."""
        return Rewards(**_columns(await scored(body, body.responses)))

    @app.post("/v1/compare", responses=FAULTS)
    async def compare_two(body: CompareBody, _: signed) -> CompareAnswer:
        """The probability that one response is better than the other."""
        columns = _columns(await scored(body, [body.a, body.b]))
        found = compare(*columns["rewards"])
        return CompareAnswer(
            probability=found.probability, margin=found.margin, rewards=columns["rewards"],
            truncated=columns["truncated"],
        )  # fmt: skip

    @app.post("/v1/best-of", responses=FAULTS)
    async def best(body: ResponsesBody, _: signed) -> BestAnswer:
        """The response with the highest reward."""
        columns = _columns(await scored(body, body.responses))
        found = best_of(body.responses, columns["rewards"])
        return BestAnswer(index=found.index, response=found.response, **columns)


def _columns(scores: list[Score]) -> dict[str, Any]:
    return {
        "rewards": [score.reward for score in scores],
        "num_tokens": [score.num_tokens for score in scores],
        "truncated": [score.truncated for score in scores],
    }


def _add_state(app: FastAPI, model: RewardModel, batcher: Batcher, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive", "version": __version__}

    @app.get("/ready", responses={503: FAULTS[503]})
    async def ready() -> dict[str, str | int]:
        """The model is loaded and another request would be taken."""
        if not batcher.has_room:
            raise ServiceError("SERVICE_005", "no request is taken now", fix="ask again later")
        return {"status": "ready", "max_length": model.max_length}

    @app.get("/metrics", response_class=Response)
    async def counted() -> Response:
        """Counts for Prometheus."""
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _fault(error: RmAssetsError, status: int) -> Response:
    return Response(fault_body(error), status, headers_of(status))


async def _on_fault(_: Request, error: Exception) -> Response:
    assert isinstance(error, RmAssetsError)
    return _fault(error, status_of(error))


async def _on_malformed(_: Request, error: Exception) -> Response:
    """Names the first field at fault, and repeats no text that was sent."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    is_json = first["type"] != "json_invalid"
    where = ".".join(str(part) for part in first["loc"]) if is_json else "body"
    return _fault(
        ServiceError("SERVICE_002", f"{where}: {first['msg']}", fix="/docs describes every body"),
        422 if is_json else 400,
    )


async def _on_no_such_path(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _fault(ServiceError("SERVICE_002", str(error.detail), fix="/docs lists every path"), error.status_code)
