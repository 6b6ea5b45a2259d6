"""LLaVA-1.5 for the engine: where `LlavaForConditionalGeneration` keeps its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from duet.backbones import clip
from duet.backbones.llama import LlamaRanking
from duet.types import Layout

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import VisionStates


class LlavaAdapter:
    """`LlavaForConditionalGeneration` with a CLIP tower and a LLaMA-like text model."""

    model_class = "LlavaForConditionalGeneration"
    backbone = "llava15"
    positions = "renumber"

    def body(self, model: Any) -> Any:
        """`LlavaModel`."""
        return model.model

    def text_model(self, model: Any) -> Any:
        """`LlamaModel`."""
        return model.model.language_model

    def encode(self, body: Any, inputs: dict[str, Any], needs: frozenset[str]) -> VisionStates:
        """Encode every picture of the batch, in prompt order."""
        layer = inputs.get("vision_feature_layer")
        layer = body.config.vision_feature_layer if layer is None else layer
        if not isinstance(layer, int):
            raise ValueError(f"vision_feature_layer {layer}: compression reads one feature layer, not several")
        return clip.encode(body.vision_tower, inputs["pixel_values"], layer, needs)

    def project(self, body: Any, features: Tensor) -> Tensor:
        """`[B, K, D] -> [B, K, Dt]`."""
        return body.multi_modal_projector(features)

    def full_tokens(self, body: Any, states: VisionStates) -> Tensor:
        """`[B, N, D]`: all patches, with CLS in front where the checkpoint's select strategy is `full`."""
        if body.config.vision_feature_select_strategy == "default" or states.cls is None:
            return states.features
        return torch.cat([states.cls[:, None], states.features], dim=1)

    def pictures_per_row(self, body: Any, input_ids: Tensor) -> list[int]:
        """Pictures of each prompt row, counted by placeholders.

        Raises:
            ValueError: a row's placeholders are no whole number of pictures.
        """
        vision = body.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        patches += body.config.vision_feature_select_strategy == "full"
        counts = (input_ids == body.config.image_token_id).sum(1).tolist()
        if any(count % patches for count in counts):
            raise ValueError(
                f"the prompt rows hold {counts} image placeholders, but a picture has {patches}; "
                "make prompt and pixel_values with the same processor"
            )
        return [count // patches for count in counts]

    def layout(self, body: Any, input_ids: Tensor, attention_mask: Tensor | None, pictures: int) -> Layout:
        """Number the placeholders: picture by picture, row by row.

        Raises:
            ValueError: the prompt's placeholders do not fit the pictures.
        """
        rows = self.pictures_per_row(body, input_ids)
        if sum(rows) != pictures:
            raise ValueError(f"the prompt has placeholders for {rows} pictures in its rows, got {pictures} pictures")
        visual = input_ids == body.config.image_token_id
        patches = int(visual.sum()) // max(pictures, 1)
        number = (visual.flatten().long().cumsum(0) - 1).view_as(input_ids)
        valid = torch.ones_like(visual) if attention_mask is None else attention_mask.bool()
        return Layout(
            picture=torch.where(visual, number // patches, -1),
            slot=torch.where(visual, number % patches, -1),
            valid=valid,
        )

    def ranking(self, layer: Any, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> LlamaRanking:
        """Queries and keys of a decoder layer."""
        return LlamaRanking(layer, hidden, rope)
