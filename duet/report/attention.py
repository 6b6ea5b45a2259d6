"""Attention of words in decoder layers, as maps over the patches of pictures and frames.

`duet.engine.probe` reads the rows of single tokens over the prompt; here they become one map per word (or group of
tokens) and layer, in the geometry of `Region`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from duet.engine.attachment import attached
from duet.engine.probe import probe
from duet.errors import UserError
from duet.inference import answer
from duet.text.salient import prompt_words
from duet.text.words import split_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from torch import Tensor

    from duet.engine.trace import Trace
    from duet.inference import Answer, Question
    from duet.text.alignment import Tokenizer


@dataclass(frozen=True)
class Looker:
    """Text tokens whose attention is shown together, as their mean.

    Attributes:
        label: a word, or a name for the group.
        columns: of the prompt, ascending.
    """

    label: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class AttentionMap:
    """Attention map of a looker in a layer.

    Attributes:
        layer: 1 is the first.
        looker: label of the tokens.
        units: of each unit of the prompt, `[N]` share of the attention that goes to each of its patches, 0..1; NaN
            if a patch is not a token.
    """

    layer: int
    looker: Looker
    units: list[np.ndarray]


def find_lookers(
    tokenizer: Tokenizer,
    input_ids: Tensor,
    text: Tensor,
    salient: Callable[[Tensor, Tensor], Tensor],
    words: Sequence[str] | None,
) -> list[Looker]:
    """The words to show.

    Args:
        tokenizer: of the model.
        input_ids: `[T]` of the prompt.
        text: `[T]` bool, the tokens after its last picture.
        salient: finder of salient tokens, see `duet.text.salient`.
        words: words, in any case; empty for the salient ones and the last token; None for the three groups of
            tokens that vote in methods (`duet attach(text_guidance=...)`).

    Raises:
        UserError: a word that is not in the text after the last picture.
    """
    last = (int(text.nonzero()[-1]),)
    votes = salient(input_ids, text).nonzero().flatten().tolist()
    if words is None:
        everything = tuple(text.nonzero().flatten().tolist())
        return [
            Looker("last token", last),
            Looker("salient words", tuple(sorted({*votes, *last}))),
            Looker("all text", everything),
        ]
    found = prompt_words(tokenizer, input_ids, text)
    if not words:
        chosen = [word for word in found if not set(votes).isdisjoint(word.columns)]
        return [*(Looker(word.text, word.columns) for word in chosen), Looker("last token", last)]
    held = [(word, [word.text[start:end] for start, end in split_words(word.text)]) for word in found]
    check_words(words, [part for _, parts in held for part in parts])
    wanted = {word.casefold() for word in words}
    return [Looker(word.text, word.columns) for word, parts in held if any(part.casefold() in wanted for part in parts)]


def check_words(words: Sequence[str], known: Sequence[str]) -> None:
    """Check that all words are in the question.

    Raises:
        UserError: one is not.
    """
    have = {word.casefold() for word in known}
    for word in words:
        if word.casefold() not in have:
            names = ", ".join(dict.fromkeys(known))
            raise UserError(f"--words {word}: no such word after the last picture; there are {names}")


def look(
    model: Any,
    processor: Any,
    question: Question,
    layers: Sequence[int],
    choose: Callable[[Tensor, Tensor], list[Looker]],
    max_new_tokens: int,
) -> tuple[Answer, list[list[AttentionMap]]]:
    """Answer with all visual tokens, and read on the way where words look.

    Args:
        model: with method `none` attached.
        processor, question, max_new_tokens: as for `duet.inference.answer`.
        layers: 1 is the first.
        choose: whose attention: of the prompt `[T]`, and which of its tokens come after the last picture, `[T]` bool.

    Returns:
        the answer with its trace, and maps `[layer][looker]`.

    Raises:
        UserError: no picture and no video in the prompt, or what `choose` raises.
    """
    attachment = attached(model)
    ids = torch.as_tensor(question.inputs["input_ids"])
    held = attachment.compression.vision.placeholders(attachment.body, ids)[0].nonzero()
    if not len(held):
        raise UserError("the prompt has no picture and no video: there is nothing to look at")
    text = torch.arange(ids.shape[1]) > held[-1]
    lookers, columns = choose(ids[0], text), text.nonzero().flatten()
    with probe(model, layers, columns) as rows:
        given = answer(model, processor, question, max_new_tokens=max_new_tokens, traced=True)
    assert given.trace is not None
    patches = [region.patches for region in question.regions]
    return given, attention_maps(given.trace, patches, rows, columns.tolist(), lookers)


def attention_maps(
    trace: Trace, patches: Sequence[int], rows: Mapping[int, Tensor], columns: Sequence[int], lookers: Sequence[Looker]
) -> list[list[AttentionMap]]:
    """Maps over the patches, `[layer][looker]`.

    Args:
        trace: of a prompt from which nothing was dropped.
        patches: N of each unit, in the order of the prompt.
        rows: layer -> `[C, T]` attention of tokens over the prompt.
        columns: prompt column of each of the C.
        lookers: made of these columns.
    """
    place = {column: number for number, column in enumerate(columns)}
    visual, origins = trace.columns[0].numpy(), trace.origins[0].numpy()
    found = []
    for layer, attention in sorted(rows.items()):
        table = attention.double().numpy()[:, visual]
        means = [table[[place[column] for column in looker.columns]].mean(0) for looker in lookers]
        found.append([_map(layer, *pair, origins, patches) for pair in zip(lookers, means, strict=True)])
    return found


def _map(layer: int, looker: Looker, mean: np.ndarray, origins: np.ndarray, patches: Sequence[int]) -> AttentionMap:
    units = [np.full(count, np.nan) for count in patches]
    for number, values in enumerate(units):
        mine = (origins[:, 0] == number) & (origins[:, 1] >= 0)  # CLS has no place in the picture
        values[origins[mine, 1]] = mean[mine]
    return AttentionMap(layer, looker, units)
