"""What a training will cost: operations, hours and memory, from sizes alone.

Operations of a row, a multiply-add as two: its forward pass (`duet.budget.cost`, causal attention, the head at learned
tokens only) times the passes of each part. A trained part has a forward pass, one for the gradients of its inputs and
one for those of its weights; a fixed or adapted decoder has no third; a fixed tower has only the first. Gradient
checkpointing repeats the decoder's forward pass. The spec of LLaVA's finetuning (four passes through the decoder) and
of its pretraining (three) follow from this. A teacher adds one forward pass with all visual tokens at rows with
pictures; it is taken to be as large as the trained model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from duet.budget import Backbone, Budget
from duet.budget.cost import layer_flops, tower_flops

#: Bytes of a number.
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
#: Bytes per trained number of AdamW's two moments in float32, and of the master weights beside half precision.
MOMENTS, MASTER = 8, 4
#: Values per token and layer that a backward pass needs, in multiples of the width (Korthikanti et al., 2022, without
#: the scores, which sdpa does not store), and the one that checkpointing keeps.
ACTIVATIONS, KEPT = 17, 1
GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """How a recipe trains.

    Attributes:
        sizes: numbers of each part (`tower`, `projector`, `decoder`); trained: those that are trained.
        checkpointing: gradient checkpointing.
        dtype: of the weights; mixed: computed in half precision.
        stage: of ZeRO, 0 without; offloaded: the optimizer lives in CPU memory.
        taught: by a teacher with all visual tokens.
        gpus: processes; batch: rows per process and pass; accumulation: passes per step.
    """

    sizes: Mapping[str, int]
    trained: Mapping[str, int]
    checkpointing: bool = False
    dtype: str = "float32"
    mixed: bool = False
    stage: int = 0
    offloaded: bool = False
    taught: bool = False
    gpus: int = 1
    batch: int = 8
    accumulation: int = 1


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """Without fragmentation and the framework's own."""
        return self.weights + self.gradients + self.optimizer + self.activations


def row_flops(
    backbone: Backbone, budget: Budget | None, text: int, learned: int, pictures: Sequence[int], plan: Plan
) -> float:
    """Operations of one row in one step.

    Args:
        backbone: sizes of the model.
        budget: of compression; None keeps all tokens.
        text: tokens other than visual ones; learned: tokens with a label.
        pictures: visual tokens of each picture, crop or frame.
        plan: what is trained.
    """
    layers, head, towers, projector = _forward_flops(backbone, budget, text, learned, pictures)
    whole = plan.trained.get("decoder", 0) == plan.sizes.get("decoder", -1)
    back = 2 if whole else 1
    flops = layers * (1 + plan.checkpointing + back) + head * (1 + back)
    flops += towers * (3 + plan.checkpointing if plan.trained.get("tower") else 1)
    flops += projector * (3 if plan.trained.get("projector") else 1)
    taught = plan.taught and pictures and budget is not None
    return flops + (sum(_forward_flops(backbone, None, text, learned, pictures)) if taught else 0)


def _forward_flops(
    backbone: Backbone, budget: Budget | None, text: int, learned: int, pictures: Sequence[int]
) -> tuple[float, float, float, float]:
    """Operations of a row's forward pass: in the decoder's layers, the head, the towers and the projector."""
    decoder = backbone.decoder
    model = _with_pictures(backbone, pictures)
    if not pictures:
        visual: Sequence[int] = (0,) * decoder.layers
    elif budget is None:
        visual = (model.full,) * decoder.layers
    else:
        visual = budget.tokens_per_layer(model)
    layers = sum(layer_flops(decoder, n, n * (n + 1) // 2) for n in (text + count for count in visual))
    head = 2 * decoder.width * decoder.vocabulary * learned
    towers = sum(tower_flops(backbone.tower, size, backbone.cls) for size in pictures)
    projected = sum(pictures) if budget is None or model.projects_first else budget.entered(model) if pictures else 0
    return layers, head, towers, projected * sum(2 * inputs * outputs for inputs, outputs in backbone.projector)


def memory_of(plan: Plan, tokens: int, learned: int, backbone: Backbone) -> Memory:
    """Bytes on each GPU.

    Args:
        plan: of the training.
        tokens: that enter the decoder in one pass, over the rows of the batch; learned: those with a label.
        backbone: sizes of the decoder.
    """
    size, trained = sum(plan.sizes.values()), sum(plan.trained.values())
    number = BYTES[plan.dtype]
    spread = {stage: plan.gpus if plan.stage >= stage else 1 for stage in (1, 2, 3)}
    master = MASTER if plan.dtype != "float32" and plan.stage else 0
    moments = MOMENTS if plan.dtype == "float32" or plan.stage else 2 * number
    decoder = backbone.decoder
    computed = 2 if plan.mixed or number == 2 else 4
    kept = decoder.layers * KEPT + ACTIVATIONS if plan.checkpointing else decoder.layers * ACTIVATIONS
    logits = learned * decoder.vocabulary * (computed + 2 * 4)  # and their float32 copy and its gradient
    return Memory(
        weights=size * number / spread[3],
        gradients=trained * number / spread[2],
        optimizer=0 if plan.offloaded else trained * (moments + master) / spread[1],
        activations=tokens * decoder.width * kept * computed + logits,
    )


def sizes_of(backbone: Backbone) -> dict[str, int]:
    """Numbers of each part, by formula; norms, biases and position tables are left out."""
    decoder, tower = backbone.decoder, backbone.tower
    queries, shared = decoder.heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    layer = decoder.width * (2 * queries + 2 * shared + 3 * decoder.mlp_width)
    block = tower.width * (4 * tower.width + tower.mlp_matmuls * tower.mlp_width)
    return {
        "tower": (tower.layers + tower.unread) * block + tower.patch_values * tower.width,
        "projector": sum(inputs * outputs for inputs, outputs in backbone.projector),
        "decoder": decoder.layers * layer + 2 * decoder.width * decoder.vocabulary,
    }


def zero_of(settings: Any) -> tuple[int, bool]:
    """Stage of ZeRO in a DeepSpeed configuration, and whether the optimizer is offloaded."""
    zero = settings.get("zero_optimization", {}) if isinstance(settings, dict) else {}
    target = (zero.get("offload_optimizer") or {}).get("device", "none")
    return int(zero.get("stage", 0)), target not in ("none", None)


def _with_pictures(backbone: Backbone, pictures: Sequence[int]) -> Backbone:
    if not pictures:
        return backbone
    if backbone.capped or len(set(pictures)) > 1:
        return replace(backbone, patches=max(pictures), pictures=len(pictures), sizes=tuple(pictures))
    return replace(backbone, patches=pictures[0], pictures=len(pictures), sizes=())
