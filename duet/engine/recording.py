"""`duet.record`: which trace (`duet/engine/trace.py`) the prompts of a thread are written to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from duet.engine.attachment import attached
from duet.engine.trace import Trace

if TYPE_CHECKING:
    from torch import nn

_ACTIVE: ContextVar[dict[int, Trace]] = ContextVar("duet_traces", default={})  # noqa: B039 - never mutated


def active_trace(body: nn.Module) -> Trace | None:
    """The open trace of this model, cleared for a new prompt."""
    trace = _ACTIVE.get().get(id(body))
    if trace is not None:
        trace.clear()
    return trace


@contextmanager
def record(model: nn.Module) -> Iterator[Trace]:
    """Record what an attached model keeps of the latest prompt that this thread runs inside the `with` block.

    With nested blocks on one model, only the inner one records. `docs/trace.md` explains traces.

    Raises:
        ValueError: nothing is attached to the model.
    """
    body = attached(model).body
    trace = Trace()
    token = _ACTIVE.set({**_ACTIVE.get(), id(body): trace})
    try:
        yield trace
    finally:
        _ACTIVE.reset(token)
