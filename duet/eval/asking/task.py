"""The questions of a task as prompts and batches, with hashes that identify them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from duet.data.video import check_reader
from duet.errors import UserError
from duet.eval.asking.answerer import Answerer
from duet.eval.asking.batches import plan
from duet.eval.benchmarks import get
from duet.eval.scoring.benchmark import FileBenchmark
from duet.eval.scoring.subset import Subset
from duet.eval.types import Sample
from duet.interfaces import Asking
from duet.prompt_style import OWN, PromptStyle
from duet.text.placeholders import IMAGE, VIDEO


@dataclass(frozen=True)
class Task:
    """The questions of one task.

    Attributes:
        benchmark: reader, parser and metric.
        root: folder that it was read from.
        max_new_tokens: where an answer is cut off.
        samples: questions in official order; subset: which part of the whole they are, None for all.
        prompts: what the model reads, placeholders not yet repeated; sizes: `(pictures and videos, text tokens)` of
            each; batches: question numbers.
        settings: those of the above that determine the answers, for the header of the result.
    """

    benchmark: FileBenchmark
    root: Path
    max_new_tokens: int
    samples: list[Sample]
    subset: Subset | None
    prompts: list[str]
    sizes: list[tuple[int, int]]
    batches: list[list[int]]
    settings: dict[str, Any]

    @property
    def repeats(self) -> bool:
        """Whether there are at least three questions about two pictures, on average."""
        shown = [tuple(media(sample)) for sample in self.samples]
        pictured = [paths for paths in shown if paths]
        return len(pictured) >= 1.5 * len(set(pictured)) > 0


def read_task(
    answerer: Answerer,
    name: str,
    root: str | Path,
    batch_size: int,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    style: PromptStyle = OWN,
) -> Task:
    """Read a task and plan its batches.

    Args:
        answerer: whose tokenizer measures the prompts.
        name: of the benchmark.
        root: folder of all benchmarks, or this one's own.
        batch_size: most questions in a batch.
        limit: most questions; from more, a subset is drawn evenly over the categories, see `duet.eval.scoring.subset`.
        max_new_tokens: maximum answer length; default: the original evaluation's.
        seed: of the subset.
        style: how the questions are put.

    Raises:
        InputError: files that are missing or unusable.
        UserError: videos for a model that takes none or without a reader of them, or a limit that leaves nothing.
    """
    benchmark = cast(FileBenchmark, get(name))
    longest = max_new_tokens or benchmark.max_new_tokens
    samples, subset = benchmark.load_subset(Path(root), limit, seed)
    asking, original = answerer.asking, benchmark.prompt_format
    if any(sample.video for sample in samples) and not asking.takes_videos:
        raise UserError(f"{name} asks about videos; {answerer.source} takes only pictures; use Video-LLaVA or Qwen")
    if any(sample.video for sample in samples):
        check_reader()
    prompts = [prompt(sample, asking, original, style) for sample in samples]
    tokens = answerer.text_tokens(prompts)
    files = [media(sample) for sample in samples]
    sizes = [(len(paths), count - len(paths)) for paths, count in zip(files, tokens, strict=True)]
    settings = {
        "task": benchmark.name,
        "questions": len(samples),
        "subset": subset and subset.as_json(),
        "prompt_hash": digest(prompts),
        "data_hash": digest([[s.key, s.question, s.answer, s.group, *map(file_facts, media(s))] for s in samples]),
        "prompt_format": asking.conversation(original) if style.template is None else "template",
        # only where it differs, so that earlier results are still continued
        **({} if answerer.tokenization == "right" else {"tokenization": answerer.tokenization}),
        **style.settings(),
        "max_new_tokens": longest,
        "batch_size": batch_size,
    }
    batches = plan(sizes, batch_size, [tuple(paths) or None for paths in files])
    return Task(benchmark, Path(root), longest, samples, subset, prompts, sizes, batches, settings)


def prompt(sample: Sample, asking: Asking, original: str, style: PromptStyle = OWN) -> str:
    """The model's input text, one placeholder per picture and video before the question."""
    kinds = [IMAGE] * len(sample.images) + [VIDEO] * (sample.video is not None)
    return style.prompt(asking, sample.question, kinds, original)


def media(sample: Sample) -> list[str]:
    """Paths of the pictures and the video that a question is about."""
    return [*sample.images, *([] if sample.video is None else [sample.video])]


def file_facts(path: str) -> tuple[str, int]:
    """Name and size of a file, -1 if there is none."""
    file = Path(path)
    return file.name, file.stat().st_size if file.exists() else -1


def digest(content: Any) -> str:
    """sha256 over nested lists of texts and numbers."""
    return "sha256:" + hashlib.sha256(json.dumps(content, ensure_ascii=False, default=str).encode()).hexdigest()
