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

from duet.engine.trace import record
from duet.errors import UserError
from duet.families import find_asking
from duet.text.placeholders import IMAGE, VIDEO
from duet.types import Clip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from duet.engine.trace import Trace
    from duet.types import Region

#: Settings of a checkpoint's generation_config.json that greedy decoding would warn about.
_NO_SAMPLING = {"temperature": None, "top_p": None, "top_k": None}


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


def encode(model: Any, processor: Any, media: Sequence[Any], question: str) -> Question:
    """Put a question into the family's prompt and through its processor.

    Args:
        model, processor: from `duet.load`.
        media: RGB pictures and `Clip`s, in the order of their placeholders; empty for a question without media.
        question: with an `<image>` or `<video>` for each of them, or with none.

    Raises:
        UserError: the placeholders do not match, the family takes no videos, or its prompts are not known.
    """
    asking = find_asking(model, processor)
    kinds = [VIDEO if isinstance(medium, Clip) else IMAGE for medium in media]
    if VIDEO in kinds and not asking.takes_videos:
        raise UserError(f"a model of type {model.config.model_type} takes only pictures, not videos")
    inputs = asking.encode(asking.prompt(question, kinds), media)
    return Question(inputs, media, asking.regions(inputs, media))


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
        output = model.generate(
            **inputs, streamer=clock, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, **_NO_SAMPLING
        )
    prompt = inputs["input_ids"][0].cpu()
    new = output[0, len(prompt) :]
    text = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    return Answer(text, len(new), clock.prefill_ms, clock.decode_ms, prompt, trace)


def ask(model: Any, processor: Any, media: Sequence[Any], question: str, **options: Any) -> Answer:
    """`encode` and `answer` in one step."""
    return answer(model, processor, encode(model, processor, media, question), **options)


def visual_placeholders(config: Any, input_ids: Tensor) -> Tensor:
    """Visual tokens `[B]` that the processor reserved in prompts `[B, T]`, separators included."""
    names = ("image_token_id", "video_token_id")
    marks = [input_ids == getattr(config, name) for name in names if getattr(config, name, None) is not None]
    return torch.stack(marks).any(0).sum(1)


def placed(inputs: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Processor output on the model's device, pixels in its dtype; frame times keep their dtype."""
    tensors = {name: torch.as_tensor(value) for name, value in inputs.items()}  # frame times may be a list
    return {
        name: value.to(model.device, model.dtype if name.startswith("pixel_values") else None)
        for name, value in tensors.items()
    }
