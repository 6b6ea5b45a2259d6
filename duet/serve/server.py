"""Binds the port, prints the address, and runs the server until it is stopped."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from duet.errors import UserError
from duet.serve.app import create_app

if TYPE_CHECKING:
    from duet.serve.app import Setup

#: Extra connections, for refusals and health checks.
SPARE_CONNECTIONS = 256
#: Backlog of connections; uvicorn's default.
BACKLOG = 2048


def make_server(setup: Setup) -> uvicorn.Server:
    """A server, not yet bound to a port."""
    config = uvicorn.Config(
        create_app(setup),
        # httptools, which uvicorn prefers where it is installed, takes headers of any length from anyone
        http="h11",
        ws="none",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=max(int(setup.grace), 1),
        limit_concurrency=setup.limits.queue + setup.batching.rows + SPARE_CONNECTIONS,
        proxy_headers=False,
    )
    return uvicorn.Server(config)


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound but does not listen yet: while the model loads, clients are refused.

    Raises:
        UserError: the port is taken, or the address is not of this machine.
    """
    sock = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        if os.name == "posix":
            # connections of a server that has just stopped do not hold its port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock
    except OSError as error:
        if sock is not None:
            sock.close()
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from None


def serve(setup: Setup, sock: socket.socket, key: str | None) -> None:
    """Serve until a signal comes.

    Args:
        setup: of the server.
        sock: from `bind`.
        key: made for this run, to be printed.
    """
    sock.listen(BACKLOG)
    host, port = sock.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"{setup.name} at http://{address}/v1", f"budgets: {', '.join(setup.served.settings)}"]
    if key is not None:
        lines.append(f"API key of this run (DUET_API_KEY sets your own): {key}")
    sys.stderr.write("\n".join(lines) + "\n")
    # uvicorn stops on a signal and then raises it again; everything is done by then, so the exit code is 0
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        make_server(setup).run(sockets=[sock])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
