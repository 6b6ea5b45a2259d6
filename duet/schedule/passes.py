"""Teacher-forced passes of one sample: the full model's answer is given, and every shape predicts it token by token.

Passes share what they have in common: a withdrawal from layer l goes on from the full pass's tokens at l, and runs the
text alone. `Meter` counts what all of it costs in prefills of the full model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from duet.budget import Budget
from duet.budget.cost import layer_flops
from duet.engine.attachment import attached, exchange_compression
from duet.engine.cache import PromptRecord
from duet.engine.decoder import run_layers
from duet.engine.generation import PROMPT_LENGTHS
from duet.engine.prompt import PromptRun, enter_prompt, layers_of
from duet.inference import GREEDY

if TYPE_CHECKING:
    from torch import nn

    from duet.budget import Decoder
    from duet.engine.call import Call, Compression
    from duet.engine.tokens import Tokens


@dataclass
class Meter:
    """Operations of the decoder layers, in prefills of the full model.

    Attributes:
        decoder: sizes.
        spent: operations so far; full: of one pass over all tokens of each sample, summed.
    """

    decoder: Decoder
    spent: int = 0
    full: int = 0

    def add(self, tokens: int, frozen: int, whole: bool = False) -> None:
        """One layer over this many tokens, some of them frozen; `whole`: of the full pass."""
        run = tokens - frozen
        operations = layer_flops(self.decoder, run, run * tokens)
        operations += 4 * frozen * self.decoder.width * self.decoder.kv_heads * self.decoder.head_dim
        self.spent += operations
        self.full += operations * whole

    @property
    def prefills(self) -> float:
        """Mean cost of a sample, in full prefills."""
        return self.spent / self.full if self.full else 0.0


@dataclass
class Forced:
    """A prompt with its answer, at the entrance of the language model.

    Attributes:
        lm, head: the text model, and what makes logits of its output.
        call: of the pass that embedded it.
        hidden, positions: input of the language model, `[1, T, D]` and `[1, T]` or `[A, 1, T]` or None.
        columns: `[N]` long, the prompt columns that predict the answer's tokens.
        meter: counts every layer.
    """

    lm: Any
    head: nn.Module
    call: Call
    hidden: Tensor
    positions: Tensor | None
    columns: Tensor
    meter: Meter

    def start(self) -> Tokens:
        """The tokens that enter the first layer."""
        return enter_prompt(self.lm, self.call, self.hidden, self.positions)

    def text_of(self, tokens: Tokens) -> Tokens:
        """The tokens without visual ones, numbered as after a drop of all of them (newlines of LLaVA-NeXT stay)."""
        assert self.call.layout is not None
        text = ~tokens.at(self.call.layout.visual)
        return tokens.after(tokens.keep(text), self.call.compression.renumber)

    def run(
        self, tokens: Tokens, first: int = 0, budget: Budget | None = None, whole: bool = False
    ) -> tuple[list[Tokens], Tensor]:
        """Run layers `first` to the last one.

        Args:
            tokens: that enter layer `first`.
            budget: drops, entry and frozen layers; None for none of them.
            whole: this is the full model's pass.

        Returns:
            the tokens that entered each of these layers, and `[N, V]` log-probabilities of the answer's places.
        """
        depth = len(layers_of(self.lm))
        compression = self.call.compression.under(budget or Budget(), depth)
        call = replace(self.call, compression=compression, memory={})
        run = PromptRun(self.lm, call, PromptRecord(self.hidden.shape[1], compression.decoder), tokens)
        seen = []
        for number in range(first, depth):
            seen.append(run.tokens)
            run_layers(run, [number], None)
            frozen = run.frozen_tokens if number in compression.frozen else 0
            self.meter.add(run.tokens.hidden.shape[1], frozen, whole)
        return seen, self._predict(run.tokens)

    def _predict(self, tokens: Tokens) -> Tensor:
        tokens = tokens.before(self.lm.norm)
        place = (tokens.columns[0][None] == self.columns.to(tokens.columns.device)[:, None]).int().argmax(1)
        return self.head(self.lm.norm(tokens.hidden[0, place])).float().log_softmax(-1)


class _Embedded(Exception):
    """Ends a forward at the text model's entrance; carries its arguments."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.arguments = arguments


def force(model: Any, compression: Compression, inputs: Mapping[str, Any], answer: Tensor, meter: Meter) -> Forced:
    """Embed a prompt and an answer to it, which votes on nothing.

    Args:
        model: with compression attached.
        compression: its first stage is applied; drops, entry and frozen layers come with `Forced.run`.
        inputs: processor output of one prompt on the model's device, without padding.
        answer: `[N]` token ids.
        meter: counts.
    """
    exchange_compression(model, compression)
    attachment = attached(model)
    ids = inputs["input_ids"]
    given: dict[str, Any] = {}
    for name, value in inputs.items():
        along = torch.is_tensor(value) and value.shape == ids.shape
        fill = answer.to(ids) if name == "input_ids" else torch.full_like(answer, name == "attention_mask").to(ids)
        given[name] = torch.cat([value, fill[None].to(value.dtype)], 1) if along else value

    def stop(lm: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        raise _Embedded(kwargs)

    handle = attachment.lm.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**given, **{PROMPT_LENGTHS: [ids.shape[1]]}, use_cache=False)
        raise AssertionError("a prompt without pictures")
    except _Embedded as reached:
        found = reached.arguments
    finally:
        handle.remove()
    columns = torch.arange(ids.shape[1] - 1, ids.shape[1] + len(answer) - 1)
    head = attachment.model.get_output_embeddings()
    call, hidden, positions = (found.get(name) for name in ("duet_call", "inputs_embeds", "position_ids"))
    assert call is not None and hidden is not None
    return Forced(attachment.lm, head, call, hidden, positions, columns, meter)


def full_answer(model: Any, compression: Compression, inputs: Mapping[str, Any], longest: int) -> Tensor:
    """`[N]` token ids of the greedy answer under a compression, end token included, at most `longest`."""
    exchange_compression(model, compression)
    sequence = model.generate(**inputs, max_new_tokens=longest, **GREEDY)
    return sequence[0, inputs["input_ids"].shape[1] :]


def divergence(full: Tensor, other: Tensor) -> float:
    """KL(full || other) of log-probabilities `[N, V]`, mean over the answer's N places, in nats."""
    return float((full.exp() * (full - other)).sum(-1).clamp_min(0).mean())


def boundaries(depth: int) -> Sequence[int]:
    """The layers at which curves are measured: all of a shallow model, about 16 of a deep one."""
    step = max(1, round(depth / 16))
    return range(step, depth, step)
