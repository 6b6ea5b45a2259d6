"""Which questions are answered together.

The plan covers all questions of a task and depends only on their lengths and the batch size. Each of several processes
takes every n-th batch, and a resumed run takes the unfinished batches, so a question is always batched with the same
others: the answers, to the last bit, do not depend on interruptions or the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from duet.errors import UserError


@dataclass(frozen=True)
class EncodedPrompt:
    """A processed prompt.

    Attributes:
        inputs: what the model takes, batch dimension 1.
        visual: visual tokens in it, separators (LLaVA-NeXT's newlines) not counted.
    """

    inputs: Mapping[str, Tensor]
    visual: int


def plan(
    sizes: Sequence[tuple[int, int]], batch_size: int, videos: Sequence[str | None] | None = None
) -> list[list[int]]:
    """Batches of question numbers, longest first, so that running out of memory happens at once.

    Questions about one video are consecutive, so it is decoded once.

    Args:
        sizes: `(pictures and videos, text tokens)` of every question. Questions with and without media do not mix.
        batch_size: most questions in a batch.
        videos: the video of every question, if it has one.

    Raises:
        UserError: the batch size is not positive.
    """
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}; it must be at least 1")
    videos = videos or [None] * len(sizes)
    first: dict[str | None, int] = {
        video: number for number, video in reversed(list(enumerate(videos))) if video is not None
    }
    groups: dict[int, list[int]] = {}
    for number, (pictures, _) in enumerate(sizes):
        groups.setdefault(pictures, []).append(number)
    batches = []
    for pictures in sorted(groups, reverse=True):
        ordered = sorted(groups[pictures], key=lambda number: (first.get(videos[number], 0), -sizes[number][1], number))
        batches += [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    return batches


def share(batches: Sequence[list[int]], process: int, processes: int) -> Iterator[tuple[int, list[int]]]:
    """The batches of one process, by stride, each with its number in the plan."""
    yield from ((number, batches[number]) for number in range(process, len(batches), processes))
