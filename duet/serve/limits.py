"""Limits of a request. Most have an option of `duet serve`."""

from __future__ import annotations

from dataclasses import dataclass

MEGA = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Anything above a limit is refused before it is read, decoded or computed.

    Attributes:
        body: bytes of a request.
        bodies: bytes of all requests whose bodies are in memory at a time.
        medium: bytes of one picture or video, decoded from base64 or fetched.
        media: pictures and videos of a request.
        pixels: of all pictures and sampled frames of a request together.
        side: pixels along the longer side of a picture or frame, which processors pad to a square.
        frames: sampled per video, at most; caps the model's own rule.
        video: frames that a video file may have, because all have to be decoded.
        text: characters of all messages together.
        messages: of a request.
        new_tokens: of an answer, also the default.
        queue: requests being read, prepared or waiting; further ones are refused.
        waiting: bytes of the waiting prompts.
        wait: seconds in the queue.
        timeout: seconds for a whole request.
        upload: seconds for sending a body, and for reading a chunk of an answer.
        decode: seconds for reading a video.
        fetch: seconds to fetch one picture or video.
        redirects: followed while fetching.
    """

    body: int = 32 * MEGA
    bodies: int = 256 * MEGA
    medium: int = 16 * MEGA
    media: int = 8
    pixels: int = 32_000_000
    side: int = 8192
    frames: int = 64
    video: int = 20_000
    text: int = 32_768
    messages: int = 128
    new_tokens: int = 512
    queue: int = 64
    waiting: int = 1024 * MEGA
    wait: float = 60
    timeout: float = 300
    upload: float = 30
    decode: float = 30
    fetch: float = 10
    redirects: int = 3
