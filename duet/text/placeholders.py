"""Placeholders in questions: `<image>` and `<video>` mark pictures and videos for every model family."""

from __future__ import annotations

from collections.abc import Sequence

from duet.errors import UserError

IMAGE, VIDEO = "<image>", "<video>"


def place_media(question: str, kinds: Sequence[str], between: str = "\n") -> str:
    """The question with one placeholder per picture and video: its own, or else all of them in front.

    Args:
        question: with a placeholder for each, or with none.
        kinds: `IMAGE` or `VIDEO` for each, in order.
        between: text after each placeholder put in front.

    Raises:
        UserError: the question has placeholders that do not match the pictures and videos.

    >>> place_media("Is it dark?", [IMAGE])
    '<image>\\nIs it dark?'
    """
    own = _find(question)
    if not own:
        return "".join(kind + between for kind in kinds) + question
    if own != list(kinds):
        raise UserError(
            f"the question has {len(own)} placeholder(s) ({', '.join(own)}) for {len(kinds)} picture(s) and video(s) "
            f"({', '.join(kinds) or 'none'}); write one for each, in the order of the files"
        )
    return question


def cut(text: str) -> list[str]:
    """Split the text into placeholders and the text between them.

    >>> cut("<image> or <video>?")
    ['<image>', ' or ', '<video>', '?']
    """
    pieces = text.replace(IMAGE, f"\0{IMAGE}\0").replace(VIDEO, f"\0{VIDEO}\0").split("\0")
    return [piece for piece in pieces if piece]


def _find(question: str) -> list[str]:
    return [piece for piece in cut(question) if piece in (IMAGE, VIDEO)]
