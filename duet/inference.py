"""One question about some pictures: RGB pictures and text in, answer and times out.

The shortest road through the project: prompt (`llava/prompts.py`, vicuna_v1), processor, greedy `generate`, decoding.
`duet ask`, `duet viz` and everything else that asks one question at a time takes it.

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
from llava.prompts import IMAGE, vicuna_v1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor

    from duet.engine.trace import Trace

#: Kind of model (`config.model_type`) -> the conversation that it was trained on.
TEMPLATES = {"llava": vicuna_v1}
#: Settings of a checkpoint's generation_config.json that greedy decoding would warn about.
_NO_SAMPLING = {"temperature": None, "top_p": None, "top_k": None}


@dataclass(frozen=True)
class Answer:
    """What came back for one question.

    Attributes:
        text: the answer, without special tokens.
        generated: number of new tokens, the closing one with them.
        prefill_ms: from the processed prompt to the first token: tower, projector, language model.
        decode_ms: the tokens behind the first one, all together.
        input_ids: `[T]`, the prompt with all its placeholders.
        trace: what was kept, where it was asked for.
    """

    text: str
    generated: int
    prefill_ms: float
    decode_ms: float
    input_ids: Tensor
    trace: Trace | None = None


class TokenClock(BaseStreamer):
    """Notes the time of every token. `generate` hands over tokens on the host, so the device has finished by then."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        """Called with the prompt, then with each new token."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to do behind the last token."""

    @property
    def prefill_ms(self) -> float:
        """Milliseconds from the prompt to the first new token."""
        return 1e3 * (self.times[1] - self.times[0])

    @property
    def decode_ms(self) -> float:
        """Milliseconds from the first new token to the last."""
        return 1e3 * (self.times[-1] - self.times[1])


def place_pictures(question: str, pictures: int) -> str:
    """The question with one placeholder per picture: its own, or one line each in front.

    Raises:
        UserError: the question has placeholders, but not as many as there are pictures.
    """
    own = question.count(IMAGE)
    if own == 0:
        return f"{IMAGE}\n" * pictures + question
    if own != pictures:
        raise UserError(f"the question has {own} {IMAGE} placeholder(s) for {pictures} picture(s); write one for each")
    return question


def ask(
    model: Any,
    processor: Any,
    pictures: Sequence[Image],
    question: str,
    *,
    max_new_tokens: int = 64,
    traced: bool = False,
) -> Answer:
    """Answer greedily.

    Args:
        model: from `duet.load`, compression attached or not.
        processor: of the model.
        pictures: RGB pictures, in the order of their placeholders; none for a question without picture.
        question: with or without `<image>` placeholders.
        max_new_tokens: where an answer is cut off.
        traced: record what is kept; this takes a little time of its own. The model must have compression attached.

    Raises:
        UserError: the placeholders do not fit the pictures, or the model speaks another conversation than `TEMPLATES`.
    """
    template = TEMPLATES.get(model.config.model_type)
    if template is None:
        raise UserError(
            f"questions can be asked to models of type {', '.join(TEMPLATES)}, not {model.config.model_type}"
        )
    text = template(place_pictures(question, len(pictures)))
    batch = processor(images=list(pictures) or None, text=text, return_tensors="pt")
    inputs = batch.to(model.device, model.dtype)
    clock = TokenClock()
    with torch.inference_mode(), record(model) if traced else nullcontext() as trace:
        output = model.generate(
            **inputs, streamer=clock, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, **_NO_SAMPLING
        )
    prompt = inputs["input_ids"][0].cpu()
    new = output[0, len(prompt) :]
    answer = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    return Answer(answer, len(new), clock.prefill_ms, clock.decode_ms, prompt, trace)
