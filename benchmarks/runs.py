"""The measured runs: a prompt with its first answer tokens, and a training step.

The tower, and scoring and merging are timed inside the whole prefill, by wrapping the engine's functions during a run.
Scoring and merging is all the work that a method adds to the model: score rows of the tower, the reducer, placing its
features (without the projector), ranking at a boundary, choosing, and moving the survivors.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from benchmarks.families import family_of
from duet.edit import Edit
from duet.engine import prompt as boundaries
from duet.engine.attachment import attached
from duet.engine.call import IGNORED
from duet.engine.tokens import Tokens
from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.families import Prompt
    from benchmarks.measure import Stopwatch

TRAINED = ("full", "lora", "projector")
WHOLE, TOWER, PROJECTOR, OVERHEAD, DECODE, UPDATE = "whole", "tower", "projector", "overhead", "decode", "update"


@torch.no_grad()
def run_prompt(
    model: Any,
    prompt: Prompt,
    new_tokens: int,
    watch: Stopwatch,
    *,
    compressed: bool,
) -> dict[str, float]:
    """Pixels to first logits, then greedy decoding.

    Args:
        model: with or without compression.
        prompt: from `build_prompt`.
        watch: a new one.
        compressed: whether compression is attached to the model.
        new_tokens: tokens to decode after the first one, at least 1.

    Returns:
        `prefill_ms`, its parts `tower_ms` and `overhead_ms` (scoring and merging), `decode_ms` per token, and
        `kv_bytes` after the prefill.
    """
    with _parts_timed(model, watch, compressed):
        output = watch.run(WHOLE, prefill, model, prompt)
    cache = output.past_key_values
    kv_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    token = output.logits[:, -1:].argmax(-1)
    for _ in range(new_tokens):
        output = watch.run(DECODE, model, input_ids=token, past_key_values=cache, use_cache=True)
        token = output.logits[:, -1:].argmax(-1)
    return {
        "prefill_ms": watch.total_ms(WHOLE),
        "tower_ms": watch.own_ms(TOWER),
        "overhead_ms": watch.own_ms(OVERHEAD),
        "decode_ms": watch.total_ms(DECODE) / new_tokens,
        "kv_bytes": kv_bytes,
    }


@torch.no_grad()
def prefill(model: Any, prompt: Prompt) -> Any:
    """Pixels to first logits, as `generate` runs it: cache on, logits of the last position only."""
    return model(**prompt.inputs, use_cache=True, logits_to_keep=1)


def choose_trained(model: Any, trained: str) -> None:
    """Freeze what a training leaves alone; the towers are frozen already.

    Args:
        model: stock.
        trained: `full`: projector and decoder; `lora`: projector, and adapters of rank 128 (LLaVA's) on the decoder's
            linear layers; `projector`: nothing else.

    Raises:
        UserError: the projector is part of the tower.
    """
    if trained == "full":
        return
    name = family_of(model).projector
    if name is None:
        raise UserError(f"--train {trained}: the projector of {type(model).__name__} is part of its tower")
    model.requires_grad_(False)
    if trained == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        adapters = LoraConfig(r=128, lora_alpha=256, target_modules=r".*language_model.*_proj")
        inject_adapter_in_model(adapters, model)
    getattr(model.model, name).requires_grad_(True)


def run_training(model: Any, prompt: Prompt, answer: int, watch: Stopwatch, optimizer: Any = None) -> dict[str, float]:
    """`step_ms` of a training step, `update_ms` of the optimizer's part; gradients are freed afterwards."""
    watch.run(WHOLE, train_step, model, prompt, answer, optimizer, watch)
    model.zero_grad(set_to_none=True)
    return {"step_ms": watch.total_ms(WHOLE), "update_ms": watch.total_ms(UPDATE)}


def train_step(model: Any, prompt: Prompt, answer: int, optimizer: Any = None, watch: Stopwatch | None = None) -> None:
    """Forward, backward and, with an optimizer, its update; the last `answer` tokens of each row are the targets.

    Leaves gradients on what is trained, and the model in eval mode.
    """
    ids = prompt.inputs["input_ids"]
    labels = torch.full_like(ids, IGNORED)
    labels[:, -answer:] = ids[:, -answer:]
    model.train()
    model(**prompt.inputs, labels=labels, use_cache=False).loss.backward()
    model.eval()
    if optimizer is not None:
        (optimizer.step if watch is None else watch.around(UPDATE, optimizer.step))()


@contextmanager
def _parts_timed(model: Any, watch: Stopwatch, compressed: bool) -> Iterator[None]:
    """Time the tower, and scoring and merging, inside the block."""
    family = family_of(model)
    seams: list[tuple[Any, str, str]] = [(tower, "forward", TOWER) for tower in family.towers_of(model)]
    if compressed:
        parts = attached(model).compression
        seams = [(type(parts.vision), "encode", TOWER), (type(parts.vision), "place", OVERHEAD)]
        seams += [(module, name, OVERHEAD) for module, name in family.scoring]
        if family.projector is not None:
            seams.append((getattr(model.model, family.projector), "forward", PROJECTOR))
        seams += [(boundaries, "vote", OVERHEAD), (boundaries, "choose", OVERHEAD), (Tokens, "after", OVERHEAD)]
        seams.append((Edit, "apply", OVERHEAD))
        if parts.reducer is not None:
            seams.append((type(parts.reducer), "__call__", OVERHEAD))
    with ExitStack() as stack:
        for owner, name, part in seams:
            stack.enter_context(patch.object(owner, name, watch.around(part, getattr(owner, name))))
        yield
