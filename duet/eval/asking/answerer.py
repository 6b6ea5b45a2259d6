"""A model that answers batches of questions greedily, with the compression that is currently attached.

    answerer = Answerer.load("playground/mini/checkpoints/llava-mini")
    answerer.compress("duet", Budget.solve(22.2, answerer.backbone))
    answerer.answer([answerer.encode(text, images)], max_new_tokens=16)       # -> answers, times

One loaded model serves any number of methods and budgets; processed prompts are cached in memory.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

import duet
from duet.budget import Backbone, Budget
from duet.data.collate import collate
from duet.data.pictures import open_picture
from duet.data.video import read_clip
from duet.engine.attachment import attached
from duet.engine.cache import ReducedCache
from duet.engine.seen import Gallery, Picture, in_view
from duet.eval.asking.batches import EncodedPrompt
from duet.eval.asking.original import PiecesApart
from duet.families import find_asking, find_family, imported
from duet.inference import GREEDY, Shown, TokenClock, placed, visual_placeholders
from duet.interfaces import Asking
from duet.loading import load_stock
from duet.prompt_style import OWN

#: Two best logits closer than this may swap at another batch size or device.
TIE = {torch.float32: 1e-3, torch.float64: 1e-9}
HALF_PRECISION_TIE = 0.1
#: Bytes of processed prompts that are kept for the next method.
KEPT_BYTES = 1 << 30
#: Pictures and videos that are kept, decoded and processed, for the next questions about them.
KEPT_MEDIA = 4


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
    """See the module's docstring.

    Args:
        model, processor: a loaded model.
        source: folder or hub id of the model.
        tokenization: `original` for the token ids of the family's own evaluation code (`duet.eval.asking.original`).
    """

    def __init__(self, model: Any, processor: Any, source: str = "", tokenization: str = "right") -> None:
        self.tokenization = tokenization
        self.model = model
        self.processor = processor
        self.source = source
        self.method = "none"
        self.budget = Budget()
        self.gallery = Gallery()
        self.style = OWN
        self._warm = False
        self._encoded: OrderedDict[Any, EncodedPrompt] = OrderedDict()
        self._bytes = 0
        # questions about the same pictures follow each other, see `duet.eval.asking.batches.plan`
        self._show = lru_cache(KEPT_MEDIA)(self._open)

    @classmethod
    def load(cls, source: str, tokenization: str = "right", **loading: Any) -> Answerer:
        """From a checkpoint; `loading` goes to `load_stock`: device, dtype, model_base, ..."""
        model, processor = load_stock(source, **loading)
        return cls(model, processor, source, tokenization)

    @cached_property
    def asking(self) -> Asking:
        """The prompt builder of the model's family."""
        own = find_asking(self.model, self.processor)
        return cast(Asking, PiecesApart(own)) if self.tokenization == "original" else own

    @cached_property
    def backbone(self) -> Backbone:
        """Sizes of the model, to count tokens and operations with, for its family's standard prompt."""
        return Backbone.from_config(self.model.config)

    @property
    def compressed(self) -> bool:
        """Whether anything is attached; `none` is if its budget has late, frozen or absent tokens."""
        return self.method != "none" or self.budget != Budget()

    @cached_property
    def sizes_vary(self) -> bool:
        """Whether the number of visual tokens depends on the picture's size."""
        return imported(find_family(self.model)[1].vision).capped

    def compress(self, method: str, budget: Budget | str | None = None, **switches: Any) -> None:
        """Attach a method instead of the current one; `none` without a budget detaches."""
        self.gallery.forget_prefixes()
        if self.compressed:
            duet.detach(self.model)
        self.method, self.budget, self._warm = "none", Budget(), False
        if method == "none" and budget in (None, Budget()):
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
            shown = self._show(tuple(images), video)
            # `Shown` tokenizes the end of a prompt as the processor does
            inputs = shown.encode(text) if self.tokenization == "right" else self.asking.encode(text, shown.media)
            encoded = EncodedPrompt(inputs, self._visual(inputs, shown.media), key[1:] if shown.media else None)
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
    def answer(
        self, rows: Sequence[EncodedPrompt], max_new_tokens: int, share: bool = False
    ) -> tuple[list[Answer], dict[str, Any]]:
        """Answer a batch of encoded prompts greedily.

        Args:
            rows: the prompts.
            max_new_tokens: longest answer.
            share: keep what was read of their pictures for later questions, and use what earlier ones left. The stock
                model cannot.

        Returns:
            the answers, and a line of `timing.jsonl` about the batch (see `duet.eval.running.timing`).
        """
        begin = time.perf_counter()
        pictures = self._look(rows) if share and self.compressed else None
        reading = 1e3 * (time.perf_counter() - begin)
        clock, margins = TokenClock(), _Margins()
        with nullcontext() if pictures is None else in_view(self.model, pictures):
            batch = self._batch(rows, pictures)
            output = self.model.generate(
                **placed(batch, self.model),
                max_new_tokens=max_new_tokens,
                **GREEDY,
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
        return answers, _times(clock, len(rows), reading)

    def _open(self, images: tuple[str, ...], video: str | None) -> Shown:
        media: list[Any] = [open_picture(Path(path)) for path in images]
        media += [] if video is None else [read_clip(video, self.style.frames(self.asking))]
        return Shown(self.asking, self.processor, self.model.config, media)

    def _look(self, rows: Sequence[EncodedPrompt]) -> list[Picture] | None:
        """What was read of each row's pictures; None if they have none."""
        if any(row.shown is None for row in rows):
            return None
        return self.gallery.look(self.model, [(row.shown, row.inputs) for row in rows])

    def _batch(self, rows: Sequence[EncodedPrompt], pictures: Sequence[Picture] | None) -> dict[str, Tensor]:
        inputs = [row.inputs for row in rows]
        if pictures is not None:
            inputs = [picture.stand_in(one) for picture, one in zip(pictures, inputs, strict=True)]
        return collate(inputs, self.processor.tokenizer.pad_token_id)

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


def _times(clock: TokenClock, rows: int, reading: float) -> dict[str, Any]:
    times = {"prefill_ms": round(reading + clock.prefill_ms, 3), "decode_ms": round(clock.decode_ms, 3)}
    return {
        "rows": rows,
        **times,
        "steps": len(clock.times) - 2,
    }  # the first mark is the prompt's, the second the prefill's


def _size(encoded: EncodedPrompt) -> int:
    return sum(value.nbytes for value in encoded.inputs.values())
