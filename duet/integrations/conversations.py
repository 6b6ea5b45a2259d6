"""lmms-eval's questions, in both of its forms, as prompts of a model's family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from duet.data.pictures import open_picture, to_rgb
from duet.data.video import read_clip
from duet.errors import UserError
from duet.text.placeholders import IMAGE, VIDEO

if TYPE_CHECKING:
    from duet.interfaces import Asking


@dataclass(frozen=True)
class Question:
    """A prompt with its pictures and videos, in order."""

    text: str
    media: tuple[Any, ...]


def simple_question(asking: Asking, context: str, visuals: Any) -> Question:
    """From a text and its visuals: pictures, paths of videos, or None.

    Raises:
        UserError: something else among the visuals, or videos for a model that takes none.
    """
    given = visuals if isinstance(visuals, (list, tuple)) else [visuals]
    media = tuple(_open(one, asking) for one in given if one is not None)
    return Question(asking.prompt(context, [kind for kind, _ in media]), tuple(one for _, one in media))


def chat_question(asking: Asking, messages: Sequence[Mapping[str, Any]]) -> Question:
    """From messages: at most one of the system, then user and assistant in turns, user last.

    Pictures before or after the text of a turn come first, as these models were trained; within it they stay.

    Raises:
        UserError: another order, audio, or videos for a model that takes none.
    """
    system = None
    turns = list(messages)
    if turns and turns[0]["role"] == "system":
        system = "".join(part["text"] for part in _parts(turns.pop(0)))
    expected = ["assistant" if number % 2 else "user" for number in range(len(turns))]
    if [turn["role"] for turn in turns] != expected or len(turns) % 2 == 0:
        raise UserError("messages must be at most one of the system, then user and assistant in turns, user last")
    media: list[Any] = []
    texts = [_written(_parts(turn), asking, media) for turn in turns]
    if len(texts) == 1 and system is None:
        kinds = [IMAGE if isinstance(one, Image.Image) else VIDEO for one in media]
        return Question(asking.prompt(texts[0], kinds), tuple(media))
    pairs = [*zip(texts[::2], texts[1::2], strict=False), (texts[-1], None)]
    return Question(asking.text(pairs, system), tuple(media))


def _parts(turn: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = turn["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _written(parts: list[Mapping[str, Any]], asking: Asking, media: list[Any]) -> str:
    """The text of a turn with placeholders; its pictures and videos are appended to `media`."""
    texts = [number for number, part in enumerate(parts) if part["type"] == "text"]
    if texts and texts[-1] - texts[0] + 1 == len(texts):
        parts = sorted(parts, key=lambda part: part["type"] == "text")
    pieces = []
    for part in parts:
        if part["type"] == "text":
            pieces.append(part["text"])
        elif part["type"] in ("image", "video"):
            kind, one = _open(part.get("url", part.get(part["type"])), asking)
            media.append(one)
            pieces.append(kind + asking.between)
        else:
            raise UserError(f"a message holds {part['type']}; only text, pictures and videos are supported")
    return "".join(pieces)


def _open(visual: Any, asking: Asking) -> tuple[str, Any]:
    """The placeholder of a picture or video, and what it holds."""
    if isinstance(visual, Image.Image):
        return IMAGE, to_rgb(visual, "a picture of the task")
    if isinstance(visual, np.ndarray) and visual.ndim == 3:
        return IMAGE, Image.fromarray(visual).convert("RGB")
    if isinstance(visual, (str, Path)):
        path = Path(visual)
        if path.suffix.lower() in Image.registered_extensions():
            return IMAGE, open_picture(path)
        if not asking.takes_videos:
            raise UserError(f"{path} is a video; this model takes only pictures")
        return VIDEO, read_clip(path, asking.frames)
    raise UserError(f"a task's visual is {type(visual).__name__}; only pictures and paths of videos are supported")
