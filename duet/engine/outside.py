"""Check external methods against `duet/interfaces.py`: missing parts and wrong results are one-sentence errors.

The methods of this repository are covered by tests and run without this. Index tensors are read on the host here, so
an external method waits for its device once per edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from duet.edit import CLS, NONE, Edit
from duet.errors import UserError

if TYPE_CHECKING:
    from duet.budget import Stage1
    from duet.types import LayerView, VisionStates

SCOPES, LAYERS = ("unit", "medium"), ("next", "previous")
PRUNER_NEEDS = frozenset({"salient", "embeddings"})


@dataclass(frozen=True)
class OutsideReducer:
    """A reducer whose edits are checked.

    Attributes:
        part: the method's own object.
        title: for messages.
    """

    part: Any
    title: str

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise UserError(f"{self.title}: scope is {self.scope!r}; choose {' or '.join(SCOPES)}")
        if not isinstance(self.contextual, bool):
            raise UserError(f"{self.title}: contextual is {self.contextual!r}; it must be True or False")
        _ = self.needs
        _check_function(self.part, "__call__", self.title)

    @property
    def needs(self) -> frozenset[str]:
        """As of `VisionReducer`."""
        return _needs(self.part, self.title)

    @property
    def scope(self) -> str:
        """As of `VisionReducer`."""
        return _attribute(self.part, "scope", self.title)

    @property
    def contextual(self) -> bool:
        """As of `VisionReducer`."""
        return _attribute(self.part, "contextual", self.title)

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """The part's edit.

        Raises:
            UserError: it fails, or does not return an edit of these tokens within the budget.
        """
        with blamed(self.title):
            edit = self.part(states, budget)
        rows, tokens = states.features.shape[:2]
        _check_edit(edit, rows, tokens, states.cls is not None, self.title)
        sizes = [height * width for height, width in states.unit_grids] or [tokens]
        most = sum(sum(budget.resolve(size, cls=states.cls is not None)) for size in sizes)
        kept = int((edit.kept != NONE).sum(1).max())
        if not 0 < kept <= most:
            raise UserError(f"{self.title} keeps {kept} tokens of a row; the budget has 1 to {most}")
        return edit


@dataclass(frozen=True)
class OutsidePruner:
    """A pruner whose scores and edits are checked.

    Attributes:
        part, title: as of `OutsideReducer`.
    """

    part: Any
    title: str

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise UserError(f"{self.title}: layer is {self.layer!r}; choose {' or '.join(LAYERS)}")
        unknown = self.needs - PRUNER_NEEDS
        if unknown:
            raise UserError(
                f"{self.title} needs {', '.join(sorted(unknown))}; a stage 2 may need "
                f"{' and '.join(sorted(PRUNER_NEEDS))}"
            )
        _check_function(self.part, "score", self.title)
        if getattr(self.part, "edit", None) is not None:
            _check_function(self.part, "edit", self.title)

    @property
    def needs(self) -> frozenset[str]:
        """As of `DecoderPruner`."""
        return _needs(self.part, self.title)

    @property
    def layer(self) -> str:
        """As of `DecoderPruner`."""
        return _attribute(self.part, "layer", self.title)

    @property
    def edit(self) -> Callable[[LayerView, Tensor, Tensor], Edit] | None:
        """The part's own, checked; None if it leaves the choice to the engine."""
        return None if getattr(self.part, "edit", None) is None else self._edit

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """The part's scores.

        Raises:
            UserError: it fails, or does not return scores and voters of these tokens.
        """
        with blamed(self.title):
            found = self.part.score(view)
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise UserError(f"{self.title}: score returns {_shown(found)}; it must return (scores, voters)")
        scores, voters = found
        shape = view.visual.shape
        _check_tensor(scores, "scores", shape, "a float", torch.is_floating_point, self.title)
        _check_tensor(voters, "voters", shape, "bool", _is_bool, self.title)
        if bool(scores[view.visual].isnan().any()):
            raise UserError(f"{self.title}: a score of a visual token is nan")
        return scores, voters

    def _edit(self, view: LayerView, scores: Tensor, counts: Tensor) -> Edit:
        with blamed(self.title):
            edit = self.part.edit(view, scores, counts)
        rows, tokens = view.visual.shape
        _check_edit(edit, rows, tokens, False, self.title)
        real = edit.kept != NONE
        if not bool(view.visual.gather(1, edit.kept.clamp_min(0))[real].all()):
            raise UserError(f"{self.title}: edit keeps a token that is not a candidate; candidates are view.visual")
        if bool((real.sum(1) > counts.to(real.device)).any()):
            raise UserError(f"{self.title}: edit keeps {real.sum(1).tolist()} tokens; the budget has {counts.tolist()}")
        return edit


def _attribute(part: Any, name: str, title: str) -> Any:
    try:
        return getattr(part, name)
    except AttributeError as error:
        raise UserError(f"{title} has no attribute {name}; see duet/interfaces.py for what a method needs") from error


def _needs(part: Any, title: str) -> frozenset[str]:
    needs = _attribute(part, "needs", title)
    if not isinstance(needs, (set, frozenset)) or not all(isinstance(need, str) for need in needs):
        raise UserError(f"{title}: needs is {needs!r}; it must be a frozenset of names")
    return frozenset(needs)


def _check_function(part: Any, name: str, title: str) -> None:
    if not callable(getattr(part, name, None)):
        raise UserError(f"{title} has no function {name}; see duet/interfaces.py for what a method needs")


@contextmanager
def blamed(title: str) -> Iterator[None]:
    """Blame the method for any failure inside the block."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UserError(f"{title} fails: {type(error).__name__}: {error}") from error


def _check_edit(edit: Any, rows: int, tokens: int, cls: bool, title: str) -> None:
    """Check that an edit fits `[rows, tokens]`."""
    if not isinstance(edit, Edit):
        raise UserError(f"{title} returns {_shown(edit)}; it must return a duet.edit.Edit")
    if edit.tokens != tokens:
        raise UserError(f"{title}: tokens of its edit is {edit.tokens!r}, but there were {tokens}")
    _check_index(edit.kept, "kept", (rows, None), CLS if cls else 0, tokens, title)
    outputs = edit.kept.shape[1]
    if edit.share is not None:
        _check_tensor(edit.share, "share", edit.kept.shape, "a float", torch.is_floating_point, title)
    whole = edit.kept if edit.share is None else torch.where(edit.share == 0, NONE, edit.kept)
    ordered = whole.sort(1).values
    if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NONE)).any()):
        raise UserError(f"{title} keeps a token of a row twice")
    if not isinstance(edit.contextual, int) or not 0 <= edit.contextual <= outputs:
        raise UserError(f"{title}: contextual of its edit is {edit.contextual!r}; it keeps {outputs}")
    merge = (edit.source, edit.target, edit.weight)
    if all(part is None for part in merge):
        return
    if any(part is None for part in merge):
        raise UserError(f"{title}: an edit that merges needs source, target and weight")
    _check_index(edit.source, "source", (rows, None), 0, tokens, title)
    assert edit.source is not None and edit.target is not None
    _check_tensor(edit.target, "target", edit.source.shape, "long", _is_long, title)
    _check_tensor(edit.weight, "weight", edit.source.shape, "a float", torch.is_floating_point, title)
    target = edit.target[edit.source != NONE]
    if bool(((target < outputs - edit.contextual) | (target >= outputs)).any()):
        raise UserError(
            f"{title}: a target of its edit is not among the last {edit.contextual} of {outputs} outputs, "
            "the ones that may merge"
        )


def _check_index(index: Any, name: str, shape: tuple[int | None, ...], least: int, tokens: int, title: str) -> None:
    _check_tensor(index, name, shape, "long", _is_long, title)
    outside = (index < least) & (index != NONE) | (index >= tokens)
    if bool(outside.any()):
        raise UserError(
            f"{title}: {name} of its edit holds {int(index[outside][0])}; tokens are {least} to {tokens - 1}"
        )


def _check_tensor(
    value: Any, name: str, shape: tuple[int | None, ...], kind: str, fits: Callable[[Tensor], bool], title: str
) -> None:
    wanted = ", ".join("K" if size is None else str(size) for size in shape)
    if (
        not isinstance(value, Tensor)
        or value.ndim != len(shape)
        or any(size not in (None, given) for size, given in zip(shape, value.shape, strict=True))
        or not fits(value)
    ):
        raise UserError(f"{title}: {name} is {_shown(value)}; it must be a tensor [{wanted}], {kind}")


def _is_long(value: Tensor) -> bool:
    return value.dtype == torch.long


def _is_bool(value: Tensor) -> bool:
    return value.dtype == torch.bool


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return "None" if value is None else f"a {type(value).__name__}"
