"""What the server counts about itself, for Prometheus. Nothing is sent: /metrics is read by who asks."""

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Monitor:
    """The counters of one server. A route is counted by its pattern, so that no client can make up new rows."""

    def __init__(self) -> None:
        registry = CollectorRegistry()  # of its own: two servers in one process do not mix
        ProcessCollector(registry=registry)
        self._registry = registry
        self.requests = Counter(
            "diptych_requests", "Requests answered, by route and status.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "diptych_request_seconds",
            "From the end of a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_hand = Gauge("diptych_requests_in_hand", "Requests being read or answered.", registry=registry)
        self.batch_size = Histogram(
            "diptych_batch_size", "Items of one forward pass.", ["kind"], buckets=_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "diptych_batch_seconds", "Of one forward pass.", ["kind"], buckets=_SECONDS, registry=registry
        )
        self.waiting = Gauge("diptych_waiting", "Places taken in the queue.", ["kind"], registry=registry)
        self.bad_pictures = Counter("diptych_bad_pictures", "Pictures refused, by cause.", ["cause"], registry=registry)
        self.health = Gauge("diptych_healthy", "Whether the model last answered well, 1 or 0.", registry=registry)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return prometheus_client.generate_latest(self._registry)
