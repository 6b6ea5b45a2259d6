"""How questions are put, where that differs from the family's own way: a prompt template, frames per second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from duet.data.video import frames_at
from duet.errors import UserError
from duet.interfaces import Asking
from duet.text.placeholders import IMAGE, VIDEO, place_media

#: Where the question stands in a template.
QUESTION = "{question}"


@dataclass(frozen=True)
class PromptStyle:
    """Settings of prompts; the default is the family's own way.

    Attributes:
        template: the whole prompt with `{question}` in it, e.g. `USER: {question} ASSISTANT:`. Pictures and videos
            stand before the question, or at their placeholders in it. The begin token comes from the tokenizer.
        fps: frames per second of a video, at least one frame; None: the family's rule.

    Raises:
        UserError: a template without one `{question}`, or a rate that is no positive number.
    """

    template: str | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.template is not None and self.template.count(QUESTION) != 1:
            raise UserError(f"the template {self.template[:80]!r} needs {QUESTION} once, where the question goes")
        if self.template is not None and (IMAGE in self.template or VIDEO in self.template):
            raise UserError(f"the template has {IMAGE} or {VIDEO}: leave them out, they are put before the question")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise UserError(f"fps is {self.fps}; give a positive number of frames per second")

    def prompt(self, asking: Asking, question: str, kinds: Sequence[str], original: str | None = None) -> str:
        """The text for the processor; arguments as of `Asking.prompt`."""
        if self.template is None:
            return asking.prompt(question, kinds, original)
        placed = place_media(question, kinds, asking.between)
        for kind, mark in asking.marks.items():
            placed = placed.replace(kind, mark)
        return self.template.replace(QUESTION, placed)

    def frames(self, asking: Asking) -> Callable[[float], int]:
        """Seconds of a video -> number of frames."""
        return asking.frames if self.fps is None else frames_at(self.fps)

    def settings(self) -> dict[str, Any]:
        """What differs from the default, for the header of results."""
        return {name: value for name, value in vars(self).items() if value is not None}


#: The family's own way.
OWN = PromptStyle()
