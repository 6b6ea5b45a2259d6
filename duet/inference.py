"""Ask one question about pictures and videos: media and text in, answer and times out.

The shortest path through the project: the family's prompt and processor (`duet.families.find_asking`), greedy
`generate`, decoding. Used by `duet ask`, `duet viz` and everything else that asks one question at a time.

    model, processor = duet.load("llava-hf/llava-1.5-7b-hf", method="duet", budget="llava15_128")
    answer = ask(model, processor, [open_picture(Path("bus.jpg"))], "What number does the bus have?")
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.generation.streamers import BaseStreamer

from duet.engine.recording import record
from duet.errors import UserError
from duet.families import find_asking
from duet.prompt_style import OWN, PromptStyle
from duet.text.placeholders import IMAGE, VIDEO, place_media
from duet.types import Clip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from duet.engine.trace import Trace
    from duet.interfaces import Asking
    from duet.types import Region

#: Settings of a checkpoint's generation_config.json that greedy decoding would warn about.
_NO_SAMPLING = {"temperature": None, "top_p": None, "top_k": None}
#: Options of `generate` for greedy answers.
GREEDY: dict[str, Any] = {"do_sample": False, "num_beams": 1, **_NO_SAMPLING}


@dataclass(frozen=True)
class Question:
    """A question, processed for a model.

    Attributes:
        inputs: processor output, on the host.
        media: pictures and clips, in the order of their placeholders.
        regions: the area in them that each unit (picture, crop, frame) covers.
    """

    inputs: Mapping[str, Tensor]
    media: Sequence[Any]
    regions: list[Region]


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        text: the answer, without special tokens.
        generated: number of new tokens, end token included.
        prefill_ms: from the processed prompt to the first token: tower, projector, language model.
        decode_ms: all tokens after the first one.
        input_ids: `[T]`, the prompt with all its placeholders.
        trace: what was kept, if requested.
    """

    text: str
    generated: int
    prefill_ms: float
    decode_ms: float
    input_ids: Tensor
    trace: Trace | None = None


class TokenClock(BaseStreamer):
    """Records the time of every token. `generate` passes tokens on the host, so the device has finished by then.

    Args:
        on_token: called with each new token.
    """

    def __init__(self, on_token: Callable[[int], None] | None = None) -> None:
        self.times: list[float] = []
        self.on_token = on_token

    def put(self, value: Tensor) -> None:
        """Called with the prompt, then with each new token."""
        self.times.append(time.perf_counter())
        if self.on_token is not None and len(self.times) > 1:
            self.on_token(int(value))

    def end(self) -> None:
        """Nothing to do after the last token."""

    @property
    def prefill_ms(self) -> float:
        """Milliseconds from the prompt to the first new token."""
        return 1e3 * (self.times[1] - self.times[0])

    @property
    def decode_ms(self) -> float:
        """Milliseconds from the first new token to the last."""
        return 1e3 * (self.times[-1] - self.times[1])


def encode(model: Any, processor: Any, media: Sequence[Any], question: str, style: PromptStyle = OWN) -> Question:
    """Put a question into the family's prompt and through its processor.

    Args:
        model, processor: from `duet.load`.
        media: RGB pictures and `Clip`s, in the order of their placeholders; empty for a question without media.
        question: with an `<image>` or `<video>` for each of them, or with none.
        style: how the question is put.

    Raises:
        UserError: the placeholders do not match, the family takes no videos, or its prompts are not known.
    """
    asking = find_asking(model, processor)
    inputs = asking.encode(style.prompt(asking, question, kinds_of(asking, model.config, media)), media)
    return Question(inputs, media, asking.regions(inputs, media))


def kinds_of(asking: Asking, config: Any, media: Sequence[Any]) -> list[str]:
    """The placeholder of each picture and `Clip`.

    Raises:
        UserError: the family takes no videos.
    """
    kinds = [VIDEO if isinstance(medium, Clip) else IMAGE for medium in media]
    if VIDEO in kinds and not asking.takes_videos:
        raise UserError(f"a model of type {config.model_type} takes only pictures, not videos")
    return kinds


class Shown:
    """Pictures and videos that are processed once, for any number of prompts about them.

    A prompt that begins like an earlier one, up to its last picture, takes that one's pixels and tokens up to there;
    only its own text is tokenized. The result is the processor's, token by token.

    Args:
        asking: the family's prompts.
        processor: of the model.
        config: of the model.
        media: pictures and `Clip`s.
    """

    def __init__(self, asking: Asking, processor: Any, config: Any, media: Sequence[Any]) -> None:
        self.asking, self.processor, self.config, self.media = asking, processor, config, media
        self._heads: dict[tuple[int, ...], tuple[Mapping[str, Tensor], int]] = {}

    def prompt(self, question: str, history: Sequence[tuple[str, str]] = ()) -> str:
        """The text for the processor.

        Args:
            question: the open question.
            history: questions and answers before it; the pictures are in the first of all questions.
        """
        kinds = kinds_of(self.asking, self.config, self.media)
        if not history:
            return self.asking.prompt(question, kinds)
        first = place_media(history[0][0], kinds, self.asking.between)
        return self.asking.text([(first, history[0][1]), *history[1:], (question, None)])

    def encode(self, text: str) -> Mapping[str, Tensor]:
        """Processor output of one prompt, as `Asking.encode`; tensors of pictures are shared, not copied."""
        ids = torch.as_tensor(self.processor.tokenizer([text])["input_ids"])
        marks = visual_marks(self.config, ids)[0].nonzero().flatten()
        size = int(marks[-1]) + 1 if len(marks) else 0
        head, tail = tuple(ids[0, :size].tolist()), ids[:, size:]
        if head not in self._heads:
            inputs = self.asking.encode(text, self.media)
            known = inputs["input_ids"].shape[1] - tail.shape[1]
            # otherwise the processor does more to the text than to write placeholders, and has to do it every time
            if size and torch.equal(inputs["input_ids"][:, known:], tail):
                self._heads[head] = (inputs, known)
            return inputs
        inputs, known = self._heads[head]
        filling = {
            "input_ids": tail,
            "attention_mask": torch.ones_like(tail),
            "mm_token_type_ids": torch.zeros_like(tail),
        }
        return {
            name: torch.cat([value[:, :known], filling[name].to(value.dtype)], 1) if name in filling else value
            for name, value in inputs.items()
        }


def answer(
    model: Any,
    processor: Any,
    question: Question,
    *,
    max_new_tokens: int = 64,
    traced: bool = False,
    on_token: Callable[[int], None] | None = None,
) -> Answer:
    """Answer greedily.

    Args:
        model: from `duet.load`, compression attached or not.
        processor: the model's.
        question: from `encode`.
        max_new_tokens: longest answer, in tokens.
        traced: record what is kept, which takes a little extra time. The model must have compression attached.
        on_token: called with each new token immediately; an exception in it ends the answer.

    Raises:
        UserError: more new tokens than the model has positions.
    """
    places = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if places is not None and max_new_tokens > places:
        raise UserError(f"max_new_tokens is {max_new_tokens}; this model has positions for {places} tokens in all")
    inputs = placed(question.inputs, model)
    clock = TokenClock(on_token)
    with torch.inference_mode(), record(model) if traced else nullcontext() as trace:
        output = model.generate(**inputs, streamer=clock, max_new_tokens=max_new_tokens, **GREEDY)
    prompt = inputs["input_ids"][0].cpu()
    new = output[0, len(prompt) :]
    text = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    return Answer(text, len(new), clock.prefill_ms, clock.decode_ms, prompt, trace)


def ask(model: Any, processor: Any, media: Sequence[Any], question: str, **options: Any) -> Answer:
    """`encode` and `answer` in one step."""
    return answer(model, processor, encode(model, processor, media, question), **options)


def visual_placeholders(config: Any, input_ids: Tensor) -> Tensor:
    """Visual tokens `[B]` that the processor reserved in prompts `[B, T]`, separators included."""
    return visual_marks(config, input_ids).sum(1)


def visual_marks(config: Any, input_ids: Tensor) -> Tensor:
    """`[B, T]` bool, the columns of these tokens."""
    names = ("image_token_id", "video_token_id")
    marks = [input_ids == getattr(config, name) for name in names if getattr(config, name, None) is not None]
    return torch.stack(marks).any(0)


def placed(inputs: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Processor output on the model's device, pixels in its dtype; frame times keep their dtype.

    Pixels without content (`duet.engine.seen`) stay as they are.
    """
    tensors = {name: torch.as_tensor(value) for name, value in inputs.items()}  # frame times may be a list
    return {
        name: value
        if value.is_meta
        else value.to(model.device, model.dtype if name.startswith("pixel_values") else None)
        for name, value in tensors.items()
    }
