"""The server: it listens, and when it is told to end, it finishes what it began."""

from __future__ import annotations

import ipaddress
import logging
import socket
import sys

import uvicorn
from fastapi import FastAPI

from ..errors import OFAError

#: Seconds that requests under way have when the server is told to end.
GRACE = 60


def is_local(host: str) -> bool:
    """Tell whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def run(app: FastAPI, host: str, port: int) -> None:
    """Serve an application until a signal ends it; what was begun before is finished.

    Args:
        app: the application.
        host: the address to listen on.
        port: the port to listen on.

    Raises:
        OFAError: nothing can listen there.
    """
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a broken form is told to its sender
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE, server_header=False)
    server = uvicorn.Server(config)
    with listening(host, port) as listener:
        print(f"listening on {_address(host, listener.getsockname()[1])}", file=sys.stderr, flush=True)
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:  # the signal that ended it, once more when all was finished
            if not server.started:
                raise


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OFAError: nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OFAError(
            f"nothing can listen on {host} at port {port}: {reason}; pass another --host or --port"
        ) from None


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
