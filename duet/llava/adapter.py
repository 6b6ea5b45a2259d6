"""LLaVA-1.5 for the engine: where `LlavaForConditionalGeneration` keeps its parts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from duet.backbones import clip
from duet.backbones.placement import Units, merge_parts, on_host
from duet.errors import UserError
from duet.ops.regions import project
from duet.types import Unit

if TYPE_CHECKING:
    from torch import Tensor

    from duet.types import Placement, Reduction, VisionStates


class LlavaVision:
    """The vision side of `LlavaForConditionalGeneration` with a CLIP tower (`VisionSide`)."""

    provides = clip.PROVIDES
    scores = ("cls_row", "column_mean")
    capped = False
    pixel_names = ("pixel_values",)
    switches: ClassVar[dict[str, tuple[str, ...]]] = {}

    def body(self, model: Any) -> Any:
        """`LlavaModel`.

        Raises:
            UserError: its tower is not CLIP (Pixtral and SigLIP models use the same class).
        """
        tower = model.config.vision_config.model_type
        if tower != "clip_vision_model":
            raise UserError(f"the vision tower is {tower}; compression of LLaVA-1.5 needs clip_vision_model")
        return model.model

    def encode(self, body: Any, inputs: dict[str, Any], needs: frozenset[str]) -> list[VisionStates]:
        """Encode every picture of the batch, in prompt order."""
        layer = clip.feature_layer(body.config, inputs)
        return [clip.encode(body.vision_tower, inputs["pixel_values"], layer, needs)]

    def units(self, body: Any, inputs: dict[str, Any], states: list[VisionStates]) -> list[list[Unit]]:
        """One unit per picture."""
        rows = self.rows_of_pixels(body, inputs)["pixel_values"]
        numbers = [row for row, count in enumerate(rows) for _ in range(count)]
        return [[Unit(row, medium) for medium, row in enumerate(numbers)]]

    def project(self, body: Any, features: Tensor) -> Tensor:
        """`[B, N, D] -> [B, N, P]`."""
        return project(body.multi_modal_projector, features)["features"]

    def placeholders(self, body: Any, input_ids: Tensor) -> Tensor:
        """`[B, T]` bool."""
        return input_ids == body.config.image_token_id

    def place(
        self,
        body: Any,
        inputs: dict[str, Any],
        states: list[VisionStates],
        reductions: list[Reduction] | None,
        in_place: bool,
    ) -> Placement:
        """Put pictures in the order of their placeholders; the projector runs after merging."""
        rows = self.rows_of_pixels(body, inputs)["pixel_values"]
        pictures = len(states[0].features)
        if sum(rows) != pictures:
            raise ValueError(f"the prompt rows have placeholders for {rows} pictures, but got {pictures} pictures")
        sizes = [self._size(body)] * pictures
        units = Units(self.placeholders(body, on_host(inputs, "input_ids")), sizes, inputs["input_ids"].device)
        reduction = reductions[0] if reductions else None
        part = units.fill(range(pictures), 0, states[0], reduction, in_place)
        if reduction is None or not reduction.projected:
            part = replace(part, features=self.project(body, part.features))
        return merge_parts([part], [units], inputs.get("attention_mask"))

    def rows_of_pixels(self, body: Any, inputs: dict[str, Any]) -> dict[str, list[int]]:
        """Number of pictures in each prompt row, from its placeholders.

        Raises:
            ValueError: a row's placeholders do not make a whole number of pictures.
        """
        size = self._size(body)
        counts = self.placeholders(body, on_host(inputs, "input_ids")).sum(1).tolist()
        if any(count % size for count in counts):
            raise ValueError(
                f"the prompt rows hold {counts} image placeholders, but a picture has {size}; "
                "make prompt and pixel_values with the same processor"
            )
        return {"pixel_values": [count // size for count in counts]}

    def _size(self, body: Any) -> int:
        vision = body.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return patches + (body.config.vision_feature_select_strategy == "full")
