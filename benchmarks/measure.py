"""Clocks and memory meters for CPU and CUDA/ROCm devices.

*Time*: on the CPU the wall clock, or the CPU time of the process (`process`), which excludes the time of other
programs: for one thread on a busy machine. On a GPU, device events, because the host runs ahead of it.

*Peak memory*: the most bytes allocated at any moment of a run, on top of weights and inputs. CUDA:
`max_memory_allocated`. CPU: the peak of the running sum of all allocations and releases of PyTorch's CPU allocator,
work space inside kernels included, as recorded by `torch.profiler`. (The resident size of the process says little: it
keeps pages that tensors released long ago.) Buffers that a BLAS library allocates outside PyTorch are not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile

if TYPE_CHECKING:
    from collections.abc import Callable

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
_MEMORY_EVENT = "[memory]"


@dataclass
class _Span:
    part: str
    parent: str | None
    start: Any
    end: Any = None


class Stopwatch:
    """Time of named parts of a run, which may be nested.

    Args:
        device: device of the work.
        clock: a name of `CLOCKS`, used if the device is the CPU.
    """

    def __init__(self, device: torch.device, clock: str = "wall") -> None:
        self._cuda = device.type == "cuda"
        self._now = CLOCKS[clock]
        self._spans: list[_Span] = []
        self._open: list[str] = []

    def run(self, part: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function as a part of the run, and return its result."""
        span = _Span(part, self._open[-1] if self._open else None, self._mark())
        self._spans.append(span)
        self._open.append(part)
        try:
            return function(*args, **kwargs)
        finally:
            span.end = self._mark()
            self._open.pop()

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed as a part of the run at each call."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            return self.run(part, function, *args, **kwargs)

        return timed

    def total_ms(self, part: str) -> float:
        """Time spent in a part, including the parts inside it; waits for the device. 0 if it never ran."""
        return sum(self._length(span) for span in self._spans if span.part == part)

    def own_ms(self, part: str) -> float:
        """Time spent in a part, without the parts inside it."""
        return self.total_ms(part) - sum(self._length(span) for span in self._spans if span.parent == part)

    def _length(self, span: _Span) -> float:
        if not self._cuda:
            return 1e3 * (span.end - span.start)
        span.end.synchronize()
        return span.start.elapsed_time(span.end)

    def _mark(self) -> Any:
        if not self._cuda:
            return self._now()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def peak_bytes(device: torch.device, function: Callable[[], Any]) -> int:
    """The most bytes that a call had allocated at any moment, on top of those before it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function()
    del result  # released after the recording: the result counts as long as the call runs
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == _MEMORY_EVENT]
    current = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak
