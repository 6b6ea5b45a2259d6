"""Prompts of LLaVA-1.5 (LLaVA-NeXT: `duet/llava/next_asking.py`), and the picture regions of its patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duet.backbones.regions import square_regions
from duet.llava.prompts import conversation_of, template
from duet.text.placeholders import IMAGE, place_media

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from duet.text.segments import Segment
    from duet.types import Region


class LlavaAsking:
    """LLaVA-1.5: one unit per picture."""

    takes_videos = False
    marks = {IMAGE: IMAGE}  # noqa: RUF012
    between = "\n"

    def __init__(self, config: Any, processor: Any) -> None:
        self.config, self.processor = config, processor

    def conversation(self, original: str | None = None) -> str:
        """The checkpoint's; on Vicuna the benchmark's own if it has one, since those were written for Vicuna."""
        own = conversation_of(self.config, self.processor.tokenizer)
        return original if original and own == "vicuna_v1" else own

    def prompt(self, question: str, kinds: Sequence[str], original: str | None = None) -> str:
        """The conversation with an open question, each picture on its own line before it."""
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
        """0: this family takes no videos."""
        return 0

    def encode(self, text: str, media: Sequence[Any]) -> Mapping[str, Tensor]:
        """Processor output of one prompt."""
        return dict(self.processor(text=[text], images=list(media) or None, return_tensors="pt"))

    def regions(self, inputs: Mapping[str, Tensor], media: Sequence[Any]) -> list[Region]:
        """The padded or cropped square of each picture."""
        vision = self.config.vision_config
        return square_regions(media, self.processor.image_processor, vision.image_size // vision.patch_size)
