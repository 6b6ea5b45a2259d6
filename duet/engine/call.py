"""The state of one call of an attached model, from its input to its loss. None of it stays on the model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from duet.budget import Budget
from duet.budget.fields import check_returns
from duet.ops.regions import once

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from duet.budget import Stage1
    from duet.checkpoints.companion import ClipCompanion
    from duet.engine.plan import Plan
    from duet.engine.prefix import Resumed
    from duet.engine.trace import Trace
    from duet.interfaces import DecoderPruner, DecoderSide, VisionReducer, VisionSide
    from duet.ops.regions import Compiled
    from duet.types import Layout

IGNORED = -100
#: Not an id of any vocabulary.
NO_TOKEN = -1


def _not_needed(input_ids: Tensor, text: Tensor) -> Any:
    raise AssertionError("the registry sets the readers that a method needs")


@dataclass(frozen=True)
class Compression:
    """The parts attached to a model, built by `duet.registry`.

    Attributes:
        method: its name, for messages and records.
        vision, decoder: the two sides of the backbone.
        reducer: stage 1, or None.
        pruner: stage 2, or None.
        budget: the counts of both stages.
        layers: the budget's drops as layer numbers of this model.
        absences: runs of layers of text alone, before visual tokens enter and while they are away; each `(first, after
            the last)`.
        frozen: layers in which visual tokens are read but not updated.
        proportional: merged tokens count in attention as often as they have patches.
        renumber: survivors get new positions (released LLaVA) or keep theirs (released Qwen2.5-VL).
        causal_ranking: whether a voter sees only earlier tokens when visual tokens are ranked.
        salient: finder of content words, `(input_ids [T], text [T]) -> [T] bool`; None unless the pruner needs it.
        read_words: token ids of the question's words, `(input_ids [T], text [T]) -> [M]`; None unless needed.
        read_question: its text, `(input_ids [T], text [T]) -> str`; None unless needed.
        companion: CLIP's joint space; None unless the reducer needs it.
    """

    method: str
    vision: VisionSide
    decoder: DecoderSide
    reducer: VisionReducer | None
    pruner: DecoderPruner | None
    budget: Budget
    layers: tuple[int, ...]
    renumber: bool
    causal_ranking: bool = True
    salient: Callable[[Tensor, Tensor], Tensor] | None = None
    read_words: Callable[[Tensor, Tensor], Tensor] = _not_needed
    read_question: Callable[[Tensor, Tensor], str] = _not_needed
    companion: ClipCompanion | None = None
    absences: tuple[tuple[int, int], ...] = ()
    frozen: tuple[int, ...] = ()
    proportional: bool = False

    def __post_init__(self) -> None:
        if self.pruner is not None and self.pruner.layer == "previous":
            check_returns(self.absences, self.layers, self.method)

    def under(self, budget: Budget, depth: int) -> Compression:
        """The same parts under another budget, on a decoder of `depth` layers."""
        layers, absences, frozen = budget.layers_for(depth), budget.absences(depth), budget.frozen_for(depth)
        return replace(self, budget=budget, layers=layers, absences=absences, frozen=frozen)

    def with_all_tokens(self) -> Compression:
        """The same sides without a method: every visual token in every layer."""
        return replace(
            self,
            method="none",
            reducer=None,
            pruner=None,
            budget=Budget(),
            layers=(),
            absences=(),
            frozen=(),
            proportional=False,
        )

    @property
    def active(self) -> bool:
        """Whether anything differs from the stock model."""
        return self.reducer is not None or bool(self.layers or self.absences or self.frozen)

    @property
    def stage1(self) -> Stage1 | None:
        """The budget's counts, limited to the tokens of a picture if the backbone's pictures vary in size."""
        counts = self.budget.stage1
        return None if counts is None else replace(counts, capped=self.vision.capped)


@dataclass
class Call:
    """One prompt in an attached model.

    Attributes:
        compression: the attached parts.
        labels: `[B, T]` or None.
        prompt_lengths: `[B]` long, real tokens of each row's prompt; later ones were generated. None: the whole row is
            prompt, or labels mark the answers.
        only_targets: the head gets only the tokens that predict a label; set in training.
        placeholder: `[B, T]` bool, columns that the processor reserved for pictures.
        valid: `[B, T]` bool, False at padding.
        layout: columns of the visual tokens; None for a prompt without pictures.
        entered: visual tokens of each row that enter the language model.
        input_ids: `[B, T]`.
        trace: filled while recording.
        embeddings: `[B, T, D]` input of the language model, if a pruner needs it.
        deep: `[B, T, D]` each, added after the first layers in turn; 0 at text (DeepStack).
        memory: a pruner's state between boundaries.
        targets: set by the decoder with labels: prompt row and column of each predicting token, and its label, each
            `[M]`.
        resumed: prefixes that were read before, see `duet.engine.resume`; None: the whole prompt runs.
        separators, kinds: as of `Placement`.
        compiled: how the prompt is compiled; None: it is not.
        plan: bounds of its lengths, while it runs compiled.
        host: the same prompt (ids, labels, lengths, placeholders, padding) on the host.
    """

    compression: Compression
    labels: Tensor | None = None
    prompt_lengths: Tensor | None = None
    only_targets: bool = False
    placeholder: Tensor | None = None
    valid: Tensor | None = None
    layout: Layout | None = None
    entered: list[int] = field(default_factory=list)
    input_ids: Tensor | None = None
    trace: Trace | None = None
    embeddings: Tensor | None = None
    deep: tuple[Tensor, ...] = ()
    memory: dict[str, Tensor] = field(default_factory=dict)
    targets: tuple[Tensor, Tensor, Tensor] | None = None
    resumed: Resumed | None = None
    host: Call | None = None
    separators: list[int] | None = None
    kinds: list[tuple[Tensor, int]] = field(default_factory=list)
    compiled: Compiled | None = None
    plan: Plan | None = None

    @property
    def lengths(self) -> list[int] | None:
        """Tokens of each row that enter the language model, if the host knows them."""
        if self.plan is not None:
            return [self.plan.entry] * len(self.plan.words)
        text = self.text_lengths
        if text is None or self.separators is None:
            return None
        return [sum(parts) for parts in zip(text, self.entered, self.separators, strict=True)]

    @property
    def text_lengths(self) -> list[int] | None:
        """Tokens of each row outside its pictures, if the host knows them."""
        if self.plan is not None:
            return [self.plan.text] * len(self.plan.words)
        if self.host is None:
            return None
        assert self.host.valid is not None and self.host.placeholder is not None
        return (self.host.valid & ~self.host.placeholder).sum(1).tolist()

    def filled_of(self, token: int) -> int | None:
        """How many columns of this placeholder hold a token, if the host knows."""
        if self.host is None or not self.kinds:
            return None
        ids, placeholder = self.host.input_ids, self.host.placeholder
        assert ids is not None and placeholder is not None
        own = placeholder & (ids == token)
        if not bool(own.any()):
            return 0
        return next((count for marks, count in self.kinds if torch.equal(marks, own)), None)

    def at_host(self) -> Call:
        """The prompt as the host knows it; without a copy itself, so reading it waits for the device."""
        return self if self.host is None else self.host

    @once
    def answers(self) -> Tensor | None:
        """`[B, T]` bool: tokens of the answers, which never vote. None if there are none."""
        if self.prompt_lengths is not None:
            assert self.valid is not None
            return after_prompt(self.prompt_lengths, self.valid)
        return None if self.labels is None else self.labels != IGNORED

    @once
    def text(self) -> Tensor:
        """`[B, T]` bool: text after the last picture of its row; without the answers (with labels: of all turns)."""
        assert self.placeholder is not None and self.valid is not None
        columns = torch.arange(self.valid.shape[1], device=self.valid.device)
        last_visual = torch.where(self.placeholder, columns, -1).amax(1, keepdim=True)
        text = self.valid & (columns > last_visual) & (last_visual >= 0)
        return text if self.answers is None else text & ~self.answers

    @once
    def last(self) -> Tensor:
        """`[B, T]` bool: the last prompt token; with answers, the token before each. At least one per row."""
        assert self.valid is not None
        valid = self.valid
        columns = torch.arange(valid.shape[1], device=valid.device)
        end = columns == torch.where(valid, columns, -1).amax(1, keepdim=True)
        if self.answers is None:
            return end
        if self.prompt_lengths is not None:
            asked = valid & ~self.answers
            return columns == torch.where(asked, columns, -1).amax(1, keepdim=True)
        starts = self.text & torch.nn.functional.pad(self.answers[:, 1:], (0, 1))
        return torch.where(starts.any(1, keepdim=True), starts, end)

    @once
    def salient_text(self) -> Tensor | None:
        """`[B, T]` bool: salient text tokens, and the last one unless labels mark the answers; None if not needed."""
        finder = self.compression.salient
        if finder is None:
            return None
        if self.plan is not None:
            return self.plan.salient
        if self.host is not None:
            assert self.host.salient_text is not None
            return self.host.salient_text.to(self.text.device, non_blocking=True)
        assert self.input_ids is not None
        ids, text = self.input_ids.cpu(), self.text.cpu()
        found = torch.stack([finder(row, mask) for row, mask in zip(ids, text, strict=True)]).to(self.text.device)
        found = found & self.text
        return found if self.labels is not None and self.prompt_lengths is None else found | self.last


def after_prompt(prompt_lengths: Tensor, valid: Tensor) -> Tensor:
    """`[B, T]` bool: real tokens after the first `prompt_lengths [B]` ones of each row, padding on any side."""
    return valid & (valid.long().cumsum(1) > prompt_lengths.to(valid.device)[:, None])
