"""Likelihood of given answers: log-probabilities of their tokens after a prompt.

This is all that multiple choice, perplexity, rewards and calibration need. As in generation, an answer never votes on
pictures (`prompt_lengths`), so the numbers equal those of `generate`, token by token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from duet.engine.attachment import attached
from duet.engine.generation import PROMPT_LENGTHS, pixels_of_rows
from duet.errors import UserError
from duet.families import find_family, imported

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of one answer.

    Attributes:
        total: sum of the log-probabilities of its tokens, natural logarithm.
        tokens: `[N]` float32 on the CPU, log-probability of each.
        greedy: whether greedy decoding would generate exactly these tokens.
    """

    total: float
    tokens: Tensor
    greedy: bool


@torch.no_grad()
def loglikelihood(
    model: Any,
    inputs: Mapping[str, Any],
    answers: Sequence[Sequence[str] | Sequence[Sequence[int]] | Sequence[Tensor]],
    *,
    tokenizer: Any = None,
    batch_size: int | None = None,
) -> list[list[Likelihood]]:
    """Score answers to prompts, with or without compression.

    Args:
        model: stock or attached, of a supported class or a wrapper around one. It is used as it is: call `model.eval()`
            first if it has dropout.
        inputs: processor output of one prompt or a batch, padded on either side, on the model's device.
        answers: for each prompt, its answers: token ids, or texts, which are tokenized unchanged and without special
            tokens (a leading space counts). Append the end token to score the end of the answer, too.
        tokenizer: for texts.
        batch_size: answers per forward; default is the number of prompts. Pictures are encoded once per answer.

    Returns:
        For each prompt, one `Likelihood` per answer.

    Raises:
        UserError: the number of lists differs from the number of prompts, an empty answer, texts without a tokenizer,
            or an unsupported model.
    """
    if not isinstance(inputs, Mapping) or "input_ids" not in inputs:
        raise UserError("inputs: give a processor's output, with input_ids")
    if not isinstance(answers, (list, tuple)) or not all(isinstance(some, (list, tuple)) for some in answers):
        raise UserError("answers: give a list of answers for each prompt")
    ids = inputs["input_ids"]
    if len(answers) != len(ids):
        raise UserError(f"{len(ids)} prompts, but answers for {len(answers)}; give a list of answers for each")
    asked = [(row, _tokens(answer, tokenizer)) for row, some in enumerate(answers) for answer in some]
    found: list[list[Likelihood]] = [[] for _ in answers]
    for row, answer, logits in answer_logits(model, inputs, asked, batch_size or len(ids)):
        found[row].append(_score(logits, answer))
    return found


@torch.no_grad()
def answer_logits(
    model: Any, inputs: Mapping[str, Any], asked: Sequence[tuple[int, Tensor]], batch_size: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The logits that predict given answers.

    Args:
        model, inputs: see `loglikelihood`.
        asked: prompts and answers, `(row of inputs, token ids [N])`.
        batch_size: answers per forward. Pictures are encoded once per answer.

    Yields:
        row, answer, and the logits `[N, V]` that predict it, in the order asked.
    """
    target, family = find_family(model)
    vision = imported(family.vision)()
    knows_lengths = _is_attached(target)
    for start in range(0, len(asked), batch_size):
        part = asked[start : start + batch_size]
        rows = [row for row, _ in part]
        batch, lengths = _batch(inputs, part)
        batch |= pixels_of_rows(vision, vision.body(target), dict(inputs), rows)
        if knows_lengths:
            batch[PROMPT_LENGTHS] = lengths
        longest = max(len(answer) for _, answer in part)
        logits = model(**batch, use_cache=False, logits_to_keep=longest + 1).logits
        for (row, answer), own in zip(part, logits, strict=True):
            yield row, answer, own[-len(answer) - 1 : -1]


def _is_attached(model: Any) -> bool:
    try:
        attached(model)
    except ValueError:
        return False
    return True


def _tokens(answer: Any, tokenizer: Any) -> Tensor:
    if isinstance(answer, str):
        if tokenizer is None:
            raise UserError("answers are texts: pass tokenizer=processor.tokenizer, or token ids")
        answer = tokenizer(answer, add_special_tokens=False)["input_ids"]
    tokens = torch.as_tensor(answer, dtype=torch.long).cpu()
    if tokens.ndim != 1 or not len(tokens):
        raise UserError(f"an answer is {tuple(tokens.shape)} token ids; give a list of at least one for each answer")
    return tokens


def _batch(inputs: Mapping[str, Any], part: Sequence[tuple[int, Tensor]]) -> tuple[dict[str, Any], Tensor]:
    """Prompts with their answers, padded on the left so that all answers end together; and the prompts' lengths.

    Arguments `[B, T]` follow their tokens (0 at answers and padding); pictures are not included.
    """
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    real = torch.ones_like(ids).bool() if mask is None else mask.bool()
    along = [name for name, value in inputs.items() if torch.is_tensor(value) and value.shape == ids.shape]
    answers = [answer.to(ids.device) for _, answer in part]
    lengths = torch.stack([real[row].sum() for row, _ in part])
    ends = [int(length) + len(answer) for length, answer in zip(lengths, answers, strict=True)]

    def pad(values: Tensor, answer: Tensor) -> Tensor:
        return torch.cat([values.new_zeros(max(ends) - len(values) - len(answer)), values, answer.to(values.dtype)])

    batch: dict[str, Any] = {}
    for name in {*along, "input_ids", "attention_mask"}:
        source = real.long() if name == "attention_mask" else inputs[name]
        fills = {"input_ids": lambda answer: answer, "attention_mask": torch.ones_like}
        fill = fills.get(name, torch.zeros_like)
        rows = [pad(source[row][real[row]], fill(answer)) for (row, _), answer in zip(part, answers, strict=True)]
        batch[name] = torch.stack(rows)
    return batch, lengths


def _score(logits: Tensor, answer: Tensor) -> Likelihood:
    """The likelihood of `answer [N]`, which `logits [N, V]` predict."""
    steps = logits.float().log_softmax(-1)
    answer = answer.to(steps.device)
    tokens = steps.gather(1, answer[:, None])[:, 0].cpu()
    return Likelihood(float(tokens.double().sum()), tokens, bool(torch.equal(steps.argmax(-1), answer)))
