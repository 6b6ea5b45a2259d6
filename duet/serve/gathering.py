"""The queue of the model: requests wait briefly for others that can share their batch."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass

from duet.serve.errors import closing, overloaded
from duet.serve.jobs import Job


@dataclass(frozen=True)
class Batching:
    """How batches are made.

    Attributes:
        rows: most requests in a batch.
        tokens: most tokens in a batch (rows times the longest prompt and answer); a single request may exceed it.
        window: seconds that the first request of a batch waits for others.
        waiting: most bytes of waiting prompts.
    """

    rows: int = 8
    tokens: int = 32_768
    window: float = 0.01
    waiting: int = 1 << 30


class Gathering:
    """First come, first served, together with others of the same budget.

    Generation settings need no grouping: every row of a batch has its own (`duet.serve.rows`).
    """

    def __init__(self, batching: Batching) -> None:
        self.batching = batching
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        #: Seconds per batch lately, for `Retry-After`.
        self.batch_seconds = 1.0

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Add a job at the end.

        Raises:
            ApiError: the queue is full, or the server is shutting down.
        """
        with self._changed:
            if self._closed:
                raise closing()
            size = job.encoded.nbytes
            if self._jobs and self._bytes + size > self.batching.waiting:
                raise overloaded(self.retry_after())
            self._jobs.append(job)
            self._bytes += size
            self._changed.notify_all()

    def retry_after(self) -> int:
        """Estimated seconds until the waiting requests are answered, 1 to 60."""
        return min(max(math.ceil(self.batch_seconds * (1 + len(self) / self.batching.rows)), 1), 60)

    def take(self) -> list[Job]:
        """Wait for the next batch; an empty one means that the queue is closed and empty."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: bool(self._jobs) or self._closed)
                if not self._jobs:
                    return []
                end = self._jobs[0].queued + self.batching.window
                self._changed.wait_for(lambda: self._closed or self._is_full(), max(end - time.monotonic(), 0))
                batch = self._match()
                for job in batch:
                    self._jobs.remove(job)
                    self._bytes -= job.encoded.nbytes
                if batch:
                    return batch

    def discard(self, job: Job) -> None:
        """Remove a job whose client has disconnected, if it is still waiting."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._bytes -= job.encoded.nbytes
                self._changed.notify_all()

    def close(self) -> None:
        """Accept no more jobs; waiting ones are still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def clear(self) -> list[Job]:
        """Remove all waiting jobs."""
        with self._changed:
            jobs = list(self._jobs)
            self._jobs.clear()
            self._bytes = 0
            self._changed.notify_all()
            return jobs

    def _is_full(self) -> bool:
        return not self._jobs or len(self._match()) >= self.batching.rows

    def _match(self) -> list[Job]:
        """The oldest job, and others of its kind that fit into its batch, in order."""
        batch: list[Job] = []
        longest = 0
        for job in self._jobs:
            if job.encoded.keeps != self._jobs[0].encoded.keeps:
                continue
            longest = max(longest, job.encoded.length + job.sampling.max_tokens)
            if batch and longest * (len(batch) + 1) > self.batching.tokens:
                break
            batch.append(job)
            if len(batch) == self.batching.rows:
                break
        return batch
