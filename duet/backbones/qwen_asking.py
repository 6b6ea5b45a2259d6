"""Prompts of Qwen-VL models, and the regions of their visual tokens in pictures and frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from duet.errors import UserError
from duet.text.placeholders import IMAGE, VIDEO, cut, place_media
from duet.types import Region

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from duet.types import Clip

#: Qwen's rule (`qwen_vl_utils`): two frames per second, at least four, an even number. Its maximum is 768.
FRAMES_PER_SECOND, LEAST, MOST = 2, 4, 64


class QwenAsking:
    """The checkpoint's chat template, and one unit per picture and per two frames of a video."""

    takes_videos = True

    def __init__(self, config: Any, processor: Any) -> None:
        self.config, self.processor = config, processor

    def conversation(self, original: str | None = None) -> str:
        """The checkpoint's, even if a benchmark has its own, which is for another family."""
        return "chat_template"

    def prompt(self, question: str, kinds: Sequence[str], original: str | None = None) -> str:
        """The chat template with an open question, pictures and videos before it.

        Raises:
            UserError: the checkpoint has no chat template.
        """
        names = {IMAGE: "image", VIDEO: "video"}
        pieces = cut(place_media(question, kinds, between="")) if kinds else [question]
        content = [{"type": names[p]} if p in names else {"type": "text", "text": p} for p in pieces]
        if getattr(self.processor, "chat_template", None) is None:
            raise UserError("the checkpoint has no chat template (chat_template.json or tokenizer_config.json)")
        turns = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)

    def frames(self, seconds: float) -> int:
        """Two per second, from 4 to 64."""
        return min(max(round(FRAMES_PER_SECOND * seconds) // 2 * 2, LEAST), MOST)

    def encode(self, text: str, media: Sequence[Any]) -> Mapping[str, Tensor]:
        """Processor output of one prompt; frame times go into positions (Qwen2.5-VL) or words (Qwen3-VL)."""
        clips: list[Clip] = [medium for medium in media if hasattr(medium, "frames")]
        pictures = [medium for medium in media if not hasattr(medium, "frames")]
        given: dict[str, Any] = {}
        if clips:
            times = [
                {"total_num_frames": clip.total, "fps": clip.fps, "frames_indices": list(clip.indices)}
                for clip in clips
            ]
            given = {"videos": [clip.frames for clip in clips], "video_metadata": times, "do_sample_frames": False}
        batch = self.processor(text=[text], images=pictures or None, return_tensors="pt", **given)
        # frame times are a list
        return {name: torch.as_tensor(value) for name, value in batch.items()}

    def regions(self, inputs: Mapping[str, Tensor], media: Sequence[Any]) -> list[Region]:
        """Whole pictures, and the first frame of every two."""
        merge = self.config.vision_config.spatial_merge_size
        together = self.config.vision_config.temporal_patch_size
        grids = {name: iter(inputs[name].tolist()) for name in ("image_grid_thw", "video_grid_thw") if name in inputs}
        regions = []
        for number, medium in enumerate(media):
            is_clip = hasattr(medium, "frames")
            times, rows, columns = next(grids["video_grid_thw" if is_clip else "image_grid_thw"])
            grid = (rows // merge, columns // merge)
            if not is_clip:
                regions.append(Region(number, (0, 0, *medium.size), grid))
                continue
            height, width = medium.frames.shape[1:3]
            for time in range(times):
                caption = f"{medium.seconds[time * together]:.1f} s"
                regions.append(Region(number, (0, 0, width, height), grid, caption, time * together))
        return regions
