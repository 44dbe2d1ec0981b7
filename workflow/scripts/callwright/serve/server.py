"""The running server: socket, uvicorn, and an orderly end."""

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn

from callwright.runtime.errors import CallwrightError
from callwright.serve.app import LOOPBACK, Service
from callwright.serve.limits import Limits

log = logging.getLogger(__name__)
KEY_VARIABLE = "CALLWRIGHT_API_KEY"


class Server(uvicorn.Server):
    """uvicorn's server; `ready` is called once, when it takes requests."""

    ready: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        if self.started:
            self.ready()


def make_server(service: Service, limits: Limits, grace: int) -> Server:
    """A server for the application; `grace` seconds are left to open requests when it is to end."""
    return Server(
        uvicorn.Config(
            service.application(),
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.connections,
            timeout_graceful_shutdown=grace,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises CallwrightError when it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        raise CallwrightError(
            f"cannot listen at {host} port {port}: {getattr(error, 'strerror', None) or error}; choose another --port"
        ) from error


def serve(service: Service, limits: Limits, listening: socket.socket, grace: int = 10) -> None:
    """Serve until SIGINT or SIGTERM: then take no more, finish what is open within `grace` seconds, and end."""
    server = make_server(service, limits, grace)
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def ready() -> None:
        print(f"serving {service.model.name} at {address}", flush=True)

    server.ready = ready
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def read_key(path: str | None) -> str | None:
    """The API key from a file, or else from the environment; None when there is none.

    It is not an option of the command: every user of the machine can read those of a running process.
    """
    if path is not None:
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CallwrightError(f"--api-key-file {path}: {getattr(error, 'strerror', None) or error}") from error
        if not key:
            raise CallwrightError(f"--api-key-file {path} is empty, expected a key")
        return key
    return os.environ.get(KEY_VARIABLE, "").strip() or None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    return host in LOOPBACK


def warn_if_open(host: str, key: str | None) -> None:
    """Say that anybody in the network may use the server, where that is so."""
    if not is_loopback(host) and key is None:
        print(
            f"callwright: warning: anybody who reaches {host} may use this server: "
            f"set {KEY_VARIABLE}, or give --api-key-file",
            file=sys.stderr,
        )
