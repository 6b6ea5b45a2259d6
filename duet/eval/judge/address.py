"""Where the judge is and which key opens it. Keys come from the environment only and are never shown or written."""

from __future__ import annotations

import os

from duet.errors import UserError

KEYS = ("DUET_JUDGE_KEY", "OPENAI_API_KEY")


def endpoint(url: str) -> str:
    """The address that requests go to, without user, password or query: those hold keys, and results show the address.

    Raises:
        UserError: not an http address, or one with such parts.
    """
    import httpx2

    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UserError(f"--judge-url is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(f"--judge-url {url!r} is no address: give one like https://api.openai.com/v1")
    if parts.userinfo or parts.query:
        raise UserError(f"--judge-url must hold neither password nor query: give the key in {' or '.join(KEYS)}")
    base = str(parts).rstrip("/")
    return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


def read_key() -> str:
    """The API key from the environment; empty where there is none.

    Raises:
        UserError: it can't be sent; the message names the variable, not the key.
    """
    for name in KEYS:
        key = os.environ.get(name, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"{name} holds characters that no key has: set it anew")
        if key:
            return key
    return ""
