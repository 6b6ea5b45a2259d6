"""Stops a training at the first loss or gradient that is not finite, and names rows and parameters.

All processes decide together, so none waits for another. The check comes before the optimizer's step: weights and
checkpoints stay usable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from duet.errors import UserError
from duet.train.ranks import agree

#: Most names of rows and parameters in a message.
_LISTED = 5


class DivergedError(UserError):
    """A loss or gradient is not finite; the message names the step, rows and parameters."""


class FiniteCheck:
    """Checks of one training.

    Args:
        model: without wrappers.
        rank: of this process.
        ranks: number of processes.
        device: that the processes communicate on.
        rows_of: step and micro-batch of each process -> names of the rows.
    """

    def __init__(
        self,
        model: nn.Module,
        rank: int,
        ranks: int,
        device: torch.device,
        rows_of: Callable[[int, int], Sequence[str]],
    ) -> None:
        self.model = model
        self.rank, self.ranks = rank, ranks
        self.device = device
        self.rows_of = rows_of
        self._flags: Tensor | None = None

    def loss(self, value: Tensor, step: int, micro: int) -> None:
        """Check the loss of a micro-batch, before its backward pass.

        Args:
            value: of this process.
            step: counted from 1.
            micro: micro-batch of this process in the step, counted from 0.

        Raises:
            DivergedError: it is not finite on some process.
        """
        bad = [0.0] * self.ranks
        bad[self.rank] = float(not bool(torch.isfinite(value.detach()).all()))
        if not any(bad) and self.ranks == 1:
            return
        where = [rank for rank, flag in enumerate(agree(bad, self.device)) if flag]
        if not where:
            return
        rows = [name for rank in where for name in self.rows_of(rank, micro)]
        broken = self._names(lambda name, weight: not _finite(_local(weight)))
        because = f"these weights are not finite: {_list(broken)}" if broken else "the weights are finite"
        raise DivergedError(
            f"step {step}: the loss is not finite on process {_list(list(map(str, where)))}; rows: {_list(rows)}; "
            f"{because}. Look at the rows (pictures, empty answers), lower the learning rate, or train in bfloat16; "
            "the same command then continues from the last checkpoint"
        )

    def gradients(self, step: int) -> None:
        """Check the gradients in `.grad`, before they are clipped.

        Raises:
            DivergedError: some is not finite on some process.
        """
        self._stop(step, [value.grad for _, value in self._learned()])

    def watch(self) -> None:
        """Note gradients that are not finite as they are computed, where `.grad` does not keep them (DeepSpeed)."""
        learned = list(self._learned())
        self._flags = torch.zeros(len(learned), device=self.device)
        for place, (_, value) in enumerate(learned):
            value.register_hook(partial(self._note, place))

    def watched(self, step: int) -> None:
        """Check what `watch` has noted since the last call.

        Raises:
            DivergedError: some gradient was not finite on some process.
        """
        assert self._flags is not None
        flags = agree(self._flags.tolist(), self.device)
        self._flags.zero_()
        self._raise(step, flags)

    def _note(self, place: int, gradient: Tensor) -> None:
        assert self._flags is not None
        self._flags[place] += (~torch.isfinite(gradient).all()).to(self._flags)

    def _stop(self, step: int, gradients: Sequence[Tensor | None]) -> None:
        fine = [torch.ones((), device=self.device) if each is None else _all_finite(each) for each in gradients]
        flags = 1 - torch.stack(fine).float()
        self._raise(step, agree(flags.tolist(), self.device))

    def _raise(self, step: int, flags: Sequence[float]) -> None:
        if not any(flags):
            return
        names = [name for (name, _), flag in zip(self._learned(), flags, strict=True) if flag]
        rows = [name for rank in range(self.ranks) for name in self.rows_of(rank, 0)]
        raise DivergedError(
            f"step {step}: gradients of {len(names)} parameters are not finite: {_list(names)}; the first rows of this "
            f"step: {_list(rows)}. Lower the learning rate, or train in bfloat16; the same command then continues from "
            "the last checkpoint"
        )

    def _names(self, test: Callable[[str, Tensor], bool]) -> list[str]:
        found = [(name, test(name, value)) for name, value in self.model.named_parameters()]
        flags = agree([float(flag) for _, flag in found], self.device)
        return [name for (name, _), flag in zip(found, flags, strict=True) if flag]

    def _learned(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, value) for name, value in self.model.named_parameters() if value.requires_grad)


def _local(value: Any) -> Tensor:
    """The part of a weight or gradient that this process holds."""
    part = getattr(value, "ds_tensor", value)
    return part.to_local() if hasattr(part, "to_local") else part


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def _all_finite(gradient: Any) -> Tensor:
    return torch.isfinite(_local(gradient)).all().float()


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
