"""What a run would cost, without sending anything.

Tokens are estimated by OpenAI's rule of thumb of four characters of English a token (bytes here, so that other scripts
count more), four extra tokens per message, and `REPLY_TOKENS` per reply. Re-asks and retries are not included.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
REPLY_TOKENS = 16  # "{'pred': 'yes', 'score': 5}", with room


@dataclass(frozen=True)
class Plan:
    """Calls to be made, and estimated tokens of prompts and replies."""

    calls: int
    prompt_tokens: int
    completion_tokens: int

    def cost(self, price_in: float, price_out: float) -> float:
        """US dollars, from prices per million prompt and reply tokens."""
        return (self.prompt_tokens * price_in + self.completion_tokens * price_out) / 1e6


def make_plan(requests: Iterable[dict[str, Any]]) -> Plan:
    """Add up the requests to be sent."""
    tokens = [estimate_tokens(request) for request in requests]
    return Plan(len(tokens), sum(tokens), REPLY_TOKENS * len(tokens))


def estimate_tokens(request: dict[str, Any]) -> int:
    """Prompt tokens of one request."""
    sizes = [len(message["content"].encode()) for message in request["messages"]]
    return sum(TOKENS_PER_MESSAGE + math.ceil(size / BYTES_PER_TOKEN) for size in sizes)
