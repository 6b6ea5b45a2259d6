"""Address and key of the judge. Keys come only from the environment and are never printed or saved."""

from __future__ import annotations

import os

from duet.errors import UserError

KEYS = ("DUET_JUDGE_KEY", "OPENAI_API_KEY")


def endpoint(url: str) -> str:
    """The address of the endpoint, without user, password or query: those hold keys, and results show the address.

    Raises:
        UserError: not an http address, or one with such parts.
    """
    import httpx2

    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UserError(f"--judge-url is not an address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(f"--judge-url {url!r} is not an address: give one like https://api.openai.com/v1")
    if parts.userinfo or parts.query:
        raise UserError(f"--judge-url must hold neither password nor query: give the key in {' or '.join(KEYS)}")
    base = str(parts).rstrip("/")
    return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


def read_key() -> str:
    """The API key from the environment, or empty.

    Raises:
        UserError: it cannot be sent; the message names the variable, not the key.
    """
    for name in KEYS:
        key = os.environ.get(name, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"{name} contains characters that no key has: set it again")
        if key:
            return key
    return ""
