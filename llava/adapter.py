"""LLaVA-1.5 for the engine: where `LlavaForConditionalGeneration` keeps its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from duet.backbones import clip
from duet.backbones.llama import LlamaRanking
from duet.backbones.placement import Units, merge_parts
from duet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import Placement, Reduction, VisionStates


class LlavaAdapter:
    """`LlavaForConditionalGeneration` with a CLIP tower and a LLaMA-like text model."""

    positions = "renumber"
    causal_ranking = True
    scores = ("cls_row", "column_mean")
    capped = False
    pixel_names = ("pixel_values",)

    def body(self, model: Any) -> Any:
        """`LlavaModel`.

        Raises:
            UserError: its tower is not CLIP (Pixtral and SigLIP models come under the same class).
        """
        tower = model.config.vision_config.model_type
        if tower != "clip_vision_model":
            raise UserError(f"the vision tower is {tower}; compression of LLaVA-1.5 needs clip_vision_model")
        return model.model

    def text_model(self, model: Any) -> Any:
        """`LlamaModel`."""
        return model.model.language_model

    def encode(self, body: Any, inputs: dict[str, Any], needs: frozenset[str]) -> list[VisionStates]:
        """Encode every picture of the batch, in prompt order."""
        layer = inputs.get("vision_feature_layer")
        layer = body.config.vision_feature_layer if layer is None else layer
        if not isinstance(layer, int):
            raise ValueError(f"vision_feature_layer {layer}: compression reads one feature layer, not several")
        strategy = inputs.get("vision_feature_select_strategy") or body.config.vision_feature_select_strategy
        if strategy != body.config.vision_feature_select_strategy:
            raise ValueError(f"vision_feature_select_strategy {strategy!r}: set it in the model's config instead")
        return [clip.encode(body.vision_tower, inputs["pixel_values"], layer, needs)]

    def place(
        self,
        body: Any,
        inputs: dict[str, Any],
        states: list[VisionStates],
        reductions: list[Reduction] | None,
        in_place: bool,
    ) -> Placement:
        """Pictures follow each other in the order of their placeholders; the projector comes behind the merge."""
        rows = self.rows_of_pixels(body, inputs)["pixel_values"]
        pictures = len(states[0].features)
        if sum(rows) != pictures:
            raise ValueError(f"the prompt rows have placeholders for {rows} pictures, but got {pictures} pictures")
        units = Units(inputs["input_ids"] == body.config.image_token_id, [self._placeholders(body)] * pictures)
        if reductions is None:
            features, slots = self._full_tokens(body, states[0]), None
        else:
            features, slots = units.slots(reductions[0], in_place)
        part = (units.mask(torch.arange(pictures), slots), body.multi_modal_projector(features).flatten(0, 1))
        return merge_parts([part], [units], inputs.get("attention_mask"))

    def position_ids(self, body: Any, inputs: dict[str, Any]) -> None:
        """0, 1, 2, ..."""
        return

    def rope(self, lm: Any, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """`cos, sin`, each `[B, T, d]`."""
        return lm.rotary_emb(hidden, position_ids=positions)

    def ranking(self, layer: Any, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> LlamaRanking:
        """Queries and keys of a decoder layer."""
        return LlamaRanking(layer, hidden, rope)

    def rows_of_pixels(self, body: Any, inputs: dict[str, Any]) -> dict[str, list[int]]:
        """Pictures of each prompt row, counted by placeholders.

        Raises:
            ValueError: a row's placeholders are no whole number of pictures.
        """
        size = self._placeholders(body)
        counts = (inputs["input_ids"] == body.config.image_token_id).sum(1).tolist()
        if any(count % size for count in counts):
            raise ValueError(
                f"the prompt rows hold {counts} image placeholders, but a picture has {size}; "
                "make prompt and pixel_values with the same processor"
            )
        return {"pixel_values": [count // size for count in counts]}

    def _placeholders(self, body: Any) -> int:
        vision = body.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return patches + (body.config.vision_feature_select_strategy == "full")

    def _full_tokens(self, body: Any, states: VisionStates) -> Tensor:
        """All patches `[B, N, D]`, with CLS in front where the checkpoint's select strategy is `full`."""
        if body.config.vision_feature_select_strategy == "default" or states.cls is None:
            return states.features
        return torch.cat([states.cls[:, None], states.features], dim=1)
