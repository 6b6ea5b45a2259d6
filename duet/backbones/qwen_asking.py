"""Prompts of Qwen-VL models, and the regions of their visual tokens in pictures and frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from duet.errors import UserError
from duet.text.placeholders import IMAGE, VIDEO, cut, place_media
from duet.text.segments import Segment
from duet.types import Region

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from duet.types import Clip

#: Qwen's rule (`qwen_vl_utils`): two frames per second, at least four, an even number. Its maximum is 768.
FRAMES_PER_SECOND, LEAST, MOST = 2, 4, 64
PADS = {IMAGE: "<|image_pad|>", VIDEO: "<|video_pad|>"}
#: Type of a part of a message, for the chat template.
PARTS = {IMAGE: "image", VIDEO: "video"}
CHAT_TEMPLATE = "chat_template"


class QwenAsking:
    """The checkpoint's chat template, and one unit per picture and per two frames of a video."""

    takes_videos = True
    marks = {kind: f"<|vision_start|>{pad}<|vision_end|>" for kind, pad in PADS.items()}  # noqa: RUF012
    between = ""

    def __init__(self, config: Any, processor: Any) -> None:
        self.config, self.processor = config, processor

    def conversation(self, original: str | None = None) -> str:
        """The checkpoint's, even if a benchmark has its own, which is for another family."""
        return CHAT_TEMPLATE

    def prompt(self, question: str, kinds: Sequence[str], original: str | None = None) -> str:
        """The chat template with an open question, pictures and videos before it.

        Raises:
            UserError: the checkpoint has no chat template.
        """
        pieces = cut(place_media(question, kinds, self.between)) if kinds else [question]
        return self._render([_said("user", pieces)], True)

    def text(
        self, turns: Sequence[tuple[str, str | None]], system: str | None = None, version: str | None = None
    ) -> str:
        """A conversation up to where its last answer begins, by the checkpoint's chat template.

        Raises:
            UserError: another prompt format, or no chat template.
        """
        messages = self._opening(system, version)
        for question, answer in turns:
            messages.append(_said("user", cut(question)))
            if answer is not None:
                messages.append(_said("assistant", [answer]))
        return self._render(messages, True)

    def segments(
        self, turns: Sequence[tuple[str, str | None]], system: str | None = None, version: str | None = None
    ) -> list[Segment]:
        """A conversation in pieces, by the checkpoint's chat template; an answer is learned up to `<|im_end|>`.

        Raises:
            UserError: another prompt format, no chat template, or one that rewrites earlier messages.
        """
        messages = self._opening(system, version)
        pieces: list[Segment] = []
        text = ""
        for question, answer in turns:
            messages.append(_said("user", cut(question)))
            text, added = self._grown(text, messages, True)
            pieces.append(Segment(added, False))
            if answer is not None:
                messages.append(_said("assistant", [answer]))
                text, added = self._grown(text, messages, False)
                learned = added.rstrip("\n")
                pieces += [Segment(learned, True), Segment(added[len(learned) :], False)]
        return pieces

    @staticmethod
    def _opening(system: str | None, version: str | None) -> list[dict[str, Any]]:
        if version not in (None, CHAT_TEMPLATE):
            raise UserError(f"the prompt format of Qwen models is the checkpoint's chat template, not {version}")
        return [] if system is None else [_said("system", [system])]

    def _grown(self, before: str, messages: list[dict[str, Any]], open_answer: bool) -> tuple[str, str]:
        """The text of all messages, and what the last one added to it."""
        text = self._render(messages, open_answer)
        if not text.startswith(before):
            raise UserError("the checkpoint's chat template rewrites earlier messages: answers cannot be told apart")
        return text, text[len(before) :]

    def _render(self, messages: list[dict[str, Any]], open_answer: bool) -> str:
        if getattr(self.processor, "chat_template", None) is None:
            raise UserError("the checkpoint has no chat template (chat_template.json or tokenizer_config.json)")
        return self.processor.apply_chat_template(messages, add_generation_prompt=open_answer, tokenize=False)

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


def _said(role: str, pieces: Sequence[str]) -> dict[str, Any]:
    """A message of texts and placeholders."""
    parts = [{"type": PARTS[piece]} if piece in PARTS else {"type": "text", "text": piece} for piece in pieces]
    return {"role": role, "content": parts}
