"""The served model: prompts, the budgets that requests may choose, and batches of answers."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers import LogitsProcessorList, StoppingCriteriaList

import duet
from duet.budget.counts import mean_over_layers
from duet.data.collate import collate
from duet.engine.recording import record
from duet.engine.seen import PER_TOKEN, Gallery, Picture, in_view
from duet.engine.trace import Trace
from duet.errors import UserError
from duet.families import find_asking, find_family, imported
from duet.inference import placed, visual_placeholders
from duet.serve.errors import refuse
from duet.serve.jobs import Encoded, Job, Usage
from duet.serve.prompts import Prompts
from duet.serve.rows import Choosing, Handing, Row
from duet.serve.schema import Sampling
from duet.text.placeholders import IMAGE

if TYPE_CHECKING:
    from duet.budget import Budget

log = logging.getLogger("duet.serve")

#: Width and height of the test picture at start-up.
WARM_UP = (448, 448)


@dataclass(frozen=True)
class Setting:
    """A method with its budget.

    Attributes:
        method: a name of `duet.methods()`.
        solve: `visual tokens of each picture, crop or frame of a prompt -> what is kept`; None: everything.
    """

    method: str
    solve: Callable[[tuple[int, ...]], Budget] | None = None


class Served:
    """A loaded model. `encode` may be called by any thread, `answer` by the worker's only.

    Args:
        model, processor: from `duet.load`, nothing attached.
        settings: name of a budget -> what is attached for it; the first is the default.
        switches: of the method, as `duet.attach` takes them.
        keep: bytes of pictures that were read and are kept for further questions about them; 0 keeps none.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        settings: Mapping[str, Setting],
        switches: Mapping[str, str | None] | None = None,
        keep: int = 1 << 30,
    ) -> None:
        self.model, self.processor = model, processor
        self.settings, self.switches = dict(settings), dict(switches or {})
        self.asking = find_asking(model, processor)
        self.prompts = Prompts(self.asking, processor)
        config = model.config.get_text_config()
        self.layers: int = config.num_hidden_layers
        self.context: int = config.max_position_embeddings
        ends = model.generation_config.eos_token_id
        self.ends = frozenset(ends if isinstance(ends, list) else [ends]) - {None}
        self._sizes_vary = imported(find_family(model)[1].vision).capped
        self._attached: Budget | None = None
        self.gallery = Gallery(prefix_bytes=keep) if keep else None
        # processors and fast tokenizers are not thread-safe; the worker has its own tokenizer
        self._processing = threading.Lock()
        self._tokenizer = copy.deepcopy(processor.tokenizer)

    @property
    def default(self) -> str:
        """Name of the default budget."""
        return next(iter(self.settings))

    def encode(self, prompt: str, media: Sequence[Any], budget: str, new_tokens: int) -> Encoded:
        """Process a prompt with its pictures and videos.

        Args:
            prompt: from `Prompts.write`.
            media: its pictures and clips, in order.
            budget: a name of `settings`.
            new_tokens: longest answer.

        Raises:
            ApiError: the budget does not fit the prompt, or prompt and answer are longer than the model's context.
        """
        inputs, sizes, visual = self._process(prompt, media)
        try:
            keeps = self._solve(budget, sizes)
        except UserError as error:
            log.info("budget %s on %s visual tokens: %s", budget, sizes, error)
            message = f"duet.budget: {budget!r} is not possible for this prompt of {visual} visual tokens"
            raise refuse(message, "duet.budget", "budget_out_of_reach") from None
        shown = _hash(inputs) if self.gallery is not None and keeps is not None else ""
        encoded = Encoded(inputs, visual, keeps, shown)
        if encoded.length + new_tokens > self.context:
            raise refuse(
                f"messages: a prompt of {encoded.length} tokens and an answer of up to {new_tokens} exceed the "
                f"{self.context} tokens of the model's context",
                "messages",
                "context_length_exceeded",
            )
        return encoded

    def warm_up(self) -> None:
        """Answer a question about a grey picture under every budget, to warm up.

        Raises:
            UserError: a budget does not fit the model or the method.
        """
        inputs, sizes, visual = self._process(self.asking.prompt("?", [IMAGE]), [Image.new("RGB", WARM_UP, "grey")])
        for name in reversed(self.settings):
            try:
                encoded = Encoded(inputs, visual, self._solve(name, sizes))
            except UserError:
                if self._sizes_vary:  # it may work on larger pictures
                    continue
                raise
            self.answer([Job(encoded, Sampling(max_tokens=2), name, lambda _: None, math.inf)])

    def _process(self, prompt: str, media: Sequence[Any]) -> tuple[Mapping[str, Any], tuple[int, ...], int]:
        """Processor output, visual tokens of each picture, crop or frame, and of all of them as `Encoded` counts."""
        with self._processing:
            inputs = self.asking.encode(prompt, media)
            sizes = tuple(region.patches for region in self.asking.regions(inputs, media))
        fixed = int(visual_placeholders(self.model.config, inputs["input_ids"])[0])
        return inputs, sizes, sum(sizes) if self._sizes_vary else fixed

    def _solve(self, name: str, sizes: tuple[int, ...]) -> Budget | None:
        solve = self.settings[name].solve
        return None if solve is None or not sizes else solve(sizes)

    def _attach(self, method: str, budget: Budget | None) -> None:
        """Switch to this method and budget; free if nothing changes."""
        if budget == self._attached:
            return
        if self._attached is not None:
            duet.detach(self.model)
        self._attached = None
        if budget is not None:
            options: dict[str, Any] = {"tokenizer": self._tokenizer, **self.switches}
            duet.attach(self.model, method, budget, **options)
        self._attached = budget

    @torch.inference_mode()
    def answer(self, jobs: Sequence[Job]) -> None:
        """Answer jobs of the same budget in a batch; every job gets its events as they come."""
        budget = jobs[0].encoded.keeps
        self._attach(self.settings[jobs[0].budget].method, budget)
        pictures = self._look(jobs)
        inputs = [job.encoded.inputs for job in jobs]
        if pictures:
            inputs = [picture.stand_in(one) for picture, one in zip(pictures, inputs, strict=True)]
        batch = collate(inputs, self.processor.tokenizer.pad_token_id)
        with (
            in_view(self.model, pictures) if pictures else nullcontext(),
            nullcontext(Trace()) if budget is None else record(self.model) as trace,
        ):
            rows = [
                Row(job, self._tokenizer, self.ends, partial(self._usage, job, trace, number))
                for number, job in enumerate(jobs)
            ]
            self._generate(batch, rows)

    def _look(self, jobs: Sequence[Job]) -> list[Picture]:
        """What was read of the pictures of each job; empty where nothing is kept."""
        if self.gallery is None or not all(job.encoded.shown for job in jobs):
            return []
        setting = (self.settings[jobs[0].budget].method, jobs[0].encoded.keeps)
        return self.gallery.look(self.model, [(job.encoded.shown, job.encoded.inputs) for job in jobs], setting)

    def _generate(self, batch: Mapping[str, Any], rows: Sequence[Row]) -> None:
        self.model.generate(
            **placed(batch, self.model),
            max_new_tokens=max(row.job.sampling.max_tokens for row in rows),
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            logits_processor=LogitsProcessorList([Choosing(rows)]),
            stopping_criteria=StoppingCriteriaList([Handing(rows)]),
        )

    def _usage(self, job: Job, trace: Trace, row: int, completion: int) -> Usage:
        counts = trace.counts(row) if trace.entered else {0: job.encoded.visual}
        kept, boundaries = list(counts.values()), list(counts)
        average = mean_over_layers(kept, boundaries, self.layers)
        return Usage(job.encoded.length, completion, job.encoded.visual, tuple(kept), tuple(boundaries), average)


def _hash(inputs: Mapping[str, Any]) -> str:
    """Of everything about a prompt's pictures and videos."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(set(inputs) - set(PER_TOKEN)):
        value = torch.as_tensor(inputs[name]).contiguous()
        found.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        found.update(value.view(torch.uint8).numpy().data if value.ndim else str(value).encode())
    return found.hexdigest()
