"""Budget and Stage1: checked counts, ratios and layers. The method chooses which tokens survive.

Stage 1 (paper Sec. 3.1): every picture keeps `dominant` tokens, including CLS if the tower has one, and `contextual`
merged ones. Stage 2 (Sec. 3.2): after `layers[i]` layers of the language model, `int(V * ratios[i])` of the V visual
tokens that entered it are left, as in the released code; the paper's text uses the current count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from duet.budget.backbones import Backbone, find_backbone
from duet.budget.cost import Flops, count_flops, count_kv_bytes
from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duet.budget.schedules import Schedule

#: Bases of the stage-2 ratios, the default first; see `Budget.drops`.
RATIO_BASES = ("entered", "compounding")


@dataclass(frozen=True)
class Stage1:
    """Counts of one picture, crop or frame.

    Attributes:
        dominant: a count (int) or a share of the picture's tokens (float in (0, 1]).
        contextual: the same; 0 for none.
        cluster_width: patches merged per contextual token (paper: 4).
        capped: limit counts to the tokens that a picture has instead of raising: dominant ones leave at least one
            token for contextual ones, which get the rest (`modeling_qwen2_5vl_duet.py`).
    """

    dominant: int | float
    contextual: int | float = 0
    cluster_width: int = 4
    capped: bool = False

    def __post_init__(self) -> None:
        _check_amount("dominant", self.dominant, least=1)
        _check_amount("contextual", self.contextual, least=0)
        if not _is_count(self.cluster_width) or self.cluster_width < 1:
            raise UserError(f"cluster_width is {self.cluster_width!r}; it must be a whole number, at least 1")

    def resolve(self, tokens: int, cls: bool) -> tuple[int, int]:
        """Dominant and contextual counts for a picture of `tokens` patches.

        A share is truncated to a count; a share above 0 keeps at least one token.

        Args:
            tokens: patches of the picture, without CLS.
            cls: whether the tower has a CLS token; it is always kept, as one of the dominant tokens.

        Raises:
            UserError: more tokens than the picture has.
        """
        dominant, contextual = _resolve(self.dominant, tokens), _resolve(self.contextual, tokens)
        if self.capped:
            # the prompt has a placeholder for every patch, but none for CLS
            dominant = min(dominant, max(1, tokens - (contextual > 0)))
            contextual = min(contextual, tokens - dominant)
        if dominant + contextual > tokens + cls:
            raise UserError(
                f"asked for {dominant + contextual} tokens ({dominant} dominant + {contextual} contextual), "
                f"the picture has {tokens}{' and CLS' if cls else ''}; lower `dominant` or `contextual`, "
                "or use a smaller budget of `duet budget list`"
            )
        return dominant, contextual


@dataclass(frozen=True)
class Budget:
    """How many visual tokens are left at each layer. `Budget()` keeps all of them.

    Attributes:
        dominant, contextual, cluster_width: stage 1, see `Stage1`; `dominant=None` for no stage 1.
        layers: stage 2 acts after this many layers: counts (int) or shares of the depth (float in (0, 1)), ascending.
        ratios: share of the visual tokens that entered the language model left after each of `layers`.
        ratio_base: `entered`, or `compounding` as in the released Qwen2.5-VL code, see `drops`.

    Raises:
        UserError: a value out of range, or two values that contradict each other.
    """

    dominant: int | float | None = None
    contextual: int | float | None = None
    cluster_width: int = 4
    layers: tuple[int | float, ...] = ()
    ratios: tuple[float, ...] = ()
    ratio_base: str = RATIO_BASES[0]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "ratios", tuple(self.ratios))
        if self.dominant is None and self.contextual is not None:
            raise UserError(f"contextual={self.contextual} needs `dominant` as well (at least 1)")
        if self.dominant is not None and self.contextual is None:
            object.__setattr__(self, "contextual", 0)
        _ = self.stage1
        _check_layers(self.layers)
        _check_ratios(self.ratios)
        if self.ratio_base not in RATIO_BASES:
            raise UserError(f"ratio_base is {str(self.ratio_base)[:40]!r}; choose {', '.join(RATIO_BASES)}")
        if len(self.layers) != len(self.ratios):
            raise UserError(f"{len(self.layers)} layers {self.layers}, but {len(self.ratios)} ratios {self.ratios}")

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
    ) -> Budget:
        """The budget whose average is closest to a given one; see `duet.budget.solver.solve`.

        Args:
            stages: `(1, 2)`, `(1,)` or `(2,)`; selects the default schedule of such methods.
            schedule: another schedule, instead of `stages`.
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
        )

    @property
    def stage1(self) -> Stage1 | None:
        """Counts per picture; None without stage 1."""
        if self.dominant is None:
            return None
        return Stage1(self.dominant, self.contextual or 0, self.cluster_width)

    def only(self, stage: int) -> Budget:
        """The part of this budget for stage 1 alone or stage 2 alone. Its average is different."""
        if stage == 1:
            return Budget(self.dominant, self.contextual, self.cluster_width)
        if stage == 2:
            return Budget(layers=self.layers, ratios=self.ratios, ratio_base=self.ratio_base)
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
        return counts

    def keep_counts(self, entered: int) -> tuple[int, ...]:
        """Visual tokens left after each of `layers` when `entered` of them entered the language model."""
        left, counts = entered, []
        for candidates, survivors in self.drops(entered):
            left += survivors - candidates
            counts.append(left)
        return tuple(counts)

    def drops(self, entered: int) -> tuple[tuple[int, int], ...]:
        """Candidates and survivors at each of `layers`; visual tokens after the last candidate are not touched.

        By default all remaining tokens are candidates, and `ratios` of the count that entered survive, truncated. Under
        `compounding`, as in the released Qwen2.5-VL code, both counts of a stage are shares of the survivors of the
        stage before: its candidates by the previous ratio, its survivors by its own. So from the second stage on, only
        the first part of the picture is ranked.

        Args:
            entered: visual tokens that entered the language model.
        """
        if self.ratio_base == "entered":
            kept = tuple(int(entered * ratio) for ratio in self.ratios)
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
        """Visual tokens that enter each layer of the language model."""
        model = find_backbone(backbone)
        depth = model.decoder.layers
        entered = self.entered(model)
        spans = pairwise((0, *self.layers_for(depth), depth))
        counts = (entered, *self.keep_counts(entered))
        return tuple(count for (start, end), count in zip(spans, counts, strict=True) for _ in range(start, end))

    def average(self, backbone: str | Backbone) -> float:
        """Number of visual tokens entering a layer, averaged over the layers: "tokens" in the paper's tables."""
        counts = self.tokens_per_layer(backbone)
        return sum(counts) / len(counts)

    def flops(self, backbone: str | Backbone, *, text: int, causal: bool = False) -> Flops:
        """Operations of a prompt with `text` text tokens; see `duet.budget.cost` for the formula and `causal`."""
        model, stock = find_backbone(backbone), self.stage1 is None and not self.layers
        counts, entered = self.tokens_per_layer(model), self.entered(model)
        return count_flops(model, counts, entered, text, stock=stock, causal=causal)

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


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_amount(name: str, value: int | float, least: int) -> None:
    if _is_count(value):
        if value < least:
            raise UserError(f"{name} is {value}; it must be at least {least}")
    elif not isinstance(value, float) or not 0 <= value <= 1 or (least and value == 0):
        bracket = "(" if least else "["
        raise UserError(f"{name} is {value!r}; give a count (int) or a share of the tokens (float in {bracket}0, 1])")


def _resolve(amount: int | float, tokens: int) -> int:
    if isinstance(amount, int):
        return amount
    return max(1, int(amount * tokens)) if amount else 0


def _check_layers(layers: tuple[int | float, ...]) -> None:
    counts = [_is_count(layer) for layer in layers]
    if any(counts) and not all(counts):
        raise UserError(f"layers {layers}: give all as counts (int) or all as shares of the depth (float)")
    for layer in layers:
        if all(counts) and layer < 1:
            raise UserError(f"layer {layer}: stage 2 acts after layer 1 at the earliest")
        if not all(counts) and not (isinstance(layer, float) and 0 < layer < 1):
            raise UserError(f"layer {layer!r}: give a count (int) or a share of the depth (float in (0, 1))")
    if any(later <= earlier for earlier, later in pairwise(layers)):
        raise UserError(f"layers {layers} must ascend")


def _check_ratios(ratios: tuple[float, ...]) -> None:
    for ratio in ratios:
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 1:
            raise UserError(f"ratio {ratio!r} is not a number in [0, 1]")
    if any(later > earlier for earlier, later in pairwise(ratios)):
        raise UserError(f"ratios {ratios} must not rise: dropped tokens do not come back")
