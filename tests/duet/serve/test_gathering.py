"""Who shares a batch with whom, and who waits."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from duet.budget import Budget
from duet.serve.errors import ApiError
from duet.serve.gathering import Batching, Gathering
from duet.serve.jobs import Encoded, Job
from duet.serve.schema import Sampling

A, B = Budget(10, 2), Budget(20, 2)


def job(keeps: Budget | None = A, length: int = 10, new: int = 10) -> Job:
    encoded = Encoded({"input_ids": torch.zeros(1, length, dtype=torch.long)}, 0, keeps)
    return Job(encoded, Sampling(max_tokens=new), "name", lambda event: None, float("inf"))


def queue(*jobs: Job, **batching: float) -> Gathering:
    made = Gathering(Batching(**{"window": 0.0, **batching}))  # type: ignore[arg-type]
    for each in jobs:
        made.put(each)
    return made


def test_those_that_keep_the_same_go_together() -> None:
    jobs = [job(A), job(B), job(A), job(None), job(B), job(None)]
    made = queue(*jobs)
    assert [made.take() for _ in range(3)] == [[jobs[0], jobs[2]], [jobs[1], jobs[4]], [jobs[3], jobs[5]]]
    assert len(made) == 0 and made._bytes == 0


def test_rows_and_tokens_of_a_batch() -> None:
    jobs = [job() for _ in range(5)]
    made = queue(*jobs, rows=2)
    assert [len(made.take()) for _ in range(3)] == [2, 2, 1]
    made = queue(*jobs, tokens=70)  # 20 tokens each, answers with them
    assert [len(made.take()) for _ in range(2)] == [3, 2]
    long = job(length=100)
    made = queue(long, job(), tokens=70)
    assert made.take() == [long]  # alone it may be longer


def test_the_padding_counts() -> None:
    jobs = [job(length=10), job(length=10), job(length=50), job(length=10)]
    made = queue(*jobs, tokens=100)
    assert [len(made.take()) for _ in range(3)] == [2, 1, 1]


def test_the_window() -> None:
    """The first one waits for others, as long as the batch is not full and the time is not over."""
    made = Gathering(Batching(rows=2, window=0.3))
    made.put(job())
    threading.Timer(0.1, made.put, [job()]).start()
    begin = time.monotonic()
    assert len(made.take()) == 2 and time.monotonic() - begin < 0.25
    made.put(job())
    threading.Timer(0.1, made.put, [job(B)]).start()
    begin = time.monotonic()
    assert len(made.take()) == 1 and 0.25 < time.monotonic() - begin < 1
    assert len(made.take()) == 1  # that one has waited long enough by now


def test_bytes_that_wait() -> None:
    made = queue(job(length=10), waiting=100)  # 80 bytes
    with pytest.raises(ApiError) as error:
        made.put(job(length=10))
    assert error.value.status == 503 and error.value.retry_after is not None
    made.take()
    made.put(job(length=1000))  # alone it may be larger


def test_retry_after_grows_with_the_queue() -> None:
    made = queue(rows=2)
    made.batch_seconds = 2.0
    short = made.retry_after()
    for _ in range(10):
        made.put(job())
    assert short == 2 and made.retry_after() == 12
    made.batch_seconds = 1000.0
    assert made.retry_after() == 60


def test_discard() -> None:
    first, second = job(), job()
    made = queue(first, second)
    made.discard(first)
    made.discard(job())
    assert made.take() == [second] and made._bytes == 0


def test_close() -> None:
    made = queue(job(), window=60.0)
    threading.Timer(0.1, made.close).start()
    begin = time.monotonic()
    assert len(made.take()) == 1 and time.monotonic() - begin < 5
    assert made.take() == []
    with pytest.raises(ApiError, match="shutting down"):
        made.put(job())


def test_clear() -> None:
    jobs = [job(), job()]
    made = queue(*jobs)
    assert made.clear() == jobs and len(made) == 0 and made._bytes == 0
