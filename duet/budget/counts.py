"""Budget: checked counts, ratios and layers. The method chooses which tokens survive.

Stage 1 (paper Sec. 3.1): every picture keeps `dominant` tokens, including CLS if the tower has one, and `contextual`
merged ones. Stage 2 (Sec. 3.2): after `layers[i]` layers of the language model, `int(V * ratios[i])` of the V visual
tokens that entered it are left, as in the released code; the paper's text uses the current count. Beyond the paper,
visual tokens may enter after some layers (`entry`), counts may be absolute (`keep`), in `frozen` layers they are read
but not updated, and from `away` layers they come back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from duet.budget.backbones import Backbone, find_backbone
from duet.budget.cost import Flops, count_flops, count_kv_bytes, frozen_share
from duet.budget.fields import (
    called,
    check_away,
    check_entry,
    check_frozen,
    check_keep,
    check_layers,
    check_ratios,
    listed,
    spans_of,
)
from duet.budget.stage1 import Stage1
from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duet.budget.schedules import Schedule

#: Bases of the stage-2 ratios, the default first; see `Budget.drops`.
RATIO_BASES = ("entered", "compounding")
#: What an average may count, the default first; see `Budget.average`.
MEASURES = ("entering", "updated", "flops")


@dataclass(frozen=True)
class Budget:
    """How many visual tokens are left at each layer. `Budget()` keeps all of them.

    Attributes:
        dominant, contextual, cluster_width: stage 1, see `Stage1`; `dominant=None` for no stage 1.
        layers: stage 2 acts after this many layers: counts (int) or shares of the depth (float in (0, 1)), ascending.
        ratios: share of the visual tokens that entered the language model left after each of `layers`.
        ratio_base: `entered`, or `compounding` as in the released Qwen2.5-VL code, see `drops`.
        keep: instead of `ratios`, visual tokens per picture (crop, frame) left after each of `layers`, all pictures of
            a prompt taken together.
        entry: visual tokens enter after this many layers: a count or a share of the depth; the layers before see text
            only, and the text keeps the position ids that it has beside the picture.
        frozen: layers in which visual tokens are frozen: their keys and values are computed from the state that they
            have and text reads them, but they have no query, no attention output and no feed-forward. A count or a
            share of the depth: from that layer on; a tuple: these layers, counted from 0.
        away: layers, counted from 0, in which visual tokens are away: these layers run on the text alone, as those
            before the entry. They come back with the state in which they left. They have entered before, and some
            layer follows.

    Raises:
        UserError: a value out of range, or two values that contradict each other.
    """

    dominant: int | float | None = None
    contextual: int | float | None = None
    cluster_width: int = 4
    layers: tuple[int | float, ...] = ()
    ratios: tuple[float, ...] = ()
    ratio_base: str = RATIO_BASES[0]
    keep: tuple[int, ...] = ()
    entry: int | float = 0
    frozen: int | float | tuple[int, ...] | None = None
    away: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("layers", "ratios", "keep", "away"):
            object.__setattr__(self, name, listed(name, getattr(self, name)))
        check_away(self.away)
        if isinstance(self.frozen, (list, tuple)):
            object.__setattr__(self, "frozen", tuple(self.frozen))
        if self.dominant is None and self.contextual is not None:
            raise UserError(f"contextual={self.contextual} needs `dominant` as well (at least 1)")
        if self.dominant is not None and self.contextual is None:
            object.__setattr__(self, "contextual", 0)
        _ = self.stage1
        check_layers(self.layers)
        check_ratios(self.ratios)
        if self.ratio_base not in RATIO_BASES:
            raise UserError(f"ratio_base is {str(self.ratio_base)[:40]!r}; choose {', '.join(RATIO_BASES)}")
        if self.keep and self.ratios:
            raise UserError(f"ratios {self.ratios} and keep {self.keep} contradict each other; give one of them")
        if self.keep and self.ratio_base != RATIO_BASES[0]:
            raise UserError(f"ratio_base {self.ratio_base} does nothing with absolute counts (keep)")
        check_keep(self.keep)
        check_entry(self.entry)
        check_frozen(self.frozen)
        name, left = ("keep", self.keep) if self.keep else ("ratios", self.ratios)
        if len(self.layers) != len(left):
            raise UserError(f"{len(self.layers)} layers {self.layers}, but {len(left)} {name} {left}")

    @staticmethod
    def solve(
        average: float,
        backbone: str | Backbone = "llava15",
        stages: Sequence[int] = (1, 2),
        *,
        contextual_share: float | None = None,
        cluster_width: int = 4,
        layers: Sequence[int | float] | None = None,
        ratios: Sequence[float] | None = None,
        ratio_base: str = RATIO_BASES[0],
        schedule: Schedule | None = None,
        entry: int | float | None = None,
        frozen: int | float | Sequence[int] | None = None,
        away: Sequence[int] | None = None,
        measure: str = MEASURES[0],
    ) -> Budget:
        """The budget whose average is closest to a given one; see `duet.budget.solver.solve`.

        Args:
            stages: `(1, 2)`, `(1,)` or `(2,)`; selects the default schedule of such methods.
            schedule: another schedule, instead of `stages`.
            entry, frozen, away: instead of the schedule's.
            measure: what the average counts, see `average`.
        """
        from duet.budget.solver import default_schedule, solve

        return solve(
            average,
            find_backbone(backbone),
            default_schedule(tuple(stages)) if schedule is None else schedule,
            contextual_share=contextual_share,
            cluster_width=cluster_width,
            layers=layers,
            ratios=ratios,
            ratio_base=ratio_base,
            entry=entry,
            frozen=frozen,
            away=away,
            measure=measure,
        )

    @property
    def ranks(self) -> bool:
        """Whether a stage 2 has to choose tokens: some are left and some are dropped at one of `layers`."""
        return any(self.keep) or any(0 < ratio < 1 for ratio in self.ratios)

    @property
    def moves(self) -> bool:
        """Whether tokens enter late, freeze or are away: what needs neither stage."""
        return bool(self.entry or self.away) or self.frozen is not None

    @property
    def stage1(self) -> Stage1 | None:
        """Counts per picture; None without stage 1."""
        if self.dominant is None:
            return None
        return Stage1(self.dominant, self.contextual or 0, self.cluster_width)

    def only(self, stage: int) -> Budget:
        """The part of this budget for stage 1 alone or stage 2 alone. Its average is different.

        Entry, frozen and away layers, and an exit without any choice before it need no stage 2 and stay.
        """
        if stage == 1:
            part = replace(self, layers=(), ratios=(), ratio_base=RATIO_BASES[0], keep=())
            return part if self.ranks else replace(part, layers=self.layers, ratios=self.ratios, keep=self.keep)
        if stage == 2:
            return replace(self, dominant=None, contextual=None, cluster_width=4)
        raise UserError(f"stage {stage} does not exist; choose 1 or 2")

    def layers_for(self, num_layers: int) -> tuple[int, ...]:
        """`layers` as counts in a decoder of `num_layers`; shares of the depth are rounded, halves up.

        Raises:
            UserError: no layer runs after one of them, or two shares fall on the same layer.
        """
        counts = tuple(
            layer if isinstance(layer, int) else max(1, int(layer * num_layers + 0.5)) for layer in self.layers
        )
        if counts and counts[-1] >= num_layers:
            raise UserError(
                f"stage 2 after layer {self.layers[-1]}: the language model has {num_layers} layers, "
                f"so tokens can be dropped after layer {num_layers - 1} at the latest"
            )
        if len(set(counts)) < len(counts):
            raise UserError(
                f"layers {self.layers} fall on layers {counts} of {num_layers}, not all different; use fewer of them"
            )
        entry = self.entry_for(num_layers)
        if counts and counts[0] <= entry:
            raise UserError(
                f"tokens can't be dropped after layer {counts[0]}: they enter after layer {entry} (`entry`), so the "
                f"first of `layers` must be {entry + 1} or later"
            )
        for start, end in spans_of(self.away_for(num_layers)):
            for layer in counts:
                if start <= layer < end:
                    raise UserError(
                        f"tokens can't be dropped after layer {layer}: they are away in {called((start, end))} "
                        f"(`away`, counted from 0); drop them after layer {end}, where they come back"
                    )
        return counts

    def entry_for(self, num_layers: int) -> int:
        """`entry` as a count in a decoder of `num_layers`.

        Raises:
            UserError: no layer runs after it.
        """
        entry = self.entry if isinstance(self.entry, int) else int(self.entry * num_layers + 0.5)
        if entry >= num_layers:
            raise UserError(
                f"entry after layer {self.entry}: the language model has {num_layers} layers, so visual tokens can "
                f"enter after layer {num_layers - 1} at the latest"
            )
        return entry

    def frozen_for(self, num_layers: int) -> tuple[int, ...]:
        """Layers of a decoder of `num_layers` in which visual tokens are frozen, counted from 0.

        Raises:
            UserError: the decoder has no such layer, or visual tokens have not entered there.
        """
        if self.frozen is None:
            return ()
        if isinstance(self.frozen, tuple):
            layers = self.frozen
        else:
            first = self.frozen if isinstance(self.frozen, int) else int(self.frozen * num_layers + 0.5)
            layers = tuple(range(first, num_layers)) or (first,)
        if layers[-1] >= num_layers:
            raise UserError(f"frozen layer {layers[-1]}: the language model has layers 0 to {num_layers - 1}")
        entry = self.entry_for(num_layers)
        if layers[0] < entry:
            raise UserError(f"frozen layer {layers[0]}: visual tokens enter after layer {entry} (`entry`)")
        both = sorted({*layers} & {*self.away_for(num_layers)})
        if both:
            raise UserError(f"visual tokens can't be both frozen and away in layer {both[0]}; take it out of one")
        return layers

    def away_for(self, num_layers: int) -> tuple[int, ...]:
        """Layers of a decoder of `num_layers` in which visual tokens are away, counted from 0.

        Raises:
            UserError: tokens have not entered before, or do not come back.
        """
        entry = self.entry_for(num_layers)
        if self.away and self.away[0] <= entry:
            raise UserError(
                f"away in layer {self.away[0]}: visual tokens enter after layer {entry}, so they can be away from "
                f"layer {entry + 1} on (counted from 0); for a later entry give `entry`"
            )
        if self.away and self.away[-1] >= num_layers - 1:
            raise UserError(
                f"away in layer {self.away[-1]}: the language model has layers 0 to {num_layers - 1}, and tokens come "
                "back in one of them; for an exit give a last ratio of 0"
            )
        return self.away

    def absences(self, num_layers: int) -> tuple[tuple[int, int], ...]:
        """Runs of layers of text alone before and between visual tokens, each `(first, after the last)`."""
        entry = self.entry_for(num_layers)
        return (*(((0, entry),) if entry else ()), *spans_of(self.away_for(num_layers)))

    def boundaries(self, num_layers: int) -> tuple[int, ...]:
        """Layers before which the number of visual tokens is set: 0, `layers`, and where they enter, leave, return."""
        moved = (layer for span in self.absences(num_layers) for layer in span)
        return tuple(sorted({0, *moved, *self.layers_for(num_layers)}))

    def keep_counts(self, entered: int, units: int = 1) -> tuple[int, ...]:
        """Visual tokens left after each of `layers` when `entered` of `units` pictures entered the language model."""
        left, counts = entered, []
        for candidates, survivors in self.drops(entered, units):
            left += survivors - candidates
            counts.append(left)
        return tuple(counts)

    def drops(self, entered: int, units: int = 1) -> tuple[tuple[int, int], ...]:
        """Candidates and survivors at each of `layers`; visual tokens after the last candidate are not touched.

        By default all remaining tokens are candidates, and `ratios` of the count that entered survive, truncated. Under
        `compounding`, as in the released Qwen2.5-VL code, both counts of a stage are shares of the survivors of the
        stage before: its candidates by the previous ratio, its survivors by its own. So from the second stage on, only
        the first part of the picture is ranked.

        Args:
            entered: visual tokens that entered the language model.
            units: pictures (crops, frames) of the prompt, for absolute counts.
        """
        if self.ratio_base == "entered":
            kept = tuple(int(entered * ratio) for ratio in self.ratios)
            kept = kept or tuple(min(entered, count * units) for count in self.keep)
            return tuple(zip((entered, *kept), kept, strict=False))
        stages = []
        for before, ratio in pairwise((1.0, *self.ratios)):
            stages.append((int(entered * before), int(entered * ratio)))
            entered = stages[-1][1]
        return tuple(stages)

    def counts(self, backbone: str | Backbone) -> tuple[int, int] | None:
        """Dominant and contextual tokens of one picture, None without stage 1.

        If the backbone's pictures vary in size, counts are limited to the tokens of the picture, as in the engine; if
        that number is unknown, the budget's own counts are returned.

        Raises:
            UserError: more tokens than a picture of the backbone has, or shares of a picture of unknown size.
        """
        model, stage1 = find_backbone(backbone), self.stage1
        if stage1 is None:
            return None
        if model.patches is None and isinstance(stage1.dominant, int) and isinstance(stage1.contextual, int):
            return stage1.dominant, stage1.contextual
        return replace(stage1, capped=model.capped).resolve(model.known_patches, model.cls)

    def entered(self, backbone: str | Backbone) -> int:
        """Visual tokens of a prompt that enter the language model."""
        model, stage1 = find_backbone(backbone), self.stage1
        if stage1 is not None and model.sizes:
            return sum(sum(replace(stage1, capped=True).resolve(size, model.cls)) for size in model.sizes)
        counts = self.counts(model)
        return model.full if counts is None else model.pictures * sum(counts)

    def tokens_per_layer(self, backbone: str | Backbone) -> tuple[int, ...]:
        """Visual tokens that enter each layer of the language model, frozen ones included: also what it caches."""
        model = find_backbone(backbone)
        return self.counts_per_layer(self.entered(model), model.pictures, model.decoder.layers)

    def counts_per_layer(self, entered: int, units: int, depth: int) -> tuple[int, ...]:
        """The same for `entered` tokens of `units` pictures (crops, frames) in a decoder of `depth` layers."""
        starts = (0, *self.layers_for(depth))
        left = dict(zip(starts, (entered, *self.keep_counts(entered, units)), strict=True))
        absent = {layer for start, end in self.absences(depth) for layer in range(start, end)}
        latest = (max(start for start in starts if start <= layer) for layer in range(depth))
        return tuple(0 if layer in absent else left[start] for layer, start in enumerate(latest))

    def updated_per_layer(self, backbone: str | Backbone) -> tuple[int, ...]:
        """Visual tokens that each layer updates: those that enter it, 0 where they are frozen."""
        model = find_backbone(backbone)
        frozen = self.frozen_for(model.decoder.layers)
        return tuple(0 if layer in frozen else count for layer, count in enumerate(self.tokens_per_layer(model)))

    def average(self, backbone: str | Backbone, measure: str = MEASURES[0]) -> float:
        """Number of visual tokens of a layer, averaged over the layers.

        Args:
            backbone: sizes.
            measure: `entering`: tokens that enter the layer, "tokens" in the paper's tables; `updated`: without frozen
                ones; `flops`: a frozen token counts its share of an updated one's operations
                (`duet.budget.cost.frozen_share`).
        """
        if measure not in MEASURES:
            raise UserError(f"measure is {measure!r}; choose {', '.join(MEASURES)}")
        model = find_backbone(backbone)
        counts: Sequence[float] = self.tokens_per_layer(model)
        if measure != MEASURES[0] and self.frozen is not None:
            share = frozen_share(model.decoder) if measure == "flops" else 0.0
            pairs = zip(counts, self.updated_per_layer(model), strict=True)
            counts = [updated + share * (entering - updated) for entering, updated in pairs]
        return sum(counts) / len(counts)

    def flops(self, backbone: str | Backbone, *, text: int, causal: bool = False) -> Flops:
        """Operations of a prompt with `text` text tokens; see `duet.budget.cost` for the formula and `causal`."""
        model = find_backbone(backbone)
        stock = self.stage1 is None and not self.layers and not self.moves
        counts, updated = self.tokens_per_layer(model), self.updated_per_layer(model)
        return count_flops(model, counts, self.entered(model), text, updated=updated, stock=stock, causal=causal)

    def kv_bytes(self, backbone: str | Backbone, *, text: int, bytes_per_value: int = 2) -> tuple[int, ...]:
        """Bytes of each layer's key-value cache after a prompt with `text` text tokens (2 is half precision)."""
        model = find_backbone(backbone)
        return count_kv_bytes(model, self.tokens_per_layer(model), text, bytes_per_value)


def mean_over_layers(counts: Sequence[float], starts: Sequence[int], depth: int) -> float:
    """Number of tokens entering a layer, averaged over the layers.

    Args:
        counts: tokens that enter each layer, from each of `starts` on.
        starts: ascending from 0.
        depth: number of layers.
    """
    spans = [end - start for start, end in pairwise((*starts, depth))]
    return sum(count * span for count, span in zip(counts, spans, strict=True)) / depth
