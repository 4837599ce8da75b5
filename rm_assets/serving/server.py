"""Runs the service: where it listens, who may ask, and how it ends."""

import ipaddress
import math
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from rm_assets.core.errors import ServiceError
from rm_assets.serving.gate import DISCARD_SECONDS


def token_from(variable: str | None, host: str, *, without_token: bool) -> str | None:
    """The token that requests have to bring, from an environment variable; None where none is asked for.

    Raises: ServiceError SERVICE_001 if the variable is empty, or others can reach the host and nothing was decided.
    """
    if variable is not None:
        token = os.environ.get(variable, "").strip()
        if not token or not token.isascii():
            raise ServiceError(
                "SERVICE_001",
                f"the environment variable {variable} holds no token",
                fix=f"export {variable}=... with printable ASCII, or leave --token-env out",
            )
        return token
    if not without_token and not _is_loopback(host):
        raise ServiceError(
            "SERVICE_001",
            f"others can reach {host}, and there is no token",
            fix="give --token-env NAME, or --no-token if something in front of the service asks for one",
        )
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bound(host: str, port: int) -> socket.socket:
    """A socket with that address, on which nobody listens yet; port 0 takes a free one. Raises: ServiceError SERVICE_001."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except OSError as error:
        raise ServiceError(
            "SERVICE_001", f"cannot listen at {host} port {port}", why=str(error), fix="take another --port or --host"
        ) from None
    return taken


def run(app: FastAPI, listener: socket.socket, *, timeout_seconds: float) -> None:
    """Serves until SIGTERM or SIGINT; then takes nothing more and returns once all that was accepted is answered.

    That takes a few seconds more than `timeout_seconds`, the time limit of each request, at the longest.
    """
    # Uvicorn raises the signal again when it is done, which would make the exit status that of a killed process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    config = uvicorn.Config(
        app, http="h11", loop="asyncio", lifespan="on", log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=math.ceil(timeout_seconds + DISCARD_SECONDS) + 1,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
