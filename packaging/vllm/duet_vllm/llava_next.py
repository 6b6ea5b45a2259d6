"""LLaVA-NeXT in vLLM with stage 1 on every crop, without its padding."""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from vllm.model_executor.models.llava import LlavaDummyInputsBuilder
from vllm.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    LlavaNextMultiModalProcessor,
    LlavaNextProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from duet.backbones import clip
from duet.errors import UserError
from duet.llava.anyres import Picture, group_crops, lay_out
from duet.types import Unit
from duet_vllm.checks import check_settings
from duet_vllm.llava import check_tower, deepen_tower, feature_layer, older_names
from duet_vllm.plan import Plan, read_plan
from duet_vllm.reduce import check_count, reduce
from duet_vllm.towers import ClipTower

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor


def side(config: Any) -> int:
    """Side of a crop in patches."""
    return config.vision_config.image_size // config.vision_config.patch_size


def layout(config: Any, height: int, width: int) -> Picture:
    """Crops and newlines of a picture of this size in pixels."""
    pinpoints = tuple((high, wide) for high, wide in config.image_grid_pinpoints)
    return lay_out((height, width), pinpoints, config.vision_config.image_size, side(config))


def count(plan: Plan, picture: Picture) -> int:
    """Placeholders of a picture: what stage 1 leaves of each crop, and the newlines."""
    sizes = [len(crop.rows) * len(crop.columns) for crop in picture.crops]
    return plan.count(sizes) + (len(picture.newlines) if plan.vision.newlines == "keep" else 0)


class Info(LlavaNextProcessingInfo):
    """Counts the placeholders that stage 1 leaves."""

    @cached_property
    def plan(self) -> Plan:
        """Read once per process."""
        config = self.get_hf_config()
        check_tower(config)
        if config.vision_feature_select_strategy != "default":
            raise UserError("vision_feature_select_strategy must be 'default': LLaVA-NeXT's tiles have no CLS")
        return read_plan(config)

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        """By the picture's own size, which decides its crops."""
        return count(self.plan, layout(self.get_hf_config(), image_height, image_width))


@MULTIMODAL_REGISTRY.register_processor(LlavaNextMultiModalProcessor, info=Info, dummy_inputs=LlavaDummyInputsBuilder)
class DuetLlavaNextForConditionalGeneration(LlavaNextForConditionalGeneration):
    """The stock model; pictures leave it with fewer tokens."""

    supports_encoder_tp_data = True  # every rank runs the whole tower

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        check_settings(vllm_config)
        check_tower(vllm_config.model_config.hf_config)
        plan = read_plan(vllm_config.model_config.hf_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.plan = plan
        deepen_tower(self, plan, vllm_config, prefix)

    def _process_image_input(self, image_input: Any) -> list[Tensor]:
        """The tokens of each picture, `[K, D]`."""
        sizes = image_input["image_sizes"].tolist()
        pictures = [layout(self.config, height, width) for height, width in sizes]
        pixels = [crops[: picture.count] for crops, picture in zip(image_input["pixel_values"], pictures, strict=True)]
        tower = ClipTower(self.vision_tower.vision_model)
        found = []
        for crops, picture, size in zip(pixels, pictures, sizes, strict=True):
            whole = clip.encode_in_chunks(tower, crops, feature_layer(self.config), self.plan.tower_needs())
            found.append(self._tokens(whole, crops, picture, size))
        return found

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """With the names of old and new checkpoints."""
        return super().load_weights(older_names(weights))

    def _tokens(self, whole: Any, crops: Tensor, picture: Picture, size: Sequence[int]) -> Tensor:
        """One picture's tokens in released order, newlines among them."""
        groups, _ = group_crops([picture], side(self.config))
        states = [clip.cut(whole, group.crops, group.patches, group.grid) for group in groups]
        offsets = {crop.number: crop.offset for crop in picture.crops}
        units = [
            [Unit(0, 0, "tile" if tile else "whole", tile, offsets[tile]) for tile in group.tiles.tolist()]
            for group in groups
        ]
        reductions = reduce(self.plan, states, units, self.multi_modal_projector)
        body = SimpleNamespace(
            config=SimpleNamespace(
                image_token_id=1,
                vision_config=self.config.vision_config,
                image_grid_pinpoints=self.config.image_grid_pinpoints,
            ),
            multi_modal_projector=self.multi_modal_projector,
            image_newline=self.image_newline,
        )
        ids = torch.ones(1, picture.size, dtype=torch.long, device=crops.device)
        inputs = {"input_ids": ids, "pixel_values": crops[None], "image_sizes": torch.tensor([size])}
        placement = self.plan.vision.place(body, inputs, states, reductions, in_place=False)
        width = self.image_newline.shape[-1]
        embeds = crops.new_zeros(picture.size, width, dtype=self.image_newline.dtype)
        for part in placement.parts:
            embeds = embeds.masked_scatter(part.mask[0, :, None], part.features.to(embeds.dtype))
        tokens = embeds[placement.layout.filled[0]]
        check_count(self.plan, len(tokens), count(self.plan, picture))
        return tokens
