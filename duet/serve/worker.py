"""The one thread that owns the model: takes batches out of the queue and answers them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from duet.errors import UserError
from duet.serve.errors import ApiError, closing, failed, overloaded, refuse, timed_out

if TYPE_CHECKING:
    from duet.serve.gathering import Gathering
    from duet.serve.jobs import Job
    from duet.serve.metrics import Metrics
    from duet.serve.model import Served

log = logging.getLogger("duet.serve")


class Worker:
    """Runs until the queue is closed and empty.

    Args:
        served: the model.
        queue: where jobs come from.
        metrics: where numbers go.
        wait: longest time in the queue in seconds; older jobs get a 503.
    """

    def __init__(self, served: Served, queue: Gathering, metrics: Metrics, wait: float) -> None:
        self.served, self.queue, self.metrics, self.wait = served, queue, metrics, wait
        self._thread = threading.Thread(target=self._run, name="duet-worker", daemon=True)
        self._current: Sequence[Job] = ()

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self, grace: float) -> None:
        """End running jobs at their next token, within `grace` seconds; refuse waiting ones."""
        self.queue.close()
        for job in (*self.queue.clear(), *self._current):
            job.emit(closing())
        self._thread.join(grace)

    def _run(self) -> None:
        while batch := self.queue.take():
            jobs = [job for job in batch if self._is_wanted(job)]
            if jobs:
                self._answer(jobs)

    def _is_wanted(self, job: Job) -> bool:
        now = time.monotonic()
        self.metrics.wait.observe(now - job.queued)
        if job.cancelled or job.over:
            return False
        if now > job.deadline:
            job.emit(timed_out())
        elif now > job.queued + self.wait:
            job.emit(overloaded(self.queue.retry_after()))
        return not job.over

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Answer a batch; if it fails, each of its jobs alone, so that one does not spoil the others."""
        begin = time.monotonic()
        self._current = jobs
        self.metrics.batch.observe(len(jobs))
        self.metrics.running.set(len(jobs))
        try:
            self.served.answer(jobs)
            self.metrics.looked()
        except Exception as error:
            self._recover(jobs, error)
        finally:
            self._current = ()
            self.metrics.running.set(0)
            self.queue.batch_seconds += 0.3 * (time.monotonic() - begin - self.queue.batch_seconds)
        for job in jobs:
            if not (job.over or job.cancelled):
                log.error("an answer without an end: %s", job.describe())
                job.emit(failed())

    def _recover(self, jobs: Sequence[Job], error: Exception) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            torch.accelerator.empty_cache()
        if len(jobs) == 1:
            log.error("cannot answer %s", jobs[0].describe(), exc_info=error)
            jobs[0].emit(_explain(jobs[0], error))
            return
        log.warning("a batch of %d failed (%s); one by one", len(jobs), type(error).__name__)
        for job in jobs:
            if job.first is not None:  # it has sent text, which cannot be taken back
                job.emit(failed())
            elif not (job.over or job.cancelled):
                self._answer([job])


def _explain(job: Job, error: Exception) -> ApiError:
    if isinstance(error, UserError):
        return refuse(f"duet.budget: the budget {job.budget!r} does not fit this prompt", "duet.budget", "budget")
    return failed()
