"""Two accelerators by name on a CPU: tensors carry a label, and an operation on tensors of two labels is an error.

Under `Devices()`, `tensor.to("cuda:1")`, `tensor.device` and `torch.arange(..., device="cuda:1")` set and read labels;
all values stay on the CPU. A tensor without label (made on the host, or a scalar) may meet any other, which is more
than CUDA allows. `spread` puts a model's parts on two such devices and moves what enters them, as accelerate does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_LABEL = "duet_test_device"


class Devices(TorchFunctionMode):
    """See the module's text."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func == Tensor.device.__get__:
            return label_of(args[0]) or func(*args)
        if name in ("to", "cpu", "cuda"):
            return _moved(func, name, args, kwargs)
        wanted = _fake(kwargs.get("device"))
        if wanted:
            kwargs.pop("device")
        found = {label_of(tensor) for tensor in _tensors((args, kwargs)) if tensor.ndim} - {None}
        if len(found) > 1:
            raise AssertionError(f"{name} is given tensors of {sorted(map(str, found))}")
        result = func(*args, **kwargs)
        device = wanted or next(iter(found), None)
        return result if device is None else _label(result, device)


def label_of(tensor: Tensor) -> torch.device | None:
    """The device that a tensor is on by name."""
    return getattr(tensor, _LABEL, None)


def spread(model: nn.Module, places: Mapping[str, str]) -> None:
    """Label the parameters of the named parts, and move the tensors that enter each of their modules there.

    Every module gets an `_hf_hook` as accelerate leaves it.
    """
    for prefix, place in places.items():
        device = torch.device(place)
        for module in model.get_submodule(prefix).modules():
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                _label(tensor, device)
            module._hf_hook = SimpleNamespace(execution_device=device)  # type: ignore[assignment]
            module.register_forward_pre_hook(_mover(device), with_kwargs=True)


def _mover(device: torch.device) -> Any:
    def move(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return _to(args, device), {name: _to(value, device) for name, value in kwargs.items()}

    return move


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return type(value)(_to(part, device) for part in value) if type(value) in (tuple, list) else value


def _fake(device: Any) -> torch.device | None:
    if device is None or isinstance(device, torch.dtype):
        return None
    device = torch.device(device)
    return device if device.type == "cuda" else None


def _moved(func: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    tensor, *rest = args
    if name == "to":
        other = next((value for value in rest if isinstance(value, Tensor)), None)
        given = [value for value in (*rest, kwargs.pop("device", None)) if isinstance(value, (str, torch.device))]
        kept = [value for value in rest if not isinstance(value, (str, torch.device))]
        device = label_of(other) if other is not None else _fake(given[0]) if given else label_of(tensor)
        result = func(tensor, *kept, **kwargs)
    else:
        device, result = None, tensor
    result = result.view_as(result) if result is tensor else result
    return _label(result, device)


def _label(result: Any, device: torch.device | None) -> Any:
    for tensor in _tensors(result):
        setattr(tensor, _LABEL, device)
    return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
