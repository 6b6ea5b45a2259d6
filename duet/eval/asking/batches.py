"""Which questions are answered together.

The plan covers all questions of a task and depends only on their lengths, their pictures and the batch size. Each of
several processes takes every n-th batch, and a resumed run takes the unfinished batches, so a question is always
batched with the same others: the answers, to the last bit, do not depend on interruptions or the number of processes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from duet.errors import UserError


@dataclass(frozen=True)
class EncodedPrompt:
    """A processed prompt.

    Attributes:
        inputs: what the model takes, batch dimension 1.
        visual: visual tokens in it, separators (LLaVA-NeXT's newlines) not counted.
        shown: name of its pictures and video, equal for questions about the same ones; None without.
    """

    inputs: Mapping[str, Tensor]
    visual: int
    shown: Hashable = None


def plan(
    sizes: Sequence[tuple[int, int]], batch_size: int, shown: Sequence[Hashable | None] | None = None
) -> list[list[int]]:
    """Batches of question numbers, longest first, so that running out of memory happens at once.

    Questions about the same pictures or video are consecutive, so each is decoded and read once; the one with the
    longest question comes first.

    Args:
        sizes: `(pictures and videos, text tokens)` of every question. Questions with and without media do not mix.
        batch_size: most questions in a batch.
        shown: name of every question's pictures and video, None without.

    Raises:
        UserError: the batch size is not positive.
    """
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}; it must be at least 1")
    # a question without pictures stands alone
    names = [number if name is None else (name,) for number, name in enumerate(shown or [None] * len(sizes))]
    first: dict[Hashable, tuple[int, int]] = {}
    for number, (name, (_, tokens)) in enumerate(zip(names, sizes, strict=True)):
        longest, at = first.get(name, (0, number))
        first[name] = (min(longest, -tokens), at)
    groups: dict[int, list[int]] = {}
    for number, (pictures, _) in enumerate(sizes):
        groups.setdefault(pictures, []).append(number)
    batches = []
    for pictures in sorted(groups, reverse=True):
        ordered = sorted(groups[pictures], key=lambda number: (first[names[number]], -sizes[number][1], number))
        batches += [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    return batches


def share(batches: Sequence[list[int]], process: int, processes: int) -> Iterator[tuple[int, list[int]]]:
    """The batches of one process, by stride, each with its number in the plan."""
    yield from ((number, batches[number]) for number in range(process, len(batches), processes))
