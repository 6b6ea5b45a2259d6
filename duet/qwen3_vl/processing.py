"""Processor of Qwen3-VL without torchvision, see `duet/checkpoints/qwen.py`.

Size limits are for all frames of a video together, and the prompt gives the time of every two frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.image_processing_backends import PilBackend
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
from transformers.models.qwen3_vl import processing_qwen3_vl
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

from duet.checkpoints.qwen import GivenParts, Qwen2VLVideoProcessor

#: For checkpoints without video settings: the stock video processor's limits, in pixels of all frames.
VIDEO_SIZE = {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32}


class Qwen3VLVideoProcessor(Qwen2VLVideoProcessor):
    """Turns frames into patches of two frames each; size limits are for all frames of a video together."""

    size = VIDEO_SIZE
    patch_size = 16
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    stock_name = "Qwen3VLVideoProcessor"

    def frame_size(self, shape: tuple[int, ...], given: Mapping[str, Any]) -> dict[str, int]:
        """Height and width that give whole visual tokens, as many as the pixels of all frames allow."""
        size = given.get("size", self.size)
        together = given.get("temporal_patch_size", self.temporal_patch_size)
        rows, columns = smart_resize(
            num_frames=max(shape[0], together),
            height=shape[1],
            width=shape[2],
            temporal_factor=together,
            factor=given.get("patch_size", self.patch_size) * given.get("merge_size", self.merge_size),
            min_pixels=size["shortest_edge"],
            max_pixels=size["longest_edge"],
        )
        return {"height": rows, "width": columns}

    def resize(self, image: Any, size: Any, resample: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Resize to `frame_size`; the base class would apply the limits of a picture."""
        return PilBackend.resize(self, image=image, size=size, resample=resample)


class Qwen3VLProcessor(GivenParts, processing_qwen3_vl.Qwen3VLProcessor):
    """The stock processor with our parts."""

    vision_start_token, vision_end_token = "<|vision_start|>", "<|vision_end|>"
