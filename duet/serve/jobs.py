"""A request on its way through the queue and the worker, and the events that come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from duet.serve.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from duet.budget import Budget
    from duet.serve.schema import Sampling


@dataclass(frozen=True)
class Encoded:
    """An encoded prompt.

    Attributes:
        inputs: processor output on the host, batch dimension 1.
        visual: visual tokens in it, separators (LLaVA-NeXT's newlines) not counted.
        keeps: the budget for them; None: all. The same for all prompts of a batch.
        shown: hash of its pictures and videos, as the model sees them; empty without.
    """

    inputs: Mapping[str, Tensor]
    visual: int
    keeps: Budget | None = None
    shown: str = ""

    @property
    def length(self) -> int:
        """Tokens of the prompt, including all placeholders."""
        return self.inputs["input_ids"].shape[1]

    @property
    def nbytes(self) -> int:
        """Total size of the tensors."""
        return sum(value.nbytes for value in self.inputs.values())


@dataclass(frozen=True)
class Usage:
    """Token counts of an answer.

    Attributes:
        prompt: tokens of the prompt, including all visual tokens.
        completion: tokens of the answer, including the end token.
        visual: visual tokens of the prompt.
        kept: visual tokens that enter the language model, then those left after each drop.
        boundaries: number of layers before each of these points; 0 is the input.
        average: visual tokens per layer, mean over the layers.
    """

    prompt: int
    completion: int
    visual: int
    kept: tuple[int, ...]
    boundaries: tuple[int, ...]
    average: float


@dataclass(frozen=True)
class Piece:
    """A further piece of an answer."""

    text: str


@dataclass(frozen=True)
class Done:
    """The end of an answer; `reason` is OpenAI's `finish_reason`: stop or length."""

    reason: str
    usage: Usage


Event = Piece | Done | ApiError


@dataclass(eq=False)
class Job:
    """A prompt that is waiting for its answer, or being answered.

    Attributes:
        encoded: the prompt.
        sampling: how to answer.
        budget: its name.
        send: takes the events of the answer; called by the worker's thread.
        deadline: `time.monotonic()` after which the answer is no longer needed.
        arrival: of the request; queued: when the prompt was ready to be answered.
        first: when its first token came.
    """

    encoded: Encoded
    sampling: Sampling
    budget: str
    send: Callable[[Event], None]
    deadline: float
    arrival: float = field(default_factory=time.monotonic)
    queued: float = field(default_factory=time.monotonic)
    first: float | None = None
    _gone: threading.Event = field(default_factory=threading.Event)
    _over: bool = False

    def cancel(self) -> None:
        """The client has disconnected: the answer is no longer needed."""
        self._gone.set()

    @property
    def cancelled(self) -> bool:
        """Whether the client has disconnected."""
        return self._gone.is_set()

    @property
    def over(self) -> bool:
        """Whether its last event was sent."""
        return self._over

    def emit(self, event: Event) -> None:
        """Hand on an event; nothing follows the last one."""
        if self._over:
            return
        self._over = not isinstance(event, Piece)
        self.send(event)

    def describe(self) -> dict[str, Any]:
        """For the log: sizes, no text."""
        return {"tokens": self.encoded.length, "visual": self.encoded.visual, "budget": self.budget}
