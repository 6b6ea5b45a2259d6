"""API keys: from the environment, a file, or made for one run; compared in constant time, never shown or logged."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from duet.errors import UserError
from duet.serve.errors import ApiError

VARIABLE = "DUET_API_KEY"


class Keys:
    """The accepted keys.

    Args:
        keys: at least one.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        # digests all have the same length, so a comparison does not reveal the key's
        self._digests = [_digest(key.encode()) for key in keys]

    def check(self, authorization: str | None) -> None:
        """Check the header of a request, `Bearer KEY`.

        Raises:
            ApiError: 401; the same for a wrong key and for none.
        """
        scheme, _, key = (authorization or "").partition(" ")
        digest = _digest(key.strip().encode("utf-8", "surrogateescape"))
        found = [hmac.compare_digest(digest, own) for own in self._digests]
        if scheme.lower() != "bearer" or not any(found):
            raise ApiError(401, "this server requires its API key: Authorization: Bearer KEY", code="invalid_api_key")


def read_keys(file: Path | None) -> list[str]:
    """Keys from a file, one per line, or from the environment; none if there is neither.

    Raises:
        UserError: the file is missing or empty, or a key can't be sent.
    """
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--api-key-file {file}: cannot be read: {error}") from None
        keys = [line.strip() for line in lines if line.strip()]
        if not keys:
            raise UserError(f"--api-key-file {file} is empty: write a key into it (openssl rand -hex 32)")
        source = f"--api-key-file {file}"
    else:
        keys, source = [os.environ.get(VARIABLE, "").strip()], VARIABLE
        if not keys[0]:
            return []
    for key in keys:
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise UserError(f"{source} holds a key with characters that can't be sent in a header; make another one")
    return keys


def new_key() -> str:
    """A key for a run that was given none."""
    return secrets.token_urlsafe(24)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
