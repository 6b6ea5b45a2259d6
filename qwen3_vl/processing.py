"""Processor of Qwen3-VL that does without torchvision, see `duet/checkpoints/qwen.py`.

The limits of a video's size are of all its frames together, and its prompt tells the time of every two frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.image_processing_backends import PilBackend
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
from transformers.models.qwen3_vl import processing_qwen3_vl
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

from duet.checkpoints.qwen import GivenParts, Qwen2VLVideoProcessor

#: Of videos whose checkpoint has no settings: the stock video processor's, in pixels of all frames.
VIDEO_SIZE = {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32}


class Qwen3VLVideoProcessor(Qwen2VLVideoProcessor):
    """Frames to patches of two frames each; limits are of all frames of a video together."""

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
        """To what `frame_size` says; the limits of the base class are those of a picture."""
        return PilBackend.resize(self, image=image, size=size, resample=resample)


class Qwen3VLProcessor(GivenParts, processing_qwen3_vl.Qwen3VLProcessor):
    """Stock but for its parts."""

    vision_start_token, vision_end_token = "<|vision_start|>", "<|vision_end|>"
