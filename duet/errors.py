"""The exception that the command line prints without a traceback, and suggestions for its messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake of the user: the message names the value or file, the limit, and what to do about it."""


def suggest(name: str, known: Iterable[str]) -> str:
    """End of a message about an unknown name: the nearest known names, or all of them."""
    known = list(known)
    near = get_close_matches(name, known)
    return f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}"
