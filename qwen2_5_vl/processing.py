"""Qwen's processor without torchvision: the stock class with the PIL image processor and a PIL one for video frames.

Prompt expansion, chat templates and token types are the stock code, so tokens are equal by construction; pixels differ
from the torchvision ones by rounding. Where torchvision is installed, the stock processor is used as it is, with the
PIL image processor. A video is a list of RGB pictures or an array `[T, H, W, 3]` of frames that are sampled already.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import AutoProcessor, AutoTokenizer, BatchFeature
from transformers.models.qwen2_5_vl import processing_qwen2_5_vl
from transformers.models.qwen2_vl import processing_qwen2_vl
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import is_torchvision_available
from transformers.video_utils import make_batched_metadata, make_batched_videos

from duet.checkpoints.files import CheckpointError, read_json
from duet.checkpoints.sanity import check_pixels
from duet.files import blame

if TYPE_CHECKING:
    from transformers import ProcessorMixin

#: Of frames whose checkpoint has no settings for videos: the stock video processor's.
VIDEO_SIZE = {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28}


class Qwen2VLVideoProcessor(Qwen2VLImageProcessorPil):
    """Frames to patches of two frames each; resized one by one, the last frame repeated where one is missing."""

    size = VIDEO_SIZE
    model_input_names = ["pixel_values_videos", "video_grid_thw"]  # noqa: RUF012 - the base class's convention

    def __call__(  # type: ignore[override]
        self,
        videos: Any,
        *,
        video_metadata: Any = None,
        return_metadata: bool = False,
        do_sample_frames: bool | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Patches `[patches, values]` and grids `[M, 3]` of all videos.

        Args:
            videos: one or several videos.
            video_metadata: per video, `fps` and `total_num_frames` of the source, for the times of the frames.
            return_metadata: hand the metadata out, as the stock processor asks for.
            do_sample_frames: not offered: sample before.
            return_tensors: `pt`, `np` or None.
            kwargs: of the image processor.

        Raises:
            ValueError: frames are to be sampled here, or a video is a file name.
        """
        if do_sample_frames:
            raise ValueError("sampling frames needs torchvision: hand over the frames that are to be seen")
        batch: Any = make_batched_videos(videos)
        if any(isinstance(video, str) for video in batch):
            raise ValueError("reading video files needs torchvision: hand over frames, e.g. read by duet.data.video")
        made = [self._patches(video, kwargs) for video in batch]
        data: dict[str, Any] = {
            "pixel_values_videos": np.concatenate([patches for patches, _ in made]),
            "video_grid_thw": np.array([grid for _, grid in made]),
        }
        result = BatchFeature(data, tensor_type=return_tensors)
        if return_metadata:
            result["video_metadata"] = make_batched_metadata(batch, video_metadata)
        return result

    def _patches(self, frames: Any, kwargs: dict[str, Any]) -> tuple[np.ndarray, list[int]]:
        pictures = [np.asarray(frame) for frame in frames]
        together = kwargs.get("temporal_patch_size", self.temporal_patch_size)
        pictures += pictures[-1:] * (-len(pictures) % together)
        kwargs = {**kwargs, "temporal_patch_size": 1, "return_tensors": "np"}
        single = super().__call__(pictures, **kwargs)
        grid = single["image_grid_thw"][0]
        times = len(pictures) // together
        patches = single["pixel_values"].reshape(times, together, grid[1] * grid[2], 3, -1)
        patches = patches.transpose(0, 2, 3, 1, 4).reshape(times * grid[1] * grid[2], -1)
        return patches, [times, int(grid[1]), int(grid[2])]

    def to_dict(self) -> dict[str, Any]:
        """Settings under the stock class's name."""
        settings = super().to_dict()
        settings.pop("image_processor_type", None)
        return {**settings, "video_processor_type": "Qwen2VLVideoProcessor"}


class _Parts:
    """Takes the parts as they are; the stock constructor would look for a torchvision class."""

    def __init__(self, image_processor: Any, tokenizer: Any, video_processor: Any, chat_template: Any = None) -> None:
        self.image_processor, self.tokenizer, self.video_processor = image_processor, tokenizer, video_processor
        self.chat_template = chat_template
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)


class Qwen2_5_VLProcessor(_Parts, processing_qwen2_5_vl.Qwen2_5_VLProcessor):
    """Stock but for its parts."""


class Qwen2VLProcessor(_Parts, processing_qwen2_vl.Qwen2VLProcessor):
    """Stock but for its parts."""


def read_processor(folder: Path, model_type: str) -> ProcessorMixin:
    """Processor of a checkpoint.

    Args:
        folder: with tokenizer, preprocessor_config.json and, for videos, video_preprocessor_config.json.
        model_type: `qwen2_5_vl` or `qwen2_vl`.

    Raises:
        CheckpointError: files are missing.
    """
    with blame(f"{folder} has no complete processor", CheckpointError):
        if is_torchvision_available():
            processor = AutoProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
        else:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            pictures = Qwen2VLImageProcessorPil.from_pretrained(folder)
            kind = Qwen2_5_VLProcessor if model_type == "qwen2_5_vl" else Qwen2VLProcessor
            processor = kind(pictures, tokenizer, _video_processor(folder), chat_template=tokenizer.chat_template)
    check_pixels(processor.image_processor, folder)
    return processor


def _video_processor(folder: Path) -> Qwen2VLVideoProcessor:
    """With the settings that the stock video processor would read."""
    whole = folder / "processor_config.json"
    settings = read_json(whole).get("video_processor") if whole.exists() else None
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        if settings is None and (folder / name).exists():
            settings = read_json(folder / name)
    own = ("image_processor_type", "video_processor_type", "processor_class")
    return Qwen2VLVideoProcessor(**{key: value for key, value in (settings or {}).items() if key not in own})
