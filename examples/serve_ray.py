"""The service under Ray Serve: several replicas of one model, on one machine or many, behind one address.

    pip install '.[web,ray]'
    OFA_MODEL=demo OFA_REPLICAS=2 python examples/serve_ray.py

Each replica batches what it is given; conversations live in the callers' histories, so that any replica can answer.
``OFA_DEVICE=cuda`` gives each replica a GPU.
"""

from __future__ import annotations

import os
from typing import Any

from ray import serve

import ofa_core
from ofa_core.service.app import create_app
from ofa_core.service.settings import ServiceSettings, key_from_environment

MODEL = os.environ.get("OFA_MODEL", "demo")
DEVICE = os.environ.get("OFA_DEVICE", "cpu")
SETTINGS = ServiceSettings(key=key_from_environment())


def application() -> Any:
    """The service's application, made in the replica that serves it."""
    return create_app(ofa_core.load(MODEL, device=DEVICE), MODEL, SETTINGS)


@serve.deployment(
    num_replicas=int(os.environ.get("OFA_REPLICAS", "1")),
    max_ongoing_requests=SETTINGS.queue_size,
    ray_actor_options={"num_gpus": int(DEVICE.startswith("cuda"))},
)
@serve.ingress(application)
class Replica:
    """A model in a process of its own."""


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ.get("OFA_PORT", "8000"))})
    serve.run(Replica.bind(), blocking=True)
