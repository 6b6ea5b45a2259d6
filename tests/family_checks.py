"""What holds for all families, methods and shapes: decoding, beams and checkpointing, against whole forwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.families import Family
from tests.tiny_parts import recomputed


def only_words(family: Family, model: Any) -> dict[str, Any]:
    """Options of greedy decoding of four words; placeholders could not be recomputed."""
    others = [*range(family.words, model.config.get_text_config().vocab_size)]
    return {"max_new_tokens": 4, "do_sample": False, "suppress_tokens": others}


def decode(model: Any, family: Family, rows: list[Any], **options: Any) -> tuple[Tensor, Any]:
    """Four new words of each row `[B, 4]`, and all that `generate` returns."""
    batch = family.collate(rows)
    asked = {**only_words(family, model), "output_logits": True, "return_dict_in_generate": True, **options}
    out = model.generate(**batch, **asked)
    return out.sequences[:, batch["input_ids"].shape[1] :], out


def check_decoding(model: Any, family: Family, tolerance: dict[str, float], **options: Any) -> None:
    """A decoded batch has the logits of each row, recomputed whole."""
    new, out = decode(model, family, family.prompts, **options)
    for number, prompt in enumerate(family.prompts):
        found = torch.stack([logits[number] for logits in out.logits])
        torch.testing.assert_close(found, recomputed(model, prompt, new[number], family.collate), **tolerance)


def check_beams(model: Any, family: Family, tolerance: dict[str, float]) -> None:
    """Two beams of each row come in order, with the scores of their words, recomputed."""
    new, out = decode(model, family, family.prompts, num_beams=3, num_return_sequences=2, output_scores=True)
    for first, second in zip(out.sequences_scores[::2], out.sequences_scores[1::2], strict=True):
        assert first >= second
    for number, (words, score) in enumerate(zip(new, out.sequences_scores, strict=True)):
        steps = recomputed(model, family.prompts[number // 2], words, family.collate).log_softmax(-1)
        torch.testing.assert_close(score, steps.gather(1, words[:, None]).sum() / len(words), **tolerance)


def check_checkpointing(make: Callable[[], Any], family: Family) -> None:
    """Loss and gradients are the same with gradient checkpointing; `make` gives the same model each time."""
    found = []
    for checkpointing in (False, True):
        model = make().train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        loss = model(**family.collate(family.rows, labels=True)).loss
        loss.backward()
        found.append([loss, *(weight.grad for weight in model.parameters() if weight.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
