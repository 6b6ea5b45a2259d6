"""Shared loading of Qwen-VL models: weights, and a processor without torchvision.

The processor is the stock class with the PIL image processor and a PIL one for video frames, also where torchvision is
installed: transformers has no video processor for PIL. Prompt expansion, chat templates and token types use the stock
code, so tokens are identical; pixels differ from torchvision's by rounding. A video is a list of RGB pictures or an
array `[T, H, W, 3]` of already sampled frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import AutoConfig, AutoTokenizer, BatchFeature
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.video_utils import make_batched_metadata, make_batched_videos

from duet.checkpoints.assemble import Parts, assemble
from duet.checkpoints.files import CheckpointError, read_json, read_tensors, resolve_folder, weight_files
from duet.checkpoints.options import LoadOptions, check_options
from duet.checkpoints.sanity import check_pixels, read_config, read_generation
from duet.files import blame

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

#: For checkpoints without video settings: the stock video processor's limits.
VIDEO_SIZE = {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28}


class Qwen2VLVideoProcessor(Qwen2VLImageProcessorPil):
    """Turns frames into patches of two frames each; an odd last frame is repeated."""

    size = VIDEO_SIZE
    model_input_names = ["pixel_values_videos", "video_grid_thw"]  # noqa: RUF012 - the base class's convention
    #: Name of the stock class.
    stock_name = "Qwen2VLVideoProcessor"

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
            video_metadata: for each video, `fps` and `total_num_frames` of the source, for the frame times.
            return_metadata: return the metadata, as the stock processor requests.
            do_sample_frames: not supported: sample frames first.
            return_tensors: `pt`, `np` or None.
            kwargs: for the image processor.

        Raises:
            ValueError: sampling is requested, or a video is a file name.
        """
        if do_sample_frames:
            raise ValueError("sampling frames needs torchvision: pass frames that are already sampled")
        batch: Any = make_batched_videos(videos)
        if any(isinstance(video, str) for video in batch):
            raise ValueError("reading video files needs torchvision: pass frames, e.g. read by duet.data.video")
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
        size = self.frame_size((len(pictures), *pictures[0].shape), kwargs)
        sized = {} if size is None else {"size": size}
        pictures += pictures[-1:] * (-len(pictures) % together)
        kwargs = {**kwargs, **sized, "temporal_patch_size": 1, "return_tensors": "np"}
        single = super().__call__(pictures, **kwargs)
        grid = single["image_grid_thw"][0]
        times = len(pictures) // together
        patches = single["pixel_values"].reshape(times, together, grid[1] * grid[2], 3, -1)
        patches = patches.transpose(0, 2, 3, 1, 4).reshape(times * grid[1] * grid[2], -1)
        return patches, [times, int(grid[1]), int(grid[2])]

    def frame_size(self, shape: tuple[int, ...], given: Mapping[str, Any]) -> dict[str, int] | None:
        """Height and width to resize frames to; None: each frame has the limits of a picture.

        Args:
            shape: frames, height, width and channels of the video.
            given: arguments of the call, which override the checkpoint's settings.
        """
        return None

    def to_dict(self) -> dict[str, Any]:
        """Settings under the stock class's name."""
        settings = super().to_dict()
        settings.pop("image_processor_type", None)
        return {**settings, "video_processor_type": self.stock_name}


class GivenParts:
    """Uses the given parts directly; the stock constructor would look for a torchvision class."""

    def __init__(self, image_processor: Any, tokenizer: Any, video_processor: Any, chat_template: Any = None) -> None:
        self.image_processor, self.tokenizer, self.video_processor = image_processor, tokenizer, video_processor
        self.chat_template = chat_template
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)


@dataclass(frozen=True)
class Kind:
    """Classes of a `model_type`: model, processor without torchvision, and video processor."""

    model: type[PreTrainedModel]
    processor: Callable[..., ProcessorMixin]
    frames: type[Qwen2VLVideoProcessor] = Qwen2VLVideoProcessor


def load_qwen(path_or_id: str | Path, kinds: Mapping[str, Kind], options: LoadOptions) -> tuple[Any, Any]:
    """Model (in eval mode) and processor.

    Args:
        path_or_id: local folder (nothing is downloaded) or hub id.
        kinds: by `model_type`.
        options: see `LoadOptions`.

    Raises:
        CheckpointError: another family, incomplete or damaged; the message gives details.
        UserError: unknown option.
    """
    check_options(options, LoadOptions)
    folder = resolve_folder(path_or_id, revision=options.get("revision"))
    family = str(read_config(folder).get("model_type"))
    if family not in kinds:
        raise CheckpointError(f"{folder} holds a model of type {family!r}; supported are {', '.join(kinds)}")
    settings = read_config(folder, "vision_config")
    if "text_config" not in settings and "hidden_size" not in settings:  # on the hub its entries are at the top level
        raise CheckpointError(f"{folder / 'config.json'} does not say how large the language model is (hidden_size)")
    with blame(folder / "config.json", CheckpointError):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    processor: Any = read_processor(folder, kinds[family])
    for name in ("image_token_id", "video_token_id"):
        has, wants = getattr(processor, name), getattr(config, name)
        if has != wants:
            raise CheckpointError(f"the tokenizer in {folder} has {name} {has}, config.json says {wants}")
    parts = Parts(
        kinds[family].model,
        config,
        read_tensors(weight_files(folder)),
        processor,
        read_generation(folder),
    )
    return assemble(parts, folder, options), parts.processor


def read_processor(folder: Path, kind: Kind) -> ProcessorMixin:
    """Processor of a checkpoint.

    Args:
        folder: contains the tokenizer, preprocessor_config.json and, for videos, video_preprocessor_config.json.
        kind: its classes.

    Raises:
        CheckpointError: files are missing.
    """
    with blame(f"{folder} has no complete processor", CheckpointError):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        pictures = Qwen2VLImageProcessorPil.from_pretrained(folder)
        frames = kind.frames(**_video_settings(folder))
        processor = kind.processor(pictures, tokenizer, frames, chat_template=tokenizer.chat_template)
    check_pixels(processor.image_processor, folder)
    return processor


def _video_settings(folder: Path) -> dict[str, Any]:
    """The settings that the stock video processor would read."""
    whole = folder / "processor_config.json"
    settings = read_json(whole).get("video_processor") if whole.exists() else None
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        if settings is None and (folder / name).exists():
            settings = read_json(folder / name)
    own = ("image_processor_type", "video_processor_type", "processor_class")
    return {key: value for key, value in (settings or {}).items() if key not in own}
