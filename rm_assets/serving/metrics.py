"""What the service counts, for Prometheus. No metric holds a text, a token or an address."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One service's counts, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("rm_assets_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.request_seconds = Histogram(
            "rm_assets_request_seconds", "From a request's headers to its answer.", ["path"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge("rm_assets_requests_in_flight", "Requests accepted and not answered.", registry=registry)
        self.queue_length = Gauge("rm_assets_queue_length", "Requests that wait for the model.", registry=registry)
        self.batch_requests = Histogram(
            "rm_assets_batch_requests", "Requests in a forward pass.", buckets=SIZES, registry=registry
        )
        self.batch_responses = Histogram(
            "rm_assets_batch_responses", "Responses in a forward pass.", buckets=SIZES, registry=registry
        )
        self.tokens = Counter("rm_assets_tokens", "Tokens of scored prompts and responses.", registry=registry)
        self.truncated = Counter("rm_assets_truncated_responses", "Responses cut at max_length.", registry=registry)

    def page(self) -> bytes:
        """All counts in Prometheus' text format."""
        return generate_latest(self._registry)
