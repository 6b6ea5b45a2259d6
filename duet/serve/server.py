"""Binds the port, says where the server is, and runs it until it is told to end."""

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

#: Connections beside those that have a place: refusals and health checks need some, too.
SPARE_CONNECTIONS = 256
#: Connections that the system holds until the server takes them; uvicorn's own number.
BACKLOG = 2048


def make_server(setup: Setup) -> uvicorn.Server:
    """A server, not yet bound to a port."""
    config = uvicorn.Config(
        create_app(setup),
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=max(int(setup.grace), 1),
        limit_concurrency=setup.limits.queue + setup.batching.rows + SPARE_CONNECTIONS,
        proxy_headers=False,
    )
    return uvicorn.Server(config)


def bind(host: str, port: int) -> socket.socket:
    """A socket that has its address, but does not listen yet: while the model is loaded, clients are refused.

    Raises:
        UserError: the port is taken, or the address is none of this machine.
    """
    sock = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        if os.name == "posix":
            # connections of a server that has just ended don't hold its port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock
    except OSError as error:
        if sock is not None:
            sock.close()
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from None


def serve(setup: Setup, sock: socket.socket, key: str | None) -> None:
    """Answer until a signal comes.

    Args:
        setup: of the server.
        sock: from `bind`.
        key: to be shown, because it was made for this run.
    """
    sock.listen(BACKLOG)
    host, port = sock.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"{setup.name} at http://{address}/v1", f"budgets: {', '.join(setup.served.settings)}"]
    if key is not None:
        lines.append(f"API key of this run (DUET_API_KEY sets your own): {key}")
    sys.stderr.write("\n".join(lines) + "\n")
    # uvicorn ends on a signal and then sends it once more; by then all is done, so the exit code is to be 0
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        make_server(setup).run(sockets=[sock])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
