"""Regions of a model that run as compiled code, each as one graph.

`region` marks a function. It runs as it is, except inside a block of `compiling`: there its compiled version runs, one
for each of its arguments' shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Code:
    """Compiled versions of functions.

    Args:
        around: function -> the function to compile in its place.
    """

    def __init__(self, around: Callable[[Any], Any] = lambda function: function) -> None:
        self._around = around
        self._known: dict[Any, Callable[..., Any]] = {}

    def get(self, function: Any, key: Any, options: dict[str, Any]) -> Callable[..., Any]:
        """The compiled version for a key; each has code of its own, so `torch.compile` counts its recompilations apart.

        Args:
            function: a plain function.
            key: hashable; everything but values of tensors that its code depends on.
            options: of `torch.compile`.
        """
        name = (function, key, repr(sorted(options.items(), key=str)))
        if name not in self._known:
            whole = self._around(function)
            code = whole.__code__.replace(co_name=f"{function.__name__}_{len(self._known)}")
            own = FunctionType(code, whole.__globals__, code.co_name, whole.__defaults__, whole.__closure__)
            own.__kwdefaults__ = whole.__kwdefaults__
            self._known[name] = torch.compile(own, **options)
        return self._known[name]

    def __deepcopy__(self, memo: dict[int, Any]) -> Code:
        return self  # a copied model runs the same code

    def __reduce__(self) -> Any:
        return Code, (self._around,)  # what was compiled is not pickled


@dataclass
class Compiled:
    """How a model is compiled.

    Attributes:
        options: of `torch.compile`.
        code: what is compiled so far.
    """

    options: dict[str, Any]
    code: Code


_now: ContextVar[Compiled | None] = ContextVar("compiling", default=None)


@contextmanager
def compiling(how: Compiled | None) -> Iterator[None]:
    """Regions inside the block run compiled; None: they run as they are."""
    token = _now.set(how)
    try:
        yield
    finally:
        _now.reset(token)


def region(function: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """Decorator of a function of positional arguments that returns tensors by name."""

    @wraps(function)
    def run(*args: Any) -> dict[str, Tensor]:
        now = _now.get()
        if now is None:
            return function(*args)
        found = now.code.get(function, _kind(args), now.options)(*args)
        return {name: value.clone() for name, value in found.items()}  # the next replay of a graph writes there

    return run


@region
def project(projector: Any, features: Tensor) -> dict[str, Tensor]:
    """The `features` after a projector."""
    return {"features": projector(features)}


def _kind(value: Any) -> Any:
    """What code depends on, of an argument: fields of data, an object itself."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    if isinstance(value, (int, float, str, frozenset, type(None))):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(map(_kind, value))
    if isinstance(value, dict):
        return tuple((name, _kind(one)) for name, one in value.items())
    if is_dataclass(value):
        return type(value), tuple(_kind(getattr(value, one.name)) for one in fields(value))
    return "function" if isinstance(value, FunctionType) else id(value)


class once(Generic[T]):
    """`functools.cached_property` without its lock, which compiled code cannot take."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function, self.name = function, f"_once_{function.__name__}"
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> T:
        """The value, computed at the first call."""
        if not hasattr(instance, self.name):
            setattr(instance, self.name, self.function(instance))
        return getattr(instance, self.name)
