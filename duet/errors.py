"""The one exception that the command line prints without a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user: the message names the value or file, the limit, and what to do about it."""
