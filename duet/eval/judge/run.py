"""Gets a verdict for every question: from the cache, else from the endpoint, several calls at a time.

    [Case] -> [Outcome], in the same order

Rows that would send the same request share one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from duet.eval.judge.cache import ReplyCache
from duet.eval.judge.cases import Case
from duet.eval.judge.client import CallError, ChatClient, EndpointError, Reply
from duet.eval.judge.protocol import Verdict, read_reply
from duet.eval.progress import Progress

#: After this many failed calls in a row, each with all its attempts, the endpoint counts as gone.
GIVE_UP_AFTER = 25


@dataclass(frozen=True)
class Outcome:
    """The outcome of a question.

    Attributes:
        status: `judged`, `missing` (no prediction), `unreadable` (replies, but no verdict) or `failed` (no reply).
        replies: all replies of the judge, the readable one last.
        cached: no call for this row: the reply came from an earlier run or an equal row.
        reason: of a failure.
    """

    case: Case
    status: str
    verdict: Verdict | None = None
    replies: tuple[Reply, ...] = ()
    cached: bool = False
    reason: str = ""


def open_cases(rows: Sequence[Case], cache: ReplyCache, reasks: int) -> dict[str, Case]:
    """The requests still to be sent: no verdict in the cache, and fewer unreadable replies than allowed."""
    return {case.key: case for case in rows if case.request and not _settled(cache.replies(case.key), reasks)}


def judge(rows: Sequence[Case], client: ChatClient, cache: ReplyCache, reasks: int) -> tuple[list[Outcome], str]:
    """Ask for what the cache does not have.

    Args:
        reasks: further questions after an unreadable reply; over all runs that share the cache.

    Returns:
        One outcome per row, and why the run was given up, or empty.
    """
    pending = open_cases(rows, cache, reasks)
    failures, stopped = _ask_all(pending, client, cache, reasks)
    paid = set(pending)  # the first row of every request that was sent; later equal rows are cached
    outcomes = []
    for case in rows:
        outcomes.append(_outcome(case, cache, failures, cached=case.key not in paid))
        paid.discard(case.key)
    return outcomes, stopped


def _ask_all(
    pending: dict[str, Case], client: ChatClient, cache: ReplyCache, reasks: int
) -> tuple[dict[str, str], str]:
    """Send requests from several threads; returns reasons of failures by key, and why it was given up."""
    failures: dict[str, str] = {}
    if not pending:
        return failures, ""
    progress = Progress(len(pending))
    progress.name("judge")
    pool = ThreadPoolExecutor(client.concurrency)
    try:
        futures = {pool.submit(_ask, case, client, cache, reasks): case.key for case in pending.values()}
        stopped = _collect(futures, failures, progress)
    finally:
        # on an interrupt too: waits end, calls in flight are awaited (they are paid for), the rest is dropped
        client.stop()
        pool.shutdown(cancel_futures=True)
        progress.close()
    return failures, stopped


def _collect(futures: dict[Future[None], str], failures: dict[str, str], progress: Progress) -> str:
    in_a_row = 0
    for future in as_completed(futures):
        try:
            future.result()
            in_a_row = 0
        except CallError as error:
            failures[futures[future]] = str(error)
            in_a_row += 1
            if in_a_row == GIVE_UP_AFTER:
                return f"{GIVE_UP_AFTER} calls in a row failed, the last with: {error}"
        except EndpointError as error:
            return str(error)
        progress.advance(1, failed=int(in_a_row > 0))
    return ""


def _ask(case: Case, client: ChatClient, cache: ReplyCache, reasks: int) -> None:
    """Ask until the reply is readable, or the attempts are used up."""
    assert case.request is not None
    about = {
        "model": case.request["model"],
        "question": case.sample.question,
        "answer": case.sample.answer,
        "prediction": case.text,
    }
    while not _settled(cache.replies(case.key), reasks):
        cache.add(case.key, about, client.complete(case.request))


def _settled(replies: Sequence[Reply], reasks: int) -> bool:
    return len(replies) > reasks or any(read_reply(reply.text) is not None for reply in replies)


def _outcome(case: Case, cache: ReplyCache, failures: dict[str, str], cached: bool) -> Outcome:
    if case.request is None:
        return Outcome(case, "missing")
    replies = tuple(cache.replies(case.key))
    for count, reply in enumerate(replies, start=1):
        verdict = read_reply(reply.text)
        if verdict is not None:
            return Outcome(case, "judged", verdict, replies[:count], cached)
    if replies and case.key not in failures:
        return Outcome(case, "unreadable", None, replies, cached)
    return Outcome(case, "failed", None, replies, cached, failures.get(case.key, "not asked"))
