"""`rm-assets serve`: rewards over HTTP."""

import sys
from typing import Annotated

import typer

from rm_assets.cli.models import Device, DtypeName, MaxLength, Model, Revision, load


def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen at. Another than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = 8000,
    token_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the token that requests must bring.")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Listen beyond loopback without a token.")] = False,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Largest body of a request.")] = 2**20,
    timeout_seconds: Annotated[float, typer.Option(min=0.001, help="Longest time a request may take.")] = 30.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Requests that may wait for the model.")] = 256,
    batch_wait_ms: Annotated[
        float, typer.Option(min=0, max=1_000, help="How long an idle model waits for a second request.")
    ] = 0.0,
    max_batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one forward pass; 2,048 on a CPU, else 16,384, when not given.")
    ] = None,
    no_batching: Annotated[
        bool, typer.Option("--no-batching", help="Compute each request alone.")
    ] = False,
    revision: Revision = None,
    device: Device = "auto",
    dtype: DtypeName = "float32",
    max_length: MaxLength = None,
) -> None:  # fmt: skip
    """Answer requests for rewards over HTTP: /v1/score, /v1/compare, /v1/best-of; /docs describes them."""
    from rm_assets.serving.gate import Limits
    from rm_assets.serving.server import bound, run, token_from
    from rm_assets.serving.service import create_app

    token = token_from(token_env, host, without_token=no_token)
    with bound(host, port) as listener:
        loaded = load(
            model, revision=revision, device=device, dtype=dtype, max_length=max_length, token_budget=max_batch_tokens
        )
        app = create_app(
            loaded, limits=Limits(max_body_bytes, timeout_seconds), token=token, batching=not no_batching,
            wait_seconds=batch_wait_ms / 1e3, max_queue=max_queue,
        )  # fmt: skip
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        print(f"{loaded.location} at {address}, described at {address}/docs", file=sys.stderr, flush=True)
        run(app, listener, timeout_seconds=timeout_seconds)
