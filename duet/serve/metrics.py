"""Numbers for Prometheus: `/metrics`. All names begin with `duet_`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from duet.engine.seen import Gallery
    from duet.serve.jobs import Done, Job

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKENS = (1, 4, 16, 32, 64, 128, 192, 256, 384, 576, 1024, 2048, 4096, 8192)


class Metrics:
    """Counters of one server.

    Args:
        waiting: number of requests in the queue.
        gallery: pictures that are kept, if any are.
    """

    def __init__(self, waiting: Callable[[], int], gallery: Gallery | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("duet_requests", "Requests by status of their answer", ["status"], registry=registry)
        self.cancelled = Counter("duet_cancelled", "Requests whose client disconnected", registry=registry)
        Gauge("duet_queue_length", "Requests in the queue", registry=registry).set_function(waiting)
        self.running = Gauge("duet_running", "Requests in the running batch", registry=registry)
        self.batch = Histogram(
            "duet_batch_size", "Requests of a batch", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.wait = Histogram(
            "duet_queue_seconds", "From prepared to the start of the batch", buckets=_SECONDS, registry=registry
        )
        self.first = Histogram(
            "duet_time_to_first_token_seconds", "From arrival to the first token", buckets=_SECONDS, registry=registry
        )
        self.whole = Histogram(
            "duet_request_seconds", "From arrival to the last token", buckets=_SECONDS, registry=registry
        )
        self.speed = Histogram(
            "duet_tokens_per_second",
            "Of an answer, after its first token",
            buckets=(1, 2.5, 5, 10, 25, 50, 100, 250, 500),
            registry=registry,
        )
        self.prompt = Counter("duet_prompt_tokens", "Tokens of prompts, including visual ones", registry=registry)
        self.completion = Counter("duet_completion_tokens", "Tokens of answers", registry=registry)
        self.visual = Counter("duet_visual_tokens", "Visual tokens of prompts", registry=registry)
        self.kept = Histogram(
            "duet_kept_visual_tokens",
            "Visual tokens per decoder layer, mean over the layers, of an answer",
            ["budget"],
            buckets=_TOKENS,
            registry=registry,
        )

        self._pictures = Counter(
            "duet_pictures", "Prompts whose pictures had to be read, or were there", ["found"], registry=registry
        )
        self._picture_bytes = Gauge("duet_picture_bytes", "Memory of pictures that are kept", registry=registry)
        self._gallery, self._counted = gallery, {"read": 0, "kept": 0}

    def looked(self) -> None:
        """Record what the last batch did to the pictures that are kept."""
        if self._gallery is None:
            return
        for found, count in (("read", self._gallery.misses), ("kept", self._gallery.hits)):
            self._pictures.labels(found).inc(count - self._counted[found])
            self._counted[found] = count
        self._picture_bytes.set(self._gallery.nbytes)

    def finished(self, job: Job, done: Done) -> None:
        """Record a finished answer."""
        now, usage = time.monotonic(), done.usage
        first = now if job.first is None else job.first
        self.first.observe(first - job.arrival)
        self.whole.observe(now - job.arrival)
        if usage.completion > 1 and now > first:
            self.speed.observe((usage.completion - 1) / (now - first))
        self.prompt.inc(usage.prompt)
        self.completion.inc(usage.completion)
        self.visual.inc(usage.visual)
        self.kept.labels(job.budget).observe(usage.average)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
