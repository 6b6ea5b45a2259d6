"""Counts the moments at which the host waits for an accelerator, on a CPU.

Under `HostReads()`, tensors that carry the label of an accelerator (`tests/two_devices.py`) are on it by name, and
these operations on them are waits:

* values for Python: `item`, `tolist`, `bool`, `int`, `float`, `numpy`, `print`, use as an index;
* copies to the host: `cpu`, `to("cpu")`;
* results whose size depends on values: `nonzero`, `unique`, `masked_select`, `argwhere`, `x[mask]`, `x[mask] = tensor`,
  `repeat_interleave` by a tensor, `torch.where(mask)`, `torch.equal`;
* uploads that block: `to(device)` of a host tensor without `non_blocking`, and `torch.tensor(..., device=...)`.

Not counted: `masked_scatter`, `scatter`, `index_select`, `sort` and other operations whose result has a known size, and
uploads with `non_blocking`, which copy the values before they return and let the host go on.
"""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import duet
from tests.two_devices import Devices, _label, _tensors, label_of

ACCELERATOR = torch.device("cuda:0")
OURS = Path(duet.__file__).parent
_VALUES = {"item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__contains__", "__array__"}
_SIZES = {"nonzero", "unique", "masked_select", "argwhere", "equal", "allclose", "bincount", "unique_consecutive"}


class HostReads(Devices):
    """See the module's text.

    Attributes:
        reads: `file:line operation` -> how often the host waited there; files of transformers begin with `upstream/`.
        watching: whether operations on tensors of the host are noted, too.
        host: those, as in `reads`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.watching = False
        self.host: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """All waits."""
        return self.reads.total()

    @property
    def own(self) -> dict[str, int]:
        """Those of this repository's code."""
        return {place: count for place, count in self.reads.items() if place.startswith("duet/")}

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        wait = _wait(func, args, kwargs or {})
        if wait:
            self.reads[f"{_place()} {wait}"] += 1
        if self.watching and _of_host(func, args):
            self.host[f"{_place()} {func.__name__}"] += 1
        result = super().__torch_function__(func, types, args, kwargs)
        if getattr(func, "__name__", "") not in ("cpu", "to"):  # scalars keep their place, too
            given = next((label_of(one) for one in _tensors((args, kwargs or {})) if label_of(one) is not None), None)
            for tensor in _tensors(result):
                if given is not None and label_of(tensor) is None:
                    _label(tensor, given)
        return result


def on_accelerator(value: Any) -> Any:
    """Label a model or the tensors of a batch."""
    if isinstance(value, nn.Module):
        for tensor in (*value.parameters(), *value.buffers()):
            _label(tensor, ACCELERATOR)
        return value
    return {name: _label(one.clone(), ACCELERATOR) if torch.is_tensor(one) else one for name, one in value.items()}


def _of_host(func: Any, args: tuple) -> bool:
    if getattr(func, "__name__", "") in ("tensor", "as_tensor", "from_numpy"):
        return True
    tensors = [one for one in args if isinstance(one, Tensor)]
    return getattr(func, "__name__", "") != "__get__" and any(one.ndim and label_of(one) is None for one in tensors)


def _wait(func: Any, args: tuple, kwargs: dict[str, Any]) -> str:
    name = getattr(func, "__name__", "")
    first = args[0] if args else None
    there = isinstance(first, Tensor) and label_of(first) is not None
    if there and (name in _VALUES or name in _SIZES or name == "cpu"):
        return name
    if there and name == "where" and len(args) == 1:
        return "where"
    if name == "repeat_interleave" and any(_there(one) for one in (*args[1:], *kwargs.values())):
        return name
    if there and name in ("__getitem__", "__setitem__") and _by_mask(args[1]):
        scalar = name == "__setitem__" and not (isinstance(args[2], Tensor) and args[2].ndim)
        return "" if scalar else f"{name} by a mask"
    if name == "to" and isinstance(first, Tensor):
        target = _target(args[1:], kwargs)
        if there and target == "cpu":
            return "to cpu"
        if not there and first.ndim and target == "cuda" and not kwargs.get("non_blocking"):
            return "upload"
    if (
        name in ("tensor", "as_tensor")
        and first is not None
        and first != []
        and str(kwargs.get("device") or "").startswith("cuda")
        and not there
    ):
        return "upload"
    return ""


def _there(value: Any) -> bool:
    return isinstance(value, Tensor) and label_of(value) is not None


def _by_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(_there(part) and part.dtype in (torch.bool, torch.uint8) for part in parts)


def _target(args: tuple, kwargs: dict[str, Any]) -> str:
    for value in (*args, kwargs.get("device"), kwargs.get("other")):
        if isinstance(value, Tensor):
            return "cuda" if label_of(value) is not None else ""
        if isinstance(value, (str, torch.device)):
            return torch.device(value).type
    return ""


def _place() -> str:
    """The innermost line outside torch and this file."""
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and "host_reads" not in frame.filename:
            file = Path(frame.filename)
            name = file.relative_to(OURS.parent) if OURS in file.parents else Path("upstream", *file.parts[-2:])
            return f"{name.as_posix()}:{frame.lineno}"
    return "?"
