"""The start of the service from the command line."""

from __future__ import annotations

import argparse
import sys

from .. import api
from ..utils.printable import printable
from .app import create_app
from .server import is_local, run
from .settings import KEY_VARIABLE, ServiceSettings, key_from_environment


def serve(model: str, args: argparse.Namespace) -> int:
    """Load a model and answer until a signal ends it.

    Args:
        model: a path or a name.
        args: what the command line said.

    Returns:
        The exit code.

    Raises:
        OFAError: a setting is out of range, the model cannot be loaded, or nothing can listen at the address.
    """
    settings = ServiceSettings(
        batch_size=args.batch_size,
        batch_wait=args.batch_wait / 1000,
        queue_size=args.queue,
        max_bytes=args.max_megabytes * 1024**2,
        max_pixels=args.max_megapixels * 10**6,
        timeout=args.timeout,
        key=key_from_environment(),
    )
    if settings.key is None and not is_local(args.host):
        print(
            printable(f"ofa-core: warning: anybody who reaches {args.host} may ask; set ${KEY_VARIABLE}"),
            file=sys.stderr,
        )
    ofa = api.load(model, adapter=args.adapter, device=args.device, dtype=args.dtype, warm_up=True)
    run(create_app(ofa, model, settings), args.host, args.port)
    return 0
