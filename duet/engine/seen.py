"""Pictures that a model has read, for any number of questions: what is kept of them, and how much memory it takes.

Three things can be kept of a prompt's pictures: the tower's output, which depends on nothing else; the features after
stage 1, which depend on its method and counts, and on the question if stage 1 reads it; and the prefix inside the
language model (`duet/engine/prefix.py`), which depends on the whole method and budget.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from duet.engine.attachment import attached
from duet.engine.call import Call
from duet.engine.compat import aligned
from duet.engine.prefix import Prefix
from duet.engine.reading import advance, embed_prefix
from duet.engine.vision import reads_question, tower_needs, valid_columns

if TYPE_CHECKING:
    from torch import nn

    from duet.engine.attachment import Attachment
    from duet.engine.call import Compression
    from duet.types import VisionStates

#: Arguments of a prompt with one entry per token.
PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "position_ids")


@dataclass
class Picture:
    """What is kept of the pictures and videos of a prompt.

    Attributes:
        key: the caller's name of the pictures.
        head: the prompt's tokens up to the end of the last picture.
        media: the arguments that describe the pictures; pixels have a shape and no content (device `meta`).
        states: the tower's output; None unless it is kept.
        prefix: under the attached method; None if stage 1 reads the question.
    """

    key: Hashable
    head: tuple[int, ...]
    media: dict[str, Any]
    states: list[VisionStates] | None = None
    prefix: Prefix | None = None

    def stand_in(self, inputs: Mapping[str, Any], rows: int = 1) -> dict[str, Any]:
        """The arguments of other prompts about them, `rows` in a batch, without the content of their pixels."""
        return {**inputs, **{name: _repeated(value, rows) for name, value in self.media.items()}}


class Gallery:
    """Pictures that were read by one model, within a limit of memory.

    Args:
        prefix_bytes: for prefixes inside the language model; those not used for longest go first.
        tower_bytes: for tower output and features after stage 1, which other methods and budgets can use; what
            comes after the limit is reached is not kept. 0 keeps none, unless stage 1 reads the question. A method
            that needs more of the tower than was kept has it run once more.

    Attributes:
        hits, misses: pictures that were asked for and were there, or had to be read.
    """

    def __init__(self, prefix_bytes: int = 1 << 30, tower_bytes: int = 0) -> None:
        self.prefix_bytes, self.tower_bytes = prefix_bytes, tower_bytes
        self.hits = self.misses = 0
        self._attachment: Attachment | None = None
        self._pictures: OrderedDict[Hashable, Picture] = OrderedDict()
        self._towers: dict[Hashable, tuple[frozenset[str], list[VisionStates] | None, int]] = {}
        self._entered: dict[Hashable, Prefix] = {}
        self._kept_bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is kept."""
        kept = [*self._towers.values(), *self._entered.values(), *self._pictures.values()]
        return sum(tensor.nbytes for tensor in _tensors(kept))

    def forget_prefixes(self) -> None:
        """Forget what depends on the attached method and budget."""
        self._attachment = None
        self._pictures.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.forget_prefixes()
        self._towers.clear()
        self._entered.clear()
        self._kept_bytes = 0

    def look(
        self, model: nn.Module, prompts: Sequence[tuple[Hashable, Mapping[str, Any]]], setting: Hashable = None
    ) -> list[Picture]:
        """The pictures of some prompts; those that are not there are read.

        Args:
            model: with a method attached.
            setting: name of the attached method and budget, if they are attached again and again; without one,
                prefixes of another attachment are forgotten.
            prompts: for each prompt, a name of its pictures (equal for equal pictures), and its arguments: batch
                dimension 1, without padding, on the host or on the model's device.

        Raises:
            ValueError: nothing is attached, or a prompt has no pictures.
        """
        attachment = attached(model)
        if (
            setting is None and attachment is not self._attachment
        ):  # kept until here, so that no other attachment takes its place
            self._pictures.clear()
            self._attachment = attachment
        found = []
        for key, inputs in prompts:
            head = self._head(attachment, inputs)
            name = (setting, key, head)
            picture = self._pictures.get(name)
            if picture is None:
                self.misses += 1
                picture = self._read(attachment, key, head, inputs)
                if picture.prefix is not None:
                    picture.prefix = advance(attachment.lm, attachment.compression, picture.prefix)
                self._pictures[name] = picture
            else:
                self.hits += 1
                self._pictures.move_to_end(name)
            found.append(picture)
        while len(self._pictures) > 1 and sum(map(_bytes_of, self._pictures.values())) > self.prefix_bytes:
            self._pictures.popitem(last=False)
        return found

    def _head(self, attachment: Attachment, inputs: Mapping[str, Any]) -> tuple[int, ...]:
        ids = inputs["input_ids"]
        marks = attachment.compression.vision.placeholders(attachment.body, ids)[0].nonzero().flatten()
        if not len(marks):
            raise ValueError("this prompt has no pictures; there is nothing to keep of it")
        return tuple(ids[0, : int(marks[-1]) + 1].tolist())

    def _read(self, attachment: Attachment, key: Hashable, head: tuple[int, ...], inputs: Mapping[str, Any]) -> Picture:
        compression, body = attachment.compression, attachment.body
        media = {name: value for name, value in inputs.items() if name not in PER_TOKEN}
        shapes = {
            name: _shape(value) if name in compression.vision.pixel_names else _on(value, attachment.model.device)
            for name, value in media.items()
        }
        picture = Picture(key, head, shapes)
        ids = torch.tensor([head], device=attachment.model.device)
        prompt = _prompt(ids, _on(inputs.get("mm_token_type_ids"), ids.device))
        name = (key, head, _stage1_of(compression))
        if name in self._entered:
            picture.prefix = self._entered[name]
            return picture
        states = self._tower(attachment, key, {**prompt, **media})
        if reads_question(compression):
            picture.states = states
            return picture
        inputs = {**prompt, **shapes}
        picture.prefix = embed_prefix(body, attachment.lm, Call(compression), inputs, head, states)
        if self._admits(sum(tensor.nbytes for tensor in _tensors(picture.prefix))):
            self._entered[name] = picture.prefix
        return picture

    @torch.no_grad()
    def _tower(self, attachment: Attachment, key: Hashable, inputs: dict[str, Any]) -> list[VisionStates]:
        """The tower's output for the pictures of a prompt, which it keeps if there is room."""
        vision, needs = attachment.compression.vision, tower_needs(attachment.compression)
        known, states, size = self._towers.get(key, (frozenset(), None, 0))
        if states is not None and needs <= known:
            return states
        place, dtype = attachment.model.device, attachment.model.dtype
        inputs = {name: _on(value, place) for name, value in inputs.items()}
        pixels = {name: inputs[name].to(dtype) for name in vision.pixel_names if name in inputs}
        needs = needs | known
        with aligned(attachment.body):
            states = vision.encode(attachment.body, {**inputs, **pixels}, needs)
        fresh = sum(tensor.nbytes for tensor in _tensors(states))
        if self._admits(fresh - size):
            self._towers[key] = (needs, states, fresh)
        return states

    def _admits(self, size: int) -> bool:
        """Whether there is room for this many more bytes from before the language model; if so, they are taken."""
        fits = self._kept_bytes + size <= self.tower_bytes
        self._kept_bytes += size * fits
        return fits


def prefixes_of(
    pictures: Sequence[Picture | None], body: Any, lm: Any, call: Call, inputs: dict[str, Any]
) -> list[Prefix | None]:
    """The prefix of each row of a prompt; where stage 1 reads the question, it runs here.

    Args:
        pictures: of the rows; `generate` may repeat each several times in a row.
        body: the module without the head.
        lm: text model.
        call: with `input_ids`, and labels or prompt lengths if there are answers.
        inputs: keyword arguments of the body's forward.

    Raises:
        ValueError: other rows than were announced.
    """
    ids = call.input_ids
    assert ids is not None
    times = len(ids) // len(pictures)
    if times * len(pictures) != len(ids):
        raise ValueError(f"{len(ids)} prompt rows, but the pictures of {len(pictures)} rows were announced")
    if all(picture is None or picture.prefix is not None for picture in pictures):
        return [None if picture is None else picture.prefix for picture in pictures for _ in range(times)]
    host = call.at_host()
    valid = valid_columns(inputs) if host.valid is None else host.valid
    asked = valid.sum(1) if host.prompt_lengths is None else host.prompt_lengths.to(valid.device)
    starts, lengths = torch.stack([valid.int().argmax(1), asked]).tolist()
    found: list[Prefix | None] = []
    for picture, row in zip(pictures, range(0, len(ids), times), strict=True):
        prefix = None if picture is None else picture.prefix
        if picture is not None and prefix is None:
            own = slice(row, row + 1), slice(starts[row], starts[row] + lengths[row])
            types, labels = inputs.get("mm_token_type_ids"), call.labels
            prompt = {**_prompt(ids[own], None if types is None else types[own]), **picture.media}
            question = Call(call.compression, labels=None if labels is None else labels[own])
            prefix = embed_prefix(body, lm, question, prompt, picture.head, picture.states)
        found += [prefix] * times
    return found


_IN_VIEW: ContextVar[dict[int, Sequence[Picture | None]]] = ContextVar("duet_pictures", default={})  # noqa: B039 - never mutated


def pictures_in_view(body: nn.Module) -> Sequence[Picture | None] | None:
    """The pictures of the rows of every prompt of this model, inside a block of `in_view`."""
    return _IN_VIEW.get().get(id(body))


@contextmanager
def in_view(model: nn.Module, pictures: Sequence[Picture | None]) -> Iterator[None]:
    """Prompts that this thread runs inside the `with` block are about these pictures, row by row.

    They need the arguments of `Picture.stand_in`. A row without pictures has None.

    Raises:
        ValueError: nothing is attached to the model.
    """
    token = _IN_VIEW.set({**_IN_VIEW.get(), id(attached(model).body): list(pictures)})
    try:
        yield
    finally:
        _IN_VIEW.reset(token)


def _prompt(ids: Tensor, types: Tensor | None) -> dict[str, Any]:
    """Arguments of one prompt without padding."""
    prompt = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return prompt if types is None else {**prompt, "mm_token_type_ids": types[:, : ids.shape[1]]}


def _stage1_of(compression: Compression) -> Hashable:
    """What the features at the entrance of the language model depend on, besides pictures and prompt."""
    pruner = compression.pruner
    embeddings = pruner is not None and "embeddings" in pruner.needs
    vision = compression.vision
    reducer: Any = compression.reducer
    if getattr(type(reducer), "__hash__", None) is None:
        reducer = id(reducer)  # an external one that cannot be compared; it is kept by its attachment
    family = (type(vision), *sorted(vars(vision).items()))
    return reducer, compression.stage1, family, compression.renumber, embeddings


def _on(value: Any, device: torch.device) -> Any:
    return value.to(device) if torch.is_tensor(value) and not value.is_meta else value


def _shape(value: Any) -> Any:
    """The pixels' shape without their content."""
    return torch.empty_like(value, device="meta") if torch.is_tensor(value) else value


def _repeated(value: Any, rows: int) -> Any:
    if rows == 1 or value is None:
        return value
    return torch.cat([value] * rows) if torch.is_tensor(value) else [*value] * rows


def _bytes_of(picture: Picture) -> int:
    return sum(tensor.nbytes for tensor in _tensors(picture))


def _tensors(value: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """The tensors in dataclasses, containers and closures, each once; a score row on demand holds q and k in one."""
    seen = set() if seen is None else seen
    if value is None or id(value) in seen:
        return
    seen.add(id(value))
    if torch.is_tensor(value):
        yield value
        return
    parts: Any = ()
    if is_dataclass(value):
        parts = [getattr(value, entry.name) for entry in fields(value)]
    elif isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    elif getattr(value, "__closure__", None):
        parts = [cell.cell_contents for cell in value.__closure__]
    for part in parts:
        yield from _tensors(part, seen)
