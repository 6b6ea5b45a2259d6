"""The two sides of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: where a `Qwen..VLForConditionalGeneration` keeps its parts.

Pictures vary in size; budget counts are per picture or per temporal patch (two frames) of a video, and limited to the
tokens it has. Survivors keep their M-RoPE ids and their slots in the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from duet.backbones import qwen
from duet.backbones.llama import LlamaRanking
from duet.backbones.placement import Units, merge_parts, on_host
from duet.errors import UserError
from duet.types import Unit

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import Placement, Reduction, VisionStates


@dataclass(frozen=True)
class _Kind:
    """Arguments of the body's forward for pictures or videos, and their token in its config."""

    pixels: str
    grid: str
    token: str
    type_id: int


_KINDS = (
    _Kind("pixel_values", "image_grid_thw", "image_token_id", 1),
    _Kind("pixel_values_videos", "video_grid_thw", "video_token_id", 2),
)


class QwenVision:
    """A tower followed by a merger (`VisionSide`)."""

    provides = qwen.PROVIDES
    scores = ("column_mean",)
    capped = True
    pixel_names = ("pixel_values", "pixel_values_videos")
    switches: ClassVar[dict[str, tuple[str, ...]]] = {}

    def body(self, model: Any) -> Any:
        """`Qwen2_5_VLModel` or a similar one.

        Raises:
            UserError: some layers attend over a sliding window.
        """
        config = model.config.get_text_config()
        sliding = list(getattr(config, "layer_types", None) or ()).count("sliding_attention")
        if sliding:
            raise UserError(
                f"{sliding} of {config.num_hidden_layers} layers attend over a sliding window, which dropped tokens "
                "would move; load the model with use_sliding_window=False"
            )
        return model.model

    def encode(self, body: Any, inputs: dict[str, Any], needs: frozenset[str]) -> list[VisionStates]:
        """Encode every picture and video of the batch; pictures first, grouped by size.

        Raises:
            ValueError: a grid is missing or does not fit its pixels.
        """
        groups = [
            qwen.encode(body.visual, inputs[kind.pixels], inputs[kind.grid], needs, on_host(inputs, kind.grid))
            for kind in _kinds(inputs)
        ]
        return [states for group in groups for states in group]

    def units(self, body: Any, inputs: dict[str, Any], states: list[VisionStates]) -> list[list[Unit]]:
        """One unit per picture or temporal patch of a video, grouped by size as in `encode`."""
        found, first = [], 0
        for (units, sizes), kind in zip(_units(body, inputs), _kinds(inputs), strict=True):
            row_of = {number: row for row, numbers in enumerate(units.rows) for number in numbers}
            media = [number for number, (t, _, _) in enumerate(on_host(inputs, kind.grid).tolist()) for _ in range(t)]
            order = [at for t, _, _ in on_host(inputs, kind.grid).tolist() for at in range(t)]
            role = "frame" if kind.type_id == 2 else "picture"
            for members in qwen.by_size(sizes).values():
                found.append([Unit(row_of[one], first + media[one], role, order[one]) for one in members])
            first += len(inputs[kind.grid])
        return found

    def project(self, body: Any, features: Tensor) -> Tensor:
        """`[B, N, P]` unchanged: the merger has already run."""
        return features

    def placeholders(self, body: Any, input_ids: Tensor) -> Tensor:
        """`[B, T]` bool, for pictures and videos."""
        return torch.stack([_placeholders(body, input_ids, kind) for kind in _KINDS]).any(0)

    def place(
        self,
        body: Any,
        inputs: dict[str, Any],
        states: list[VisionStates],
        reductions: list[Reduction] | None,
        in_place: bool,
    ) -> Placement:
        """Put features into the slots of the tokens that they represent; the merger has already run.

        Raises:
            ValueError: `generate` was not told which tokens are visual, so all would be numbered like text.
        """
        positions = inputs.get("position_ids")
        by_generate = positions is not None and positions.ndim == 3 and len(positions) == 4
        if by_generate and inputs.get("mm_token_type_ids") is None:
            raise ValueError(
                "generate needs mm_token_type_ids to number pictures in rows and columns (M-RoPE): pass everything "
                "that the processor returns"
            )
        parts, kinds, names = [], [], []
        group = 0
        for units, sizes in _units(body, inputs):
            places: dict[int, tuple[int, int]] = {}
            for members in qwen.by_size(sizes).values():
                reduction = reductions[group] if reductions else None
                parts.append(units.fill(members, group, states[group], reduction, in_place))
                places |= {member: (group, index) for index, member in enumerate(members)}
                group += 1
            kinds.append(units)
            names.append([[places[number]] for number in range(len(sizes))])
        return merge_parts(parts, kinds, inputs.get("attention_mask"), names)

    def rows_of_pixels(self, body: Any, inputs: dict[str, Any]) -> dict[str, list[int]]:
        """Number of patches and grid rows in each prompt row.

        Raises:
            ValueError: a row's placeholders do not match its pictures.
        """
        rows: dict[str, list[int]] = {}
        for kind in _kinds(inputs):
            grid = on_host(inputs, kind.grid).tolist()
            share = body.visual.spatial_merge_size**2
            units = Units(
                _placeholders(body, on_host(inputs, "input_ids"), kind), [t * h * w // share for t, h, w in grid]
            )
            rows[kind.pixels] = [sum(units.sizes[unit] * share for unit in row) for row in units.rows]
            rows[kind.grid] = [len(row) for row in units.rows]
            if kind.pixels == "pixel_values_videos":
                rows["second_per_grid_ts"] = rows[kind.grid]
        return rows


class QwenDecoder:
    """Three position axes (M-RoPE) on a Qwen2 or Qwen3 (`DecoderSide`)."""

    text_models: ClassVar[tuple[str, ...]] = ("Qwen2_5_VLTextModel", "Qwen2VLTextModel", "Qwen3VLTextModel")

    def text_model(self, model: Any) -> Any:
        """`Qwen2_5_VLTextModel` or a similar one."""
        return model.model.language_model

    def position_ids(self, body: Any, inputs: dict[str, Any]) -> Tensor:
        """M-RoPE ids `[3, B, T]`. The cache holds the shift of later tokens (`PromptRecord.shift`).

        Raises:
            ValueError: the prompt's placeholders do not match the pictures.
        """
        ids, types = on_host(inputs, "input_ids"), on_host(inputs, "mm_token_type_ids")
        _units(body, inputs)
        if types is None:
            types = torch.zeros_like(ids)
            for kind in _kinds(inputs):
                types = types.masked_fill(_placeholders(body, ids, kind), kind.type_id)
        types = types.masked_fill(ids < 0, 0)  # generated tokens are words
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "attention_mask")
        given = {name: on_host(inputs, name) for name in names}
        # on the host, where it reads every picture's place and size
        positions, _ = body.get_rope_index(ids, mm_token_type_ids=types, **given)
        return positions.to(inputs["input_ids"].device, non_blocking=True)

    def rope(self, lm: Any, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """`cos, sin`, each `[B, T, d]`, for one axis `[B, T]`, three, or three after the text axis of `generate`."""
        axes = positions.expand(3, -1, -1) if positions.ndim == 2 else positions[-3:]
        return lm.rotary_emb(hidden, position_ids=axes)

    def attention(self, layer: Any) -> Any:
        """The attention module of a decoder layer."""
        return layer.self_attn

    def ranking(self, layer: Any, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> LlamaRanking:
        """Queries and keys of a decoder layer."""
        return LlamaRanking(layer, hidden, rope)


def _kinds(inputs: dict[str, Any]) -> list[_Kind]:
    """The kinds of media in a prompt."""
    kinds = [kind for kind in _KINDS if inputs.get(kind.pixels) is not None]
    for kind in kinds:
        if inputs.get(kind.grid) is None:
            raise ValueError(f"{kind.pixels} without {kind.grid}: pass everything that the processor returns")
    return kinds


def _units(body: Any, inputs: dict[str, Any]) -> list[tuple[Units, list[tuple[int, int]]]]:
    """For each kind of media in a prompt, its placeholders and the sizes of its units."""
    found = []
    for kind in _kinds(inputs):
        sizes = qwen.unit_sizes(on_host(inputs, kind.grid), body.visual.spatial_merge_size)
        marks = _placeholders(body, on_host(inputs, "input_ids"), kind)
        found.append((Units(marks, [h * w for h, w in sizes], inputs["input_ids"].device), sizes))
    return found


def _placeholders(body: Any, input_ids: Tensor, kind: _Kind) -> Tensor:
    return input_ids == getattr(body.config, kind.token)
