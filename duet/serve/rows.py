"""Rows of a batch, each with its own settings, random numbers, end, stream and client.

`generate` runs the batch greedily; a row's sampled token is presented to it as the only possible one. So
requests of different settings share a batch, and a seed gives the same answer alone and in a batch.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from duet.serve.errors import timed_out
from duet.serve.jobs import Done, Job, Piece, Usage
from duet.serve.text import Writer

if TYPE_CHECKING:
    from torch import Tensor

#: Below this temperature the likeliest token has probability 1 in float32.
COLDEST = 1e-4


class Row:
    """One answer as it grows.

    Args:
        job: the request.
        tokenizer: of the model.
        ends: tokens that end an answer.
        usage: `tokens of the answer -> Usage`; called once the prompt has run.
    """

    def __init__(self, job: Job, tokenizer: Any, ends: frozenset[int], usage: Callable[[int], Usage]) -> None:
        self.job, self.ends, self.usage = job, ends, usage
        self.writer = Writer(tokenizer, job.sampling.stop)
        self.random = random.Random(job.sampling.seed)
        self.tokens = 0

    @property
    def over(self) -> bool:
        """Whether this row is finished; sends the last event if its time is up."""
        if not self.job.over and time.monotonic() > self.job.deadline:
            self.job.emit(timed_out())
        return self.job.over or self.job.cancelled

    def take(self, token: int) -> None:
        """The next token of the answer."""
        if self.over:
            return
        if self.tokens == 0:
            self.job.first = time.monotonic()
        self.tokens += 1
        ended = token in self.ends
        if not ended:
            self._say(self.writer.put(token))
        if ended or self.writer.stopped:
            self._finish("stop")
        elif self.tokens == self.job.sampling.max_tokens:
            self._finish("length")

    def _finish(self, reason: str) -> None:
        self._say(self.writer.end())
        # a stop string may be complete only now
        self.job.emit(Done("stop" if self.writer.stopped else reason, self.usage(self.tokens)))

    def _say(self, text: str) -> None:
        if text:
            self.job.emit(Piece(text))


class Choosing(LogitsProcessor):
    """Samples the rows that ask for it, each with its own generator; leaves greedy rows unchanged."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores [B, V]` -> the same, with one finite entry in rows that sample."""
        wanted = [number for number, row in enumerate(self.rows) if row.job.sampling.temperature > 0 and not row.over]
        if not wanted:
            return scores
        index = torch.tensor(wanted, device=scores.device)
        settings = [self.rows[number].job.sampling for number in wanted]
        drawn = [self.rows[number].random.random() for number in wanted]
        chosen = sample(scores[index], [s.temperature for s in settings], [s.top_p for s in settings], drawn)
        scores = scores.clone()
        scores[index] = -torch.inf
        scores[index, chosen] = 0
        return scores


def sample(scores: Tensor, temperature: Sequence[float], top_p: Sequence[float], drawn: Sequence[float]) -> Tensor:
    """Draw a token for every row from its nucleus.

    Args:
        scores: logits `[R, V]`.
        temperature, top_p: of each row, above 0.
        drawn: a number in [0, 1) for each row.

    Returns:
        `[R]` long: the first token, likeliest first, at which the summed probability exceeds `drawn` x that of the
            smallest set of likeliest tokens that has `top_p`.
    """
    heat, share, point = (torch.tensor(v, device=scores.device)[:, None] for v in (temperature, top_p, drawn))
    heat = heat.clamp(min=COLDEST)
    probabilities, order = (scores.float() / heat).softmax(-1).sort(dim=-1, descending=True, stable=True)
    reached = probabilities.cumsum(-1)
    size = (reached - probabilities < share).sum(-1, keepdim=True)
    mass = reached.gather(1, size - 1)
    place = (reached <= point * mass).sum(-1, keepdim=True).clamp(max=size - 1)
    return order.gather(1, place)[:, 0]


class Handing(StoppingCriteria):
    """Hands every new token to its row, and ends the rows of finished answers and of disconnected clients."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """`input_ids [B, T]`, the newest token last -> `[B]` bool, whether the row is over."""
        for row, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
            row.take(token)
        return torch.tensor([row.over for row in self.rows], device=input_ids.device)
