"""`duet.look`: a picture is read once, then asked about any number of times.

    model, processor = duet.load("llava-hf/llava-1.5-7b-hf", method="duet", budget="llava15_128")
    with duet.look(model, [open_picture(Path("bus.jpg"))], processor) as seen:
        seen.ask("What number does the bus have?").text
        seen.ask(["Is it dark?", "How many people are there?"])                 # a batch
        seen.ask("And its colour?", history=[("What is this?", "A bus.")])      # a further turn

Answers, logits and kept tokens are those of each prompt alone, up to rounding. What is kept (`duet/engine/seen.py`) is
freed at the end of the block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from duet.data.collate import collate
from duet.engine.attach import detach
from duet.engine.attachment import attached, is_attached
from duet.engine.prompt import layers_of
from duet.engine.seen import Gallery, Picture, in_view
from duet.errors import UserError
from duet.families import find_asking, find_family
from duet.inference import GREEDY, Answer, Shown, TokenClock, placed
from duet.registry import attach

if TYPE_CHECKING:
    from torch import nn

Turn = tuple[str, str]
#: Stands in for a question while pictures are read; stage 2 never sees it.
_NO_QUESTION = "?"


class Seen:
    """Pictures and videos that a model has read; made by `look`.

    Attributes:
        picture: what is kept; None after the block.
    """

    def __init__(self, model: Any, gallery: Gallery, picture: Picture, shown: Shown | None) -> None:
        self.model, self.picture = model, picture
        self._gallery, self._shown, self._open = gallery, shown, True

    @property
    def bytes(self) -> int:
        """Memory of what is kept."""
        return self._gallery.nbytes

    @property
    def shares(self) -> str:
        """What the questions share, in words: how far their pictures have been read."""
        prefix = self.picture.prefix
        if prefix is None:
            return "the tower: stage 1 of this method reads the question"
        layers = len(layers_of(attached(self.model).lm))
        count = len(prefix.cached)
        return f"the tower, stage 1 and {count} of {layers} layers" if count else "the tower and stage 1"

    @overload
    def ask(self, question: str, *, history: Sequence[Turn] = (), max_new_tokens: int = 64) -> Answer: ...
    @overload
    def ask(self, question: list[str], *, history: Sequence[Turn] = (), max_new_tokens: int = 64) -> list[Answer]: ...
    def ask(
        self, question: str | list[str], *, history: Sequence[Turn] = (), max_new_tokens: int = 64
    ) -> Answer | list[Answer]:
        """Answer greedily.

        Args:
            question: one, or several that are answered as a batch.
            history: earlier questions and answers about the same pictures.
            max_new_tokens: longest answer, in tokens.

        Returns:
            the answer, or one for each question; times are those of the whole batch.

        Raises:
            UserError: the block is over, or the pictures were given as a processor's output without a processor.
        """
        if self._shown is None:
            raise UserError("seen.ask needs pictures and a processor: duet.look(model, pictures, processor)")
        questions = [question] if isinstance(question, str) else question
        if not isinstance(questions, list) or not all(isinstance(one, str) for one in questions):
            raise UserError(f"the question is {question!r}; give text, or a list of texts")
        if not all(isinstance(turn, (list, tuple)) and [*map(type, turn)] == [str, str] for turn in history):
            raise UserError("history is a list of (question, answer), both text")
        if not questions:
            return []
        rows = [self._shown.encode(self._shown.prompt(one, history)) for one in questions]
        clock = TokenClock()
        batch = collate([_words(row) for row in rows], self._shown.processor.tokenizer.pad_token_id)
        output = self.generate(batch, streamer=clock, max_new_tokens=max_new_tokens, **GREEDY)
        new = output[:, batch["input_ids"].shape[1] :].cpu()
        texts = self._shown.processor.batch_decode(new, skip_special_tokens=True)
        lengths = [_length(row, self.model) for row in new]
        answers = [
            Answer(text.strip(), length, clock.prefill_ms, clock.decode_ms, row["input_ids"][0])
            for text, length, row in zip(texts, lengths, rows, strict=True)
        ]
        return answers[0] if isinstance(question, str) else answers

    @torch.no_grad()
    def generate(self, inputs: Mapping[str, Any], **options: Any) -> Any:
        """`model.generate` for prompts that begin as the one whose pictures were read.

        Args:
            inputs: a processor's output, one or several rows; pixels may be left out.
            options: of `generate`.
        """
        with in_view(self.model, [self._picture()] * len(inputs["input_ids"])):
            return self.model.generate(**self._whole(inputs), **options)

    @torch.no_grad()
    def forward(self, inputs: Mapping[str, Any], **options: Any) -> Any:
        """`model(...)` for such prompts; with a padded batch, positions are counted without the padding."""
        with in_view(self.model, [self._picture()] * len(inputs["input_ids"])):
            return self.model(**self._whole(inputs), **options)

    def close(self) -> None:
        """Free what is kept; `look` does it at the end of its block."""
        self._gallery.clear()
        self._open = False

    def _picture(self) -> Picture:
        if not self._open:
            raise UserError("the block of duet.look is over, and its pictures are forgotten; ask inside it")
        return self.picture

    def _whole(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return placed(self.picture.stand_in(_words(inputs), len(inputs["input_ids"])), self.model)


@contextmanager
def look(
    model: nn.Module, shown: Sequence[Any] | Mapping[str, Any], processor: Any = None, *, limit: int | None = None
) -> Iterator[Seen]:
    """Read pictures and videos once, for all questions inside the `with` block.

    Args:
        model: from `duet.load`; without a method attached, all visual tokens are kept.
        shown: RGB pictures and `Clip`s; or a processor's output for one prompt with pictures, whose text up to the last
            picture all prompts in the block must have.
        processor: the model's; needed for `Seen.ask`.
        limit: most bytes to keep.

    Raises:
        UserError: no pictures, or they take more memory than `limit`.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise UserError(f"limit is {limit!r}; give a number of bytes")
    target, _ = find_family(model)
    bare = not is_attached(target)
    if bare:
        attach(model, "none")
    gallery = Gallery()
    try:
        inputs, ready = _prepared(target, shown, processor)
        if len(inputs["input_ids"]) != 1:
            raise UserError(f"duet.look reads one prompt's pictures, not those of {len(inputs['input_ids'])} rows")
        picture = gallery.look(target, [("", inputs)])[0]
        if limit is not None and gallery.nbytes > limit:
            raise UserError(
                f"these pictures take {gallery.nbytes} bytes, more than the limit of {limit}; raise it, or use a "
                "smaller budget"
            )
        seen = Seen(attached(target).model, gallery, picture, ready)
        try:
            yield seen
        finally:
            seen.close()
    finally:
        gallery.clear()
        if bare:
            detach(model)


def _prepared(
    model: Any, shown: Sequence[Any] | Mapping[str, Any], processor: Any
) -> tuple[Mapping[str, Any], Shown | None]:
    if isinstance(shown, Mapping):
        if "input_ids" not in shown:
            raise UserError("a processor's output for duet.look needs input_ids, besides its pixels")
        return shown, None
    if not isinstance(shown, (list, tuple)) or any(isinstance(one, (str, bytes, PathLike, int)) for one in shown):
        raise UserError("duet.look reads a list of opened pictures and clips: duet.look(model, [picture], processor)")
    if not shown:
        raise UserError("duet.look needs at least one picture or video")
    if not hasattr(processor, "tokenizer"):
        raise UserError("duet.look needs the processor for pictures: duet.look(model, pictures, processor)")
    ready = Shown(find_asking(model, processor), processor, model.config, shown)
    return ready.encode(ready.prompt(_NO_QUESTION)), ready


def _words(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a prompt has besides its pictures."""
    return {name: inputs[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids") if name in inputs}


def _length(new: Tensor, model: Any) -> int:
    """Tokens of an answer, end token included."""
    ends = model.generation_config.eos_token_id
    ended = torch.isin(new, torch.as_tensor(ends if ends is not None else [])).nonzero().flatten()
    return int(ended[0]) + 1 if len(ended) else len(new)
