"""A prompt in the decoder layers: its remaining tokens, and what happens to visual ones at layer boundaries.

Visual tokens enter at boundary 0 or, with a late entry, after some layers of text alone; they are dropped; in frozen
layers they are read but not updated; and they may be away in some layers, which run on the text as those before a late
entry do.

A drop is ranked inside the forward of the layer whose queries and keys it reads (`enter_layer`), so sharded or
offloaded weights are in memory. A drop that the next layer ranks also happens there, before that layer computes
anything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from duet.engine.cache import Segment
from duet.engine.checks import check_freezing, check_window
from duet.engine.compat import create_causal_mask, is_partitioned
from duet.engine.drops import drops_of
from duet.engine.frozen import Frozen, Split
from duet.engine.host import upload
from duet.engine.proportional import added, after_edit, weighted
from duet.engine.ranking import Vote, choose, vote
from duet.engine.tokens import Move, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from duet.engine.cache import PromptRecord
    from duet.engine.call import Call
    from duet.engine.plan import Drop
    from duet.interfaces import DecoderSide, TextModel


class Tables(NamedTuple):
    """Rotary tables, attention mask and `[B, T]` bool, False at padding, of a sequence."""

    rope: tuple[Tensor, Tensor]
    mask: Any
    valid: Tensor

    def to(self, device: torch.device) -> Tables:
        """The same on a device."""
        cos, sin = self.rope
        mask = self.mask.to(device) if torch.is_tensor(self.mask) else self.mask
        return Tables((cos.to(device), sin.to(device)), mask, self.valid.to(device))


class Entry:
    """The change to the sequence inside the layer that it enters: first a drop, then the tokens that freeze.

    Decided at the first call; when gradient checkpointing runs the layer again, the same is applied.

    Args:
        decide: input `[B, T, D]` of the layer -> the drop, its tables and the input after it; None for no drop.
        freeze: after the drop, the frozen tokens; None for none.

    Attributes:
        move: the drop.
        frozen: the frozen tokens.
    """

    def __init__(
        self,
        decide: Callable[[Tensor], tuple[Move, dict[str, Any], Tensor] | None],
        freeze: Callable[[], Frozen | None],
    ) -> None:
        self._decide, self._freeze = decide, freeze
        self._decided = False
        self._tables: dict[str, Any] = {}
        self.move: Move | None = None
        self.frozen: Frozen | None = None

    def __call__(self, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Arguments of the layer after both."""
        if not self._decided:
            self._decided = True
            found = self._decide(args[0])
            if found is not None:
                self.move, self._tables, hidden = found
                args = (hidden, *args[1:])
            self.frozen = self._freeze()
        elif self.move is not None:
            args = (self.move.apply(args[0]), *args[1:])
        kwargs = {**kwargs, **self._tables}
        return (args, kwargs) if self.frozen is None else self.frozen.enter(args, kwargs)


def enter_layer(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
    """Forward pre-hook of every decoder layer of an attached model."""
    entry = kwargs.pop("duet_entry", None)
    return None if entry is None else entry(args, kwargs)


class PromptRun:
    """The state of one prompt between layers.

    Args:
        lm: text model.
        call: layout, labels and compression of this call.
        record: gets one segment per boundary at which tokens enter, are dropped, leave or come back.
        tokens: those that enter the first layer, or a later one if the layers before it have run already; with a late
            entry, the whole prompt's.

    Attributes:
        tokens: the tokens of the next layer, frozen ones included.
    """

    def __init__(self, lm: TextModel, call: Call, record: PromptRecord, tokens: Tokens) -> None:
        self.lm, self.call, self.record = lm, call, record
        # modules of sharded layers run on all ranks together, also where one rank's pictures are too small for a drop
        self._always = call.plan is None and is_partitioned(lm.layers[0])
        self._drops = drops_of(call, self._always)
        self._votes: dict[int, Vote] = {}
        self._entry: Entry | None = None
        self._before: Tensor | None = None
        self._waiting: tuple[Tokens, Split, Tables | None] | None = None
        self._alone: Tables | None = None
        self._absences = dict(call.compression.absences)
        self._frozen: Frozen | None = None
        self._sizes = None if call.layout is None else call.layout.sizes
        self._left = list(call.entered) if call.plan is None else None
        pruner = call.compression.pruner
        self._by_previous = pruner is not None and pruner.layer == "previous"
        self.tokens = tokens
        check_window(lm.config, self.tokens.hidden.shape[1])
        self._moved = call.compression.reducer is not None and call.compression.renumber
        self._ends = self.tokens.valid.sum(-1)
        if call.trace is not None:
            call.trace.absences = call.compression.absences
        if 0 in self._absences:
            self._set_aside(None)
        self._note(0)
        if 0 in self._absences:
            self._alone = self._tables

    @property
    def frozen_tokens(self) -> int:
        """Tokens that the last layer read but did not update, padding included."""
        found = None if self._entry is None else self._entry.frozen
        return 0 if found is None else found.still.shape[1]

    def arrive(self, number: int, layer: nn.Module) -> None:
        """Move to a layer's device; let visual tokens enter, leave or come back; apply a drop that is ranked."""
        self.tokens = self.tokens.before(layer)
        if self._waiting is not None and number in self._absences.values():
            self._join(layer, number)
        if number in self._absences and self._waiting is None:
            self._set_aside(self._tables)
            self._note(number, self._alone)
            self._alone = self._tables
        if number in self._drops and self._by_previous:
            self._apply(self._move(number, self._votes.pop(number, None)), number)

    def entry(self, number: int) -> dict[str, Entry]:
        """The entry of a layer, as an argument for it."""
        freezes = number in self.call.compression.frozen
        self._before, self._entry = self.tokens.hidden if freezes else None, None
        if freezes or number + self._by_previous in self._drops:
            self._entry = Entry(
                lambda hidden: self._decide(number, hidden), lambda: self._freeze(number) if freezes else None
            )
            return {"duet_entry": self._entry}
        return {}

    def leave(self, states: Tensor) -> None:
        """Take a layer's output; frozen tokens keep the state that they had before it."""
        entry = self._entry
        if entry is not None and entry.move is not None:
            # here, outside a checkpoint that runs the entry again with the layer's input alone
            self.tokens = replace(self.tokens, deep=tuple(entry.move.apply(one) for one in self.tokens.deep))
        if entry is not None and entry.frozen is not None:
            # not the states of the entry itself, which a checkpoint may run without gradients
            assert self._before is not None
            whole = self._before if entry.move is None else entry.move.apply(self._before)
            self._before = None
            states = entry.frozen.split.join(whole, states)
        self.tokens = self.tokens.through(states)

    def _set_aside(self, tables: Tables | None) -> None:
        """Keep the pictures' tokens until they are next, and go on with the text, whose position ids do not change.

        `tables` are those of all tokens, if they were made.
        """
        assert self.call.layout is not None
        whole = self.tokens
        split = Split.of(whole, ~whole.at(self.call.layout.placeholder), self.call.text_lengths)
        self._waiting = whole, split, tables
        self.tokens = replace(whole, deep=()).after(split.move, renumber=False)

    def _join(self, layer: nn.Module, number: int) -> None:
        """The pictures' tokens enter or come back, with what the tower adds to them after the layers between."""
        assert self._waiting is not None
        (whole, split, tables), self._waiting = self._waiting, None
        missed = number - next(start for start, end in self._absences.items() if end == number)
        whole = whole.before(layer)
        waiting = sum(whole.deep[:missed], whole.hidden)
        self.tokens = replace(whole, hidden=split.join(waiting, self.tokens.hidden), deep=whole.deep[missed:])
        self._note(number, tables)

    def _freeze(self, number: int) -> Frozen | None:
        """The pictures' tokens, in the layer `number` that reads but does not update them."""
        layer = self.lm.layers[number]
        check_freezing(self.lm.config, layer)
        if self._frozen is None:
            assert self.call.layout is not None
            still = self.tokens.at(self.call.layout.placeholder)
            texts, lengths = self.call.text_lengths, self.tokens.lengths
            if texts == lengths if texts is not None and lengths is not None else not bool(still.any()):
                return None
            side = self.call.compression.decoder
            found = Frozen.of(side, layer, self.lm.config, self.tokens, still, self.rope, texts)
            bias = added(self._sizes, self.tokens)
            mask = weighted(found.mask, bias, self.tokens.hidden, found.mask.shape[-1])
            self._frozen = replace(found, mask=mask)
        self._frozen = replace(self._frozen, layer=layer).to(self.tokens.hidden.device)
        return self._frozen

    def _decide(self, number: int, hidden: Tensor) -> tuple[Move, dict[str, Any], Tensor] | None:
        """Layer `number` ranks for the drop after it, or for its own: then the dropped tokens never enter it."""
        boundary = number + self._by_previous
        if boundary not in self._drops:
            return None
        if not self._by_previous:
            self.tokens = replace(self.tokens, hidden=hidden)
        drop = self._drops[boundary]
        pruner = self.call.compression.pruner
        watched = self._always or self.call.trace is not None
        wanted = pruner is not None and (watched or drop.survivors > 0)
        found = self._vote(number, drop) if wanted else None
        if self._by_previous:
            if found is not None:
                self._votes[boundary] = found
            return None
        move = self._move(number, found)
        self._apply(move, number, deep=False)
        return move, {"attention_mask": self.mask, "position_embeddings": self.rope}, self.tokens.hidden

    def _candidates(self, drop: Drop) -> Tensor:
        assert self.call.layout is not None
        visual = self.tokens.at(self.call.layout.visual)
        return visual & (visual.cumsum(1) <= upload(drop.counts, visual.device)[:, :1])

    def _vote(self, number: int, drop: Drop) -> Vote:
        device = self.tokens.columns.device
        rope = (self.rope[0].to(device), self.rope[1].to(device))
        stage = list(self._drops).index(number + 1 if self._by_previous else number)
        spared = None if self.call.plan is None else drop.spared
        if self._left is not None:
            spared = max(max(left - most, 0) for left, (most, _) in zip(self._left, drop.rows, strict=True))
        candidates = self._candidates(drop)
        return vote(self.lm, self.call, self.tokens, rope, number, stage, candidates, spared, self.mask, self._sizes)

    def _move(self, number: int, found: Vote | None) -> Move:
        """The drop at a boundary; without votes all candidates are dropped."""
        call, tokens, drop = self.call, self.tokens, self._drops[number]
        candidates = self._candidates(drop)
        lengths = self._lengths(number)
        if found is None and call.trace is None:
            return tokens.keep(~candidates, lengths)
        device, nobody = candidates.device, torch.zeros_like(candidates)
        if found is None:
            found = Vote(nobody.float(), nobody)
        found = Vote(found.scores.to(device), found.voters.to(device))
        stage = list(self._drops).index(number)
        edit = choose(self.lm, call, tokens, number, stage, candidates, drop, found, self._sizes)
        if call.trace is not None:
            assert call.layout is not None
            visual = tokens.at(call.layout.visual)
            keep = edit.marked & candidates | visual & ~candidates
            call.trace.add_stage(
                number, keep, candidates, found.scores, found.voters, tokens.columns, call.layout.visual
            )
        own = getattr(call.compression.pruner, "edit", None) is not None  # it may keep fewer than the budget has
        return tokens.edit(edit, candidates, None if own and call.plan is None else lengths)

    def _lengths(self, number: int) -> list[int] | None:
        """Tokens of each row after a drop, by plan; None if the host does not know those before."""
        drop, before = self._drops[number], self.tokens.lengths
        if self.call.plan is not None:
            return [drop.width] * len(drop.rows)
        if before is None or self._left is None:
            return None
        after = drop.survive(self._left)
        return [length - old + new for length, old, new in zip(before, self._left, after, strict=True)]

    def _apply(self, move: Move, number: int, deep: bool = True) -> None:
        before = self.tokens.lengths
        if self._sizes is not None and move.outputs is not None:
            self._sizes = after_edit(self._sizes, move.outputs, self.tokens)
        self.tokens = self.tokens.after(move, self.call.compression.renumber, deep)
        after = self.tokens.lengths
        if self._left is not None and before is not None and after is not None:
            # only visual tokens leave
            self._left = [one - old + new for one, old, new in zip(self._left, before, after, strict=True)]
        else:
            self._left = None
        self._moved = self._moved or self.call.compression.renumber
        self._alone = None if self._moved else self._alone
        self._ends = self.tokens.valid.sum(-1)
        self._note(number)

    def _note(self, boundary: int, tables: Tables | None = None) -> None:
        """Record what the layers from `boundary` on cache, and make their rotary tables and mask.

        `tables` are those that were made for the same tokens before.
        """
        call = self.call
        assert call.layout is not None
        self._tables = self._made() if tables is None else tables.to(self.tokens.hidden.device)
        self.tokens = tokens = replace(self.tokens, valid=self._tables.valid)
        self._frozen = None
        lengths = tokens.valid.sum(-1)
        visual = tokens.at(call.layout.visual).sum(-1)
        ends = self._ends.to(lengths.device)
        bias = added(self._sizes, tokens)
        segment = Segment(boundary, tokens.hidden.shape[1], tokens.mask, lengths, ends, visual, self._moved, bias)
        if self.record.segments and self.record.segments[-1].start == boundary:
            self.record.segments.pop()  # tokens came back, and some of them are dropped at once
        self.record.segments.append(segment)
        if call.trace is not None:
            call.trace.lengths[boundary] = lengths.tolist()

    @property
    def rope(self) -> tuple[Tensor, Tensor]:
        """Rotary tables of the tokens."""
        return self._tables.rope

    @property
    def mask(self) -> Any:
        """Their attention mask."""
        return self._tables.mask

    def _made(self) -> Tables:
        tokens = self.tokens
        rope = rope_tables(self.call.compression.decoder, self.lm, tokens.hidden, tokens.positions)
        # no position ids for the mask: gaps in them would look like packed sequences; and padding on the right, as in a
        # compiled prompt, needs none, so the fastest kernels can run
        padding = None if tokens.bounds else tokens.mask
        mask = create_causal_mask(
            config=self.lm.config, inputs_embeds=tokens.hidden, attention_mask=padding, past_key_values=None
        )
        mask = weighted(mask, added(self._sizes, tokens), tokens.hidden, tokens.hidden.shape[1])
        return Tables(rope, mask, tokens.valid)


def enter_prompt(lm: TextModel, call: Call, hidden: Tensor, positions: Tensor | None) -> Tokens:
    """The tokens of a prompt that enter the first layer: boundary 0.

    Args:
        lm: text model.
        call: layout and compression of this call; gets `embeddings` if its pruner needs them.
        hidden: `[B, T, D]` embeddings of the padded prompt.
        positions: `[B, T]` position ids, `[A, B, T]` for several axes, or None for 0, 1, 2, ...
    """
    assert call.layout is not None
    pruner = call.compression.pruner
    if pruner is not None and "embeddings" in pruner.needs:
        call.embeddings = hidden.detach()
    valid = call.layout.valid
    columns = torch.arange(hidden.shape[1], device=valid.device).expand(hidden.shape[0], -1)
    positions = columns if positions is None else positions.expand(*positions.shape[:-2], *columns.shape)
    if call.plan is not None:
        padded, left = True, False
    else:
        known = valid if call.host is None else call.host.valid
        assert known is not None
        padded = not bool(known.all())
        left = padded and not bool(known[:, 0].all())
    tokens = Tokens(hidden, columns, valid, positions, padded, left, call.deep, bounds=call.plan is not None)
    tokens = tokens.before(lm.layers[0])
    reduced = call.compression.reducer is not None
    if not reduced and call.plan is None:
        return replace(tokens, lengths=call.lengths)
    holds = ~call.layout.placeholder | call.layout.filled
    return tokens.after(tokens.keep(tokens.at(holds), call.lengths), reduced and call.compression.renumber)


def layers_of(lm: TextModel) -> Sequence[nn.Module]:
    """The decoder layers that run."""
    return lm.layers[: lm.config.num_hidden_layers]


def rope_tables(decoder: DecoderSide, lm: TextModel, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary tables on the device of the hidden states, wherever `device_map` has put their module."""
    cos, sin = decoder.rope(lm, hidden, positions)
    return cos.to(hidden.device), sin.to(hidden.device)
