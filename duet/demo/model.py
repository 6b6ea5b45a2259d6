"""The model behind the page: one set of weights, methods attached in turn, answers token by token."""

from __future__ import annotations

import copy
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

import duet
from duet.budget import Backbone, Budget
from duet.demo.costs import ALL, Cost, Prompt, compare, sized
from duet.demo.uploads import LIMITS
from duet.errors import UserError
from duet.families import find_asking, find_family
from duet.inference import Answer, Question, answer, encode, visual_placeholders
from duet.method_table import ALIASES, METHODS, find_method
from duet.registry import missing_needs
from duet.serve.limits import Limits
from duet.serve.text import Writer

if TYPE_CHECKING:
    from duet.families import Family
    from duet.method_table import Method

log = logging.getLogger("duet.demo")

#: Message for an error that is not the visitor's.
FAILED = "this failed; the log of the demo says why"
#: Needs of methods that require a second checkpoint.
_COMPANION = {"clip_text_embeds", "clip_image_embeds"}
#: Width and height of the picture for the warm-up.
WARM_UP = (448, 448)


@dataclass(frozen=True)
class Pane:
    """One entry of a comparison while it runs.

    Attributes:
        cost: the method and its predicted cost.
        state: `waiting`, `running`, `done` or `failed`.
        text: of the answer so far.
        answer: when it is done.
        problem: why it failed.
    """

    cost: Cost
    state: str = "waiting"
    text: str = ""
    answer: Answer | None = None
    problem: str = ""


class _Stopped(Exception):
    """The answer is no longer needed."""


class Demo:
    """A loaded model. Any thread may call any method.

    Args:
        model, processor: from `duet.load`, nothing attached.
        name: of the model, for the page.
        limits: of a question; `new_tokens` and `timeout` of its answers.
    """

    def __init__(self, model: Any, processor: Any, name: str, limits: Limits = LIMITS) -> None:
        self.model, self.processor, self.name, self.limits = model, processor, name, limits
        self.asking = find_asking(model, processor)
        self.backbone = Backbone.from_config(model.config)
        self.context: int = model.config.get_text_config().max_position_embeddings
        family = find_family(model)[1]
        self.family = family.name
        self.methods = [name for name in (*ALIASES, *METHODS) if _runs(find_method(name), family)]
        self.weights = threading.Lock()
        # processors and fast tokenizers are not thread-safe; decoding has its own tokenizer
        self._processing = threading.Lock()
        self.tokenizer = copy.deepcopy(processor.tokenizer)

    def encode(self, medium: Any, question: str) -> Question:
        """Encode a question about one picture or clip.

        Raises:
            UserError: no question, one that is too long for the model or the limits, or placeholders in it.
        """
        text = question.strip()
        if not text:
            raise UserError("ask a question about the picture")
        if len(text) > self.limits.text:
            raise UserError(f"the question has {len(text)} characters; the limit is {self.limits.text}")
        with self._processing:
            made = encode(self.model, self.processor, [medium], text)
        length = made.inputs["input_ids"].shape[1]
        if length + self.limits.new_tokens > self.context:
            raise UserError(
                f"{length} tokens of the prompt and up to {self.limits.new_tokens} of the answer exceed the "
                f"{self.context} tokens of this model's context: ask a shorter question, or use a smaller picture"
            )
        return made

    def measure(self, question: Question) -> Prompt:
        """What the costs of a question depend on."""
        ids = question.inputs["input_ids"]
        visual = int(visual_placeholders(self.model.config, ids)[0])
        sizes = tuple(region.patches for region in question.regions)
        return Prompt(sizes, ids.shape[1] - visual, visual > sum(sizes))

    def full(self, prompt: Prompt) -> int:
        """Visual tokens of a prompt that enter the language model without compression."""
        return sized(self.backbone, prompt).full

    def costs(self, methods: Sequence[str], average: float, prompt: Prompt) -> list[Cost]:
        """See `duet.demo.costs.compare`."""
        return compare(methods, average, self.backbone, prompt, self.model.dtype.itemsize)

    def warm_up(self, methods: Sequence[str]) -> None:
        """Answer once with all tokens and with each method, to warm up.

        Raises:
            UserError: a method does not run on this model.
        """
        question = self.encode(Image.new("RGB", WARM_UP, "grey"), "?")
        prompt = self.measure(question)
        for cost in self.costs(methods, self.full(prompt) * 2 / 9, prompt):
            if cost.budget is not None:
                self.run_side(cost, question)

    def answer(self, question: Question, costs: Sequence[Cost]) -> Iterator[list[Pane]]:
        """Answer with each method in turn.

        Args:
            question: from `encode`.
            costs: of the methods, from `costs`.

        Yields:
            all panes, whenever one has changed. If the generator is closed, the model stops at its next token.
        """
        run = _Run(self, question, [Pane(cost) for cost in costs])
        # a separate thread, so a visitor who leaves does not hold the weights
        threading.Thread(target=run.run, name="duet-demo", daemon=True).start()
        try:
            yield list(run.panes)
            while (panes := run.changes.get()) is not None:
                yield panes
        finally:
            run.stop.set()

    def run_side(self, cost: Cost, question: Question, on_token: Callable[[int], None] | None = None) -> Answer:
        """Attach, answer, take off again."""
        options: dict[str, Any] = {"max_new_tokens": self.limits.new_tokens, "on_token": on_token}
        if cost.method == ALL:
            with self.weights:
                return answer(self.model, self.processor, question, **options)
        with self.attached(cost.method, cost.budget):
            return answer(self.model, self.processor, question, traced=True, **options)

    @contextmanager
    def attached(self, method: str, budget: Budget | None = None) -> Iterator[None]:
        """The weights with a method on them, for nobody else; taken off at the end."""
        with self.weights:
            duet.attach(self.model, method, budget, tokenizer=self.processor.tokenizer)
            try:
                yield
            finally:
                duet.detach(self.model)


class _Run:
    """One question, answered with all methods in its own thread.

    Attributes:
        panes: the current ones; changes: all panes after each change, then None.
        stop: set when the answers are no longer needed.
    """

    def __init__(self, demo: Demo, question: Question, panes: list[Pane]) -> None:
        self.demo, self.question, self.panes = demo, question, panes
        self.changes: queue.SimpleQueue[list[Pane] | None] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._deadline = time.monotonic() + demo.limits.timeout

    def run(self) -> None:
        """Answer with each method in turn."""
        try:
            for number in range(len(self.panes)):
                self._answer(number)
        except _Stopped:
            log.info("a visitor left before the end of an answer")
        finally:
            self.changes.put(None)

    def _answer(self, number: int) -> None:
        cost, writer = self.panes[number].cost, Writer(self.demo.tokenizer)

        def take(token: int) -> None:
            self._check()
            piece = writer.put(token)
            if piece:
                self._change(number, text=self.panes[number].text + piece)

        if cost.budget is None:
            self._change(number, state="failed", problem=cost.problem)
            return
        self._change(number, state="running")
        try:
            self._check()
            done = self.demo.run_side(cost, self.question, take)
            self._change(number, state="done", text=done.text, answer=done)
        except _Stopped:
            if self.stop.is_set():
                raise
            self._change(number, state="failed", problem="this took longer than the demo allows")
        except UserError as error:
            self._change(number, state="failed", problem=str(error))
        except Exception:
            log.exception("%s failed", cost.method)
            self._change(number, state="failed", problem=FAILED)

    def _check(self) -> None:
        if self.stop.is_set() or time.monotonic() > self._deadline:
            raise _Stopped

    def _change(self, number: int, **fields: Any) -> None:
        self.panes[number] = replace(self.panes[number], **fields)
        self.changes.put(list(self.panes))


def _runs(method: Method, family: Family) -> bool:
    """Whether a method drops tokens, and runs on a family with only the model's checkpoint."""
    needs = method.reducer.build().needs if method.reducer else frozenset()
    return bool(method.stages) and not needs & _COMPANION and not missing_needs(method, family)


def check_methods(demo: Demo, methods: Sequence[str]) -> list[str]:
    """The names without duplicates.

    Raises:
        UserError: an unknown method, or one that does not run on this model.
    """
    for name in methods:
        find_method(name)
        if name not in demo.methods:
            raise UserError(f"method {name} does not run on {demo.family} here; choose {', '.join(demo.methods)}")
    return list(dict.fromkeys(methods))


def title_of(path: str) -> str:
    """A hub id, or the name of a folder without its path."""
    return Path(path).resolve().name if Path(path).is_dir() else path
