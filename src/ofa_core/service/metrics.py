"""Numbers about the service that Prometheus collects."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

#: Borders of seconds, from a small model on a GPU to a huge one on a CPU.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ofa_requests", "Requests that were answered or refused", ("task", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "ofa_request_seconds",
            "From a request's arrival to its answer",
            ("task",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.batch_sizes = Histogram(
            "ofa_batch_size", "Requests computed at once", ("task",), registry=self.registry, buckets=_BATCHES
        )
        self.batch_seconds = Histogram(
            "ofa_batch_seconds", "Computing of a batch", ("task",), registry=self.registry, buckets=_SECONDS
        )
        self.under_way = Gauge("ofa_requests_under_way", "Requests that are not answered yet", registry=self.registry)
        self.waiting = Gauge("ofa_requests_waiting", "Requests that wait for the model", registry=self.registry)

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self.registry)
