"""A model that answers batches of questions greedily, with the compression that is currently attached.

    answerer = Answerer.load("playground/mini/checkpoints/llava-mini")
    answerer.compress("duet", Budget.solve(22.2, answerer.backbone))
    answerer.answer([answerer.encode(text, images)], max_new_tokens=16)       # -> answers, times

One loaded model serves any number of methods and budgets; processed prompts are cached in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

import duet
from duet.budget import Backbone, Budget
from duet.data.collate import collate
from duet.data.pictures import open_picture
from duet.data.video import read_clip
from duet.engine.attach import attached
from duet.engine.cache import ReducedCache
from duet.eval.asking.batches import EncodedPrompt
from duet.families import find_asking, find_family, imported
from duet.inference import TokenClock, placed, visual_placeholders
from duet.interfaces import Asking
from duet.loading import load_stock

#: Two best logits closer than this may swap at another batch size or device.
TIE = {torch.float32: 1e-3, torch.float64: 1e-9}
HALF_PRECISION_TIE = 0.1
#: Bytes of processed prompts that are kept for the next method.
KEPT_BYTES = 1 << 30
#: Videos whose frames are kept for the next questions about them.
KEPT_VIDEOS = 4


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: decoded, without special tokens and outer whitespace.
        full: visual tokens of the prompt, had nothing been reduced; separators (LLaVA-NeXT's newlines) not counted.
        kept: those at each boundary of the budget: entering the language model (0 with a late entry), entering late,
            and left after each of its layers.
        tie: at some token the two best logits were so close that another batch size may answer otherwise.
    """

    text: str
    full: int
    kept: tuple[int, ...]
    tie: bool


class Answerer:
    """See the module's docstring. `source` is the folder or hub id of the model."""

    def __init__(self, model: Any, processor: Any, source: str = "") -> None:
        self.model = model
        self.processor = processor
        self.source = source
        self.method = "none"
        self.budget = Budget()
        self._warm = False
        self._encoded: OrderedDict[Any, EncodedPrompt] = OrderedDict()
        self._bytes = 0
        # questions about one video follow each other, see `duet.eval.asking.batches.plan`
        self._read_video = lru_cache(KEPT_VIDEOS)(lambda path: read_clip(path, self.asking.frames))

    @classmethod
    def load(cls, source: str, **loading: Any) -> Answerer:
        """From a checkpoint; `loading` goes to `load_stock`: device, dtype, model_base, ..."""
        model, processor = load_stock(source, **loading)
        return cls(model, processor, source)

    @cached_property
    def asking(self) -> Asking:
        """The prompt builder of the model's family."""
        return find_asking(self.model, self.processor)

    @cached_property
    def backbone(self) -> Backbone:
        """Sizes of the model, to count tokens and operations with, for its family's standard prompt."""
        return Backbone.from_config(self.model.config)

    @cached_property
    def sizes_vary(self) -> bool:
        """Whether the number of visual tokens depends on the picture's size."""
        return imported(find_family(self.model)[1].vision).capped

    def compress(self, method: str, budget: Budget | str | None = None, **switches: Any) -> None:
        """Attach a method instead of the current one; `none` detaches."""
        if self.method != "none":
            duet.detach(self.model)
        self.method, self.budget, self._warm = "none", Budget(), False
        if method == "none":
            return
        duet.attach(self.model, method, budget, tokenizer=self.processor.tokenizer, **switches)
        self.method, self.budget = method, attached(self.model).compression.budget

    def text_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, a picture or video counted as one."""
        return [len(ids) for ids in self.processor.tokenizer(list(texts))["input_ids"]]

    def encode(self, text: str, images: Sequence[str], video: str | None = None) -> EncodedPrompt:
        """Processor output of one prompt.

        Raises:
            DataError: a picture or the video is missing or cannot be read; the message names it.
        """
        key = (text, tuple(images), video)
        if key not in self._encoded:
            media: list[Any] = [open_picture(Path(path)) for path in images]
            media += [] if video is None else [self._read_video(video)]
            inputs = self.asking.encode(text, media)
            encoded = EncodedPrompt(inputs, self._visual(inputs, media))
            self._encoded[key] = encoded
            self._bytes += _size(encoded)
            while self._bytes > KEPT_BYTES and len(self._encoded) > 1:
                self._bytes -= _size(self._encoded.popitem(last=False)[1])
        return self._encoded[key]

    def warm_up(self, rows: Sequence[EncodedPrompt]) -> None:
        """Answer a batch to warm up, the first time after `compress`, so that loading and compiling is not timed."""
        if not self._warm:
            self.answer(rows, max_new_tokens=1)
            self._warm = True

    @torch.inference_mode()
    def answer(self, rows: Sequence[EncodedPrompt], max_new_tokens: int) -> tuple[list[Answer], dict[str, Any]]:
        """Answer a batch of encoded prompts greedily.

        Returns:
            the answers, and a line of `timing.jsonl` about the batch (see `duet.eval.running.timing`).
        """
        batch = collate([row.inputs for row in rows], self.processor.tokenizer.pad_token_id)
        inputs = placed(batch, self.model)
        clock, margins = TokenClock(), _Margins()
        output = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            logits_processor=LogitsProcessorList([margins]),
            streamer=clock,
            return_dict_in_generate=True,
        )
        tokens = output.sequences[:, batch["input_ids"].shape[1] :].cpu()
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        ties = self._ties(tokens, margins)
        full = [row.visual for row in rows]
        kept = self._kept(full, output.past_key_values)
        found = zip(texts, full, kept, ties, strict=True)
        answers = [Answer(text.strip(), before, left, tie) for text, before, left, tie in found]
        return answers, _times(clock, len(rows))

    def _visual(self, inputs: Mapping[str, Tensor], media: Sequence[Any]) -> int:
        if self.sizes_vary:
            return sum(region.patches for region in self.asking.regions(inputs, media))
        return int(visual_placeholders(self.model.config, inputs["input_ids"])[0])

    def _kept(self, full: Sequence[int], cache: Any) -> list[tuple[int, ...]]:
        """Visual tokens per row at each boundary of the budget, counted in the cache."""
        layers = self.budget.boundaries(self.backbone.decoder.layers)
        if not isinstance(cache, ReducedCache):
            return [(count,) * len(layers) for count in full]
        segments = cache.prompt.segments
        left = [next(s.visual for s in reversed(segments) if s.start <= layer).cpu() for layer in layers]
        return [tuple(row) for row in torch.stack(left, 1).tolist()]

    def _ties(self, tokens: Tensor, margins: _Margins) -> list[bool]:
        closest = TIE.get(self.model.dtype, HALF_PRECISION_TIE)
        ends = self.model.generation_config.eos_token_id
        ended = torch.isin(tokens, torch.as_tensor(ends)).long()
        running = ended.cumsum(1) - ended == 0
        return ((torch.stack(margins.steps, 1) <= closest) & running).any(1).tolist()


class _Margins(LogitsProcessor):
    """Changes nothing; records the margin between the two best logits, `[B]` per step."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        best = scores.topk(2).values
        self.steps.append((best[:, 0] - best[:, 1]).cpu())
        return scores


def _times(clock: TokenClock, rows: int) -> dict[str, Any]:
    times = {"prefill_ms": round(clock.prefill_ms, 3), "decode_ms": round(clock.decode_ms, 3)}
    return {
        "rows": rows,
        **times,
        "steps": len(clock.times) - 2,
    }  # the first mark is the prompt's, the second the prefill's


def _size(encoded: EncodedPrompt) -> int:
    return sum(value.nbytes for value in encoded.inputs.values())
