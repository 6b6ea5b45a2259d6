"""Prompts of Video-LLaVA, and the regions of its visual tokens in pictures and frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duet.backbones.regions import square_regions
from duet.llava.prompts import template
from duet.text.placeholders import IMAGE, VIDEO, place_media

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from duet.text.segments import Segment
    from duet.types import Region

#: Frames per video that the released model was trained on.
FRAMES = 8


class VideoLlavaAsking:
    """`vicuna_v1`, as in training, and one unit per picture and frame."""

    takes_videos = True
    marks = {IMAGE: IMAGE, VIDEO: VIDEO}  # noqa: RUF012
    between = "\n"

    def __init__(self, config: Any, processor: Any) -> None:
        self.config, self.processor = config, processor

    def conversation(self, original: str | None = None) -> str:
        """The benchmark's own conversation if it has one: those were written for this family."""
        return original or "vicuna_v1"

    def prompt(self, question: str, kinds: Sequence[str], original: str | None = None) -> str:
        """The conversation with an open question, each picture and video on its own line before it.

        A video has one placeholder for all its frames; the original writes one `<image>` per frame.
        """
        turns = [(place_media(question, kinds, self.between), None)]
        return self.text(turns, version=self.conversation(original))

    def text(
        self, turns: Sequence[tuple[str, str | None]], system: str | None = None, version: str | None = None
    ) -> str:
        """A conversation up to where its last answer begins, as one text."""
        return "".join(piece.text for piece in self.segments(turns, system, version))

    def segments(
        self, turns: Sequence[tuple[str, str | None]], system: str | None = None, version: str | None = None
    ) -> list[Segment]:
        """A conversation in pieces, by one of `duet.llava.prompts.TEMPLATES`."""
        return template(version or self.conversation())(turns, system=system)

    def frames(self, seconds: float) -> int:
        """Eight, for any length."""
        return FRAMES

    def encode(self, text: str, media: Sequence[Any]) -> Mapping[str, Tensor]:
        """Processor output of one prompt."""
        clips = [medium.frames for medium in media if hasattr(medium, "frames")]
        pictures = [medium for medium in media if not hasattr(medium, "frames")]
        return dict(self.processor(text=[text], images=pictures or None, videos=clips or None, return_tensors="pt"))

    def regions(self, inputs: Mapping[str, Tensor], media: Sequence[Any]) -> list[Region]:
        """The central square of each picture and frame."""
        vision = self.config.vision_config
        return square_regions(media, self.processor.image_processor, vision.image_size // vision.patch_size)
