"""Which words voted, and their attention: one more prefill, with all visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from duet.report.attention import AttentionMap, Looker, look
from duet.text.salient import marked_words, prompt_words, salient_finder, without_system

if TYPE_CHECKING:
    from torch import Tensor

    from duet.demo.model import Demo
    from duet.inference import Answer, Question

#: Words with their own map; if more voted, the salient ones.
MOST_WORDS = 12


def votes(answer: Answer) -> dict[int, set[int]]:
    """Boundary -> prompt columns of the tokens that voted there."""
    assert answer.trace is not None
    return {stage.boundary: set(stage.voters[0].tolist()) for stage in answer.trace.stages if len(stage.voters[0])}


def voted(demo: Demo, answer: Answer) -> list[tuple[str, bool]]:
    """The words of the question, and whether each voted at any drop."""
    mask = torch.zeros(len(answer.input_ids), dtype=torch.bool)
    for columns in votes(answer).values():
        mask[list(columns)] = True
    return without_system(marked_words(demo.tokenizer, answer.input_ids, mask))


def word_maps(demo: Demo, question: Question, answers: Sequence[Answer]) -> list[AttentionMap]:
    """Attention of each voting word in the first ranking layer, with all tokens.

    Args:
        demo: the model; nobody else holds its weights.
        question: the encoded one.
        answers: of methods, with their traces.
    """
    found = [pair for answer in answers for pair in votes(answer).items()]
    if not found:
        return []
    columns = set().union(*(voters for _, voters in found))

    def choose(ids: Tensor, text: Tensor) -> list[Looker]:
        words = [word for word in prompt_words(demo.tokenizer, ids, text) if columns.intersection(word.columns)]
        if len(words) > MOST_WORDS:
            salient = set(salient_finder(demo.tokenizer)(ids, text).nonzero().flatten().tolist())
            words = [word for word in words if salient.intersection(word.columns)][:MOST_WORDS]
        last = (int(text.nonzero()[-1]),)
        lookers = [Looker(word.text, word.columns) for word in words]
        return [*lookers, Looker("last token", last)] if last[0] in columns else lookers

    # after p layers tokens are ranked by the attention of layer p + 1
    layer = 1 + min(boundary for boundary, _ in found)
    with demo.attached("none"):
        return look(demo.model, demo.processor, question, [layer], choose, 1)[1][0]
