"""The server of the interactive page: one process, on this machine only."""

import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from vtcav_jax.serve.access import LOOPBACK, AccessMiddleware, AccessRules
from vtcav_jax.serve.routes import make_routes
from vtcav_jax.serve.workspace import Workspace

MAX_PORT = 65535
SHUTDOWN_SECONDS = 2


def make_app(workspace: Workspace, rules: AccessRules) -> Starlette:
    """Return the application; only requests that `rules` allow reach it."""
    return Starlette(
        routes=make_routes(workspace),
        middleware=[Middleware(AccessMiddleware, rules=rules), Middleware(GZipMiddleware, minimum_size=2000)],
    )


def listen(port: int) -> socket.socket:
    """Return a socket that listens on the loopback address; port 0 takes any free port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise ValueError(f"port {port} cannot be used ({error.strerror}); choose another, or 0 for any") from error
    return listener


class AnnouncedServer(uvicorn.Server):
    """A server that calls `announce` when it answers requests and handles signals."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]):
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()


def run_server(workspace: Workspace, port: int, announce: Callable[[str], None]) -> None:
    """Serve until the process is interrupted; `announce` gets the address with the token."""
    with listen(port) as listener:
        rules = AccessRules(listener.getsockname()[1])
        config = uvicorn.Config(
            make_app(workspace, rules),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            lifespan="off",
        )
        server = AnnouncedServer(config, lambda: announce(rules.address()))
        for run in workspace.runs.values():
            workspace.session.preload(run.network(run.tasks[0]))
        try:
            server.run(sockets=[listener])
        finally:
            workspace.session.close()
