"""The `metrics.json` of one task: score, tokens, milliseconds and operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from duet.budget import Backbone
from duet.budget.counts import mean_over_layers
from duet.eval.asking.answerer import Answerer
from duet.eval.asking.task import Task
from duet.eval.running import timing
from duet.eval.types import Decided


def metrics(
    task: Task,
    lines: Sequence[dict[str, Any]],
    decided: Sequence[Decided],
    failed: dict[str, str],
    batches: Sequence[dict[str, Any]],
    answerer: Answerer,
) -> dict[str, Any]:
    """Put the result of one task together.

    Args:
        task: what was asked.
        lines: the answers, as in predictions.jsonl.
        decided: every question with its decision; unanswered ones are wrong.
        failed: key -> reason of questions that could not be asked.
        batches: lines of timing.jsonl.
        answerer: with the compression that it answered with.
    """
    summary = task.benchmark.summarise(decided)
    pictured = [size for size in task.sizes if size[0]]
    backbone = _sized(answerer, task, lines)
    text = round(fmean(tokens for _, tokens in pictured)) if pictured else 0
    tokens = measured(lines, answerer)
    # for pictures of any size only the run shows what a budget keeps
    computed = tokens["average"] if answerer.sizes_vary else answerer.budget.average(backbone)
    tokens = {"computed_average": computed, **tokens}
    answered = sum(row.prediction is not None for row in decided)
    return {
        "task": task.benchmark.name,
        "version": task.benchmark.version,
        "subset": task.subset and task.subset.as_json(),
        "headline": {"name": summary.headline, "value": summary.metrics[summary.headline]},
        "metrics": summary.metrics,
        "tallies": summary.tallies,
        "notes": list(summary.notes),
        "counts": {
            "asked": len(decided),
            "scored": answered,
            "missing": len(decided) - answered,
            "failed": len(failed),
            "ties": sum(line.get("tie", False) for line in lines),
        },
        "failures": failed,
        "tokens": tokens,
        "timing": timing.summary(batches),
        "flops": {"text_tokens": text, **asdict(answerer.budget.flops(backbone, text=text))},
    }


def _sized(answerer: Answerer, task: Task, lines: Sequence[dict[str, Any]]) -> Backbone:
    """The model with the pictures, crops or frames of a prompt; if sizes vary, of the mean prompt."""
    if not answerer.sizes_vary:
        frames = answerer.style.frames(answerer.asking)(0.0) if task.samples[0].video else 1
        return replace(answerer.backbone, pictures=frames)
    visual = fmean([line["visual"] for line in lines if line["visual"]] or [1])
    if answerer.backbone.patches is None:
        media = max(1, round(fmean(count for count, _ in task.sizes)))
        return answerer.backbone.with_patches(max(1, round(visual / media)), media)
    return replace(answerer.backbone, pictures=max(1, round(visual / answerer.backbone.known_patches)))


def measured(lines: Sequence[dict[str, Any]], answerer: Answerer) -> dict[str, Any]:
    """Visual tokens per question with a picture or video, counted in the answers' caches.

    Returns:
        `kept`: mean count at each of `layers`, the budget's boundaries (`Budget.boundaries`);
        `average`: mean over the layers; with frozen layers also these, and `updated_average`, the mean of the tokens
        that a layer updates. None if no question had one.
    """
    depth = answerer.backbone.decoder.layers
    layers = answerer.budget.boundaries(depth)
    rows = [line["kept"] for line in lines if any(line["kept"])]
    if not rows:
        return {"layers": list(layers), "kept": None, "average": None}
    kept = [fmean(counts) for counts in zip(*rows, strict=True)]
    found: dict[str, Any] = {"layers": list(layers), "kept": kept, "average": mean_over_layers(kept, layers, depth)}
    frozen = answerer.budget.frozen_for(depth)
    if frozen:
        spans = pairwise((*layers, depth))
        entering = [count for (start, end), count in zip(spans, kept, strict=True) for _ in range(start, end)]
        updated = [0.0 if layer in frozen else count for layer, count in enumerate(entering)]
        found |= {"frozen": list(frozen), "updated_average": sum(updated) / depth}
    return found
