"""The model that is served: its prompts, the budgets that requests may ask for, and batches of answers."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

import duet
from duet.budget.counts import mean_over_layers
from duet.engine.trace import Trace, record
from duet.eval.asking.batches import collate
from duet.families import find_asking, find_family, imported
from duet.inference import placed, visual_placeholders
from duet.serve.errors import refuse
from duet.serve.jobs import Encoded, Job, Usage
from duet.serve.prompts import Prompts
from duet.serve.rows import Choosing, Handing, Row

if TYPE_CHECKING:
    from duet.budget import Budget


@dataclass(frozen=True)
class Setting:
    """A method with its budget; None: all visual tokens.

    Attributes:
        method: a name of `duet.methods()`.
        budget: what it keeps.
    """

    method: str
    budget: Budget | None = None


class Served:
    """A loaded model. `encode` may be called by any thread, `answer` by the worker's only.

    Args:
        model, processor: from `duet.load`, nothing attached.
        settings: name of a budget -> what is attached for it; the first is the server's own.
        switches: of the method, as `duet.attach` takes them.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        settings: Mapping[str, Setting],
        switches: Mapping[str, str | None] | None = None,
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
        self._attached: str | None = None
        # processors and fast tokenizers are no friends of several threads; decoding has a tokenizer of its own
        self._processing = threading.Lock()
        self._tokenizer = copy.deepcopy(processor.tokenizer)

    @property
    def default(self) -> str:
        """Name of the server's own budget."""
        return next(iter(self.settings))

    def encode(self, prompt: str, media: Sequence[Any], new_tokens: int) -> Encoded:
        """Process a prompt with its pictures and videos.

        Args:
            prompt: from `Prompts.write`.
            media: its pictures and clips, in order.
            new_tokens: that the answer may have.

        Raises:
            ApiError: the prompt and its answer are longer than the model's context.
        """
        with self._processing:
            inputs = self.asking.encode(prompt, media)
            encoded = Encoded(inputs, self._visual(inputs, media))
        if encoded.length + new_tokens > self.context:
            raise refuse(
                f"messages: a prompt of {encoded.length} tokens and an answer of up to {new_tokens} are more than the "
                f"{self.context} tokens of the model's context",
                "messages",
                "context_length_exceeded",
            )
        return encoded

    def _visual(self, inputs: Mapping[str, Any], media: Sequence[Any]) -> int:
        if self._sizes_vary:
            return sum(region.patches for region in self.asking.regions(inputs, media))
        return int(visual_placeholders(self.model.config, inputs["input_ids"])[0])

    def attach(self, name: str) -> None:
        """Put the method and budget of this name in place of the ones before; cheap where they are the same.

        Raises:
            UserError: they don't fit the model.
        """
        if name == self._attached:
            return
        setting = self.settings[name]
        if self._attached is not None and self.settings[self._attached].budget is not None:
            duet.detach(self.model)
        self._attached = None
        if setting.budget is not None:
            options = {"tokenizer": self.processor.tokenizer, **self.switches}
            duet.attach(self.model, setting.method, setting.budget, **options)
        self._attached = name

    @torch.inference_mode()
    def answer(self, jobs: Sequence[Job]) -> None:
        """Answer jobs of one budget in a batch; every job gets its events as soon as there are any."""
        self.attach(jobs[0].budget)
        compressed = self.settings[jobs[0].budget].budget is not None
        batch = collate([job.encoded.inputs for job in jobs], self.processor.tokenizer.pad_token_id)
        trace = Trace()
        rows = [
            Row(job, self._tokenizer, self.ends, partial(self._usage, job, trace, number))
            for number, job in enumerate(jobs)
        ]
        if compressed:
            with record(self.model) as seen:
                # rows read what the prompt kept while the batch still runs
                trace.__dict__ = seen.__dict__
                self._generate(batch, rows)
        else:
            self._generate(batch, rows)

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
