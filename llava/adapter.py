"""LLaVA-1.5 for the engine: where `LlavaForConditionalGeneration` keeps its parts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from duet.backbones import clip
from duet.backbones.llama import LlamaDecoder
from duet.backbones.placement import Units, merge_parts
from duet.errors import UserError

if TYPE_CHECKING:
    from duet.types import Placement, Reduction, VisionStates


class LlavaAdapter(LlamaDecoder):
    """`LlavaForConditionalGeneration` with a CLIP tower and a LLaMA-like text model."""

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

    def encode(self, body: Any, inputs: dict[str, Any], needs: frozenset[str]) -> list[VisionStates]:
        """Encode every picture of the batch, in prompt order."""
        layer = clip.feature_layer(body.config, inputs)
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
        part = units.fill(range(pictures), 0, states[0], reductions[0] if reductions else None, in_place)
        part = replace(part, features=body.multi_modal_projector(part.features))
        return merge_parts([part], [units], inputs.get("attention_mask"))

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
