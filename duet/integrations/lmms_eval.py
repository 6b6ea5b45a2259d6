"""`python -m lmms_eval --model duet`: our models, methods and budgets on lmms-eval's benchmarks.

    python -m lmms_eval --model duet --tasks pope --batch_size 8 \\
        --model_args pretrained=llava-hf/llava-1.5-7b-hf,method=duet,budget=llava15_128

lmms-eval imports this module when the model is asked for, through `duet.integrations.lmms_eval_models`. The chat class
is preferred; `--force_simple` takes the other one, which multiple-choice tasks scored by likelihood need.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages
from tqdm import tqdm

import duet
from duet.data.collate import collate
from duet.errors import UserError
from duet.eval.asking.batches import plan
from duet.families import find_asking
from duet.inference import placed
from duet.integrations.conversations import Question, chat_question, simple_question
from duet.integrations.generation import Generation, read_generation

#: Between names in `ignore=`: commas and equals signs separate model_args themselves.
SEPARATOR = ";"


class _Duet(lmms):
    """Shared by both classes.

    Args:
        pretrained: local folder or hub id.
        method, budget: see `duet.load`; without a method, the checkpoint's own, and `none` for all tokens.
        batch_size: most questions answered together.
        device: torch's name of it; one per process under `accelerate launch`.
        system_prompt: a system message for every conversation without one (chat only), or a file of it.
        ignore: names of `generation_kwargs` to go on without, separated by `;`.
        options: further ones of `duet.load`: switches of the method, dtype, attn_implementation, ...

    Raises:
        UserError: an unknown name or value.
    """

    def __init__(
        self,
        pretrained: str,
        method: str | None = None,
        budget: str | float | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
        system_prompt: str | None = None,
        ignore: str = "",
        **options: Any,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1 or max_batch_size is not None:
            raise UserError(f"batch_size is {batch_size!r}; give a number of questions, and no max_batch_size")
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from accelerate import Accelerator

            self.accelerator = Accelerator()
            self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
            device = str(self.accelerator.device)
        if device is not None and "device_map" not in options:
            options["device"] = device
        self._model, self.processor = duet.load(pretrained, method, budget, **options)
        self.asking = find_asking(self._model, self.processor)
        self.batch_size = int(batch_size)
        self.system_prompt = self._resolve_system_prompt(system_prompt) if system_prompt else None
        self.ignored = tuple(name for name in ignore.split(SEPARATOR) if name)

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return self._model.device

    def document(self, task: str, split: str, number: Any) -> Any:
        """A row of a task's data."""
        return self.task_dict[task][split][number]

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Answer questions, in batches of those with the same settings."""
        settings = [read_generation(self.settings_of(request.args), self.ignored) for request in requests]
        found: list[GenerationResult | None] = [None] * len(requests)
        progress = tqdm(total=len(requests), disable=self.rank != 0, desc="duet")
        for numbers in _alike([repr(setting) for setting in settings]):
            questions = [self.question_of(requests[number].args) for number in numbers]
            texts = [question.text for question in questions]
            words = [len(ids) for ids in self.processor.tokenizer(texts)["input_ids"]]
            sizes = [(len(q.media), count - len(q.media)) for q, count in zip(questions, words, strict=True)]
            for batch in plan(sizes, self.batch_size):
                answers = self._answer([questions[place] for place in batch], settings[numbers[0]])
                for place, answer in zip(batch, answers, strict=True):
                    request = requests[numbers[place]]
                    found[numbers[place]] = answer
                    key = (questions[place].text, self.settings_of(request.args))
                    self.cache_hook.add_partial("generate_until", key, answer.text)
                progress.update(len(batch))
        progress.close()
        return [answer for answer in found if answer is not None]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """Answer question after question of each row, until its task says that it is over."""
        found = []
        for request in tqdm(requests, disable=self.rank != 0, desc="duet"):
            setting = read_generation(self.settings_of(request.args), self.ignored)
            answers: list[str] = []
            for question in self.rounds_of(request.args, answers):
                answers.append(self._answer([question], setting)[0].text)
            key = (request.args[0], self.settings_of(request.args))
            self.cache_hook.add_partial("generate_until_multi_round", key, answers)
            found.append(answers)
        return found

    def loglikelihood(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Score of each continuation, and whether greedy decoding would generate it.

        A continuation never votes on pictures (`duet.loglikelihood`). Its tokens are those that it adds to the text of
        the prompt; after a prompt that ends in a space or line break, its own leading spaces are dropped.

        lmms-eval 0.7 chooses the smallest score among the choices of a question, so for them (texts) it is the negative
        sum of log-probabilities; for a task's own `doc_to_target` it is the sum. It turns pairs into text unless they
        come in a `GenerationResult`.

        Raises:
            UserError: the metric `acc_mutual_info`, for which lmms-eval takes the largest score.
        """
        if any(len(request.args) == 2 for request in requests):
            raise UserError("acc_mutual_info: lmms-eval scores it with the opposite sign of acc; leave one of them out")
        found: list[GenerationResult | None] = [None] * len(requests)
        same = [repr((request.args[0], *request.args[3:])) for request in requests]
        for numbers in tqdm(list(_alike(same)), disable=self.rank != 0, desc="duet"):
            question = self.scored_question(requests[numbers[0]].args)
            inputs = placed(self.asking.encode(question.text, question.media), self._model)
            answers = [self._continuation(question.text, requests[number].args) for number in numbers]
            (scores,) = duet.loglikelihood(self._model, inputs, [answers], batch_size=self.batch_size)
            for number, score in zip(numbers, scores, strict=True):
                args = requests[number].args
                pair: Any = (-score.total if isinstance(args[1], str) else score.total, score.greedy)
                found[number] = GenerationResult(pair)
                self.cache_hook.add_partial("loglikelihood", (args[0], args[1]), pair)
        return [score for score in found if score is not None]

    def scored_question(self, args: tuple) -> Question:
        """The prompt of a likelihood request: `(context, continuation, doc_to_visual, doc_id, task, split)`."""
        context, _, visuals, number, task, split = args
        return simple_question(self.asking, context, visuals(self.document(task, split, number)))

    def _continuation(self, prompt: str, args: tuple) -> list[int]:
        text = args[1] if isinstance(args[1], str) else args[1](self.document(args[4], args[5], args[3]))
        text = text.lstrip() if prompt[-1:].isspace() else text
        before, after = self.processor.tokenizer([prompt, prompt + text])["input_ids"]
        if after[: len(before)] == before:
            return after[len(before) :]
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.inference_mode()
    def _answer(self, questions: Sequence[Question], setting: Generation) -> list[GenerationResult]:
        rows = [self.asking.encode(question.text, question.media) for question in questions]
        tokenizer = self.processor.tokenizer
        batch = placed(collate(rows, tokenizer.pad_token_id), self._model)
        stops = {"stop_strings": list(setting.stops), "tokenizer": tokenizer} if setting.stops else {}
        output = self._model.generate(**batch, **setting.arguments, **stops)
        new = output[:, batch["input_ids"].shape[1] :].cpu()
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        lengths = (new != tokenizer.pad_token_id).sum(1).tolist()
        return [
            GenerationResult(setting.cut(text), TokenCounts(row["input_ids"].shape[-1], length))
            for text, row, length in zip(texts, rows, lengths, strict=True)
        ]

    @abstractmethod
    def settings_of(self, args: tuple) -> Mapping[str, Any]:
        """The generation settings among a request's arguments."""

    @abstractmethod
    def question_of(self, args: tuple) -> Question:
        """The question of a request."""

    @abstractmethod
    def rounds_of(self, args: tuple, answers: list[str]) -> Iterator[Question]:
        """One question after the other; `answers` grows between them."""


class DuetChat(_Duet):
    """Takes a task's messages: `(context, doc_to_messages, gen_kwargs, doc_id, task, split)`."""

    is_simple = False

    def settings_of(self, args: tuple) -> Mapping[str, Any]:
        """The generation settings among a request's arguments."""
        return args[-4]

    def question_of(self, args: tuple) -> Question:
        """The question of a request."""
        to_messages, _, number, task, split = args[-5:]
        return self._question(to_messages(self.document(task, split, number)))

    def rounds_of(self, args: tuple, answers: list[str]) -> Iterator[Question]:
        """As the task's `doc_to_messages` writes them, round by round."""
        to_messages, _, number, task, split = args[-5:]
        document = self.document(task, split, number)
        yield self._question(to_messages(document))
        known = None
        while True:
            given = to_messages(
                document, round_idx=len(answers), previous_output=list(answers), previous_round_info=known
            )
            if not isinstance(given, tuple) or len(given) != 4 or given[1]:
                return
            known = given[3]
            yield self._question(given[0])

    def _question(self, messages: Sequence[Mapping[str, Any]]) -> Question:
        checked = [message.model_dump() for message in ChatMessages(messages=list(messages)).messages]
        if self.system_prompt and checked[0]["role"] != "system":
            checked.insert(0, {"role": "system", "content": self.system_prompt})
        return chat_question(self.asking, checked)


class DuetSimple(_Duet):
    """Takes a text and visuals: `(context, gen_kwargs, doc_to_visual, doc_id, task, split)`."""

    is_simple = True

    def __init__(self, pretrained: str, **options: Any) -> None:
        super().__init__(pretrained, **options)
        if self.system_prompt:
            raise UserError("system_prompt needs a conversation: leave out --force_simple")

    def settings_of(self, args: tuple) -> Mapping[str, Any]:
        """The generation settings among a request's arguments."""
        return args[1]

    def question_of(self, args: tuple) -> Question:
        """The question of a request."""
        context, _, visuals, number, task, split = args
        return simple_question(self.asking, context, visuals(self.document(task, split, number)))

    def rounds_of(self, args: tuple, answers: list[str]) -> Iterator[Question]:
        """As the task's `doc_to_text` writes them, round by round."""
        context, _, visuals, to_text, number, task, split = args
        document = self.document(task, split, number)
        yield simple_question(self.asking, context, visuals(document))
        known = None
        while True:
            seen, text, over, _, known = to_text(
                document, round_idx=len(answers), previous_output=list(answers), previous_round_info=known
            )
            if over:
                return
            yield simple_question(self.asking, text, seen)


def _alike(keys: Sequence[str]) -> Iterator[list[int]]:
    """Numbers of equal keys, each group ascending, in order of first appearance."""
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    ordered = sorted(range(len(keys)), key=lambda number: (first[keys[number]], number))
    for _, group in groupby(ordered, key=lambda number: first[keys[number]]):
        yield list(group)
