"""The head runs only at tokens that predict a label: a row of 700 tokens with an answer of 20 needs 20 rows of logits.

The engine does this for compressed prompts with pictures (`duet/engine/decoder.py`), whose rows are shortened; here it
is for everything else: models without compression, and rows of text. Logits `[B, T, vocabulary]` in float32 are 100 MB
for one row of LLaVA-1.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from duet.data.encode import IGNORED
from duet.engine.attachment import reads_labels

if TYPE_CHECKING:
    from torch import Tensor, nn


class AnswerRows:
    """Hooks that give the head only the tokens before a label, and compute the loss of those, by the model's own rule.

    Loss and gradients are those of the stock forward; `logits` become `[1, M, vocabulary]` for M labels.

    Args:
        model: the module with the head, without wrappers.
    """

    def __init__(self, model: Any) -> None:
        self._targets: Tensor | None = None
        self._predicts: Tensor | None = None
        self._handles = [
            model.register_forward_pre_hook(self._take, with_kwargs=True, prepend=True),
            model.get_output_embeddings().register_forward_pre_hook(self._select),
            model.register_forward_hook(self._put_loss, with_kwargs=True),
        ]

    def remove(self) -> None:
        """Make the model stock again."""
        for handle in self._handles:
            handle.remove()

    def _take(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        labels = kwargs.get("labels")
        self._targets = self._predicts = None
        if labels is None:
            return None
        if reads_labels(model, kwargs):
            return args, {**kwargs, "only_targets": True}
        self._predicts = torch.nn.functional.pad(labels[:, 1:] != IGNORED, (0, 1))
        self._targets = labels[:, 1:][self._predicts[:, :-1]]
        return args, {**kwargs, "labels": None}

    def _select(self, head: nn.Module, args: tuple) -> tuple | None:
        if self._predicts is None:
            return None
        hidden, *others = args
        return (hidden[self._predicts.to(hidden.device)][None], *others)

    def _put_loss(self, model: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        if self._targets is None:
            return None
        logits = output[0] if isinstance(output, tuple) else output.logits
        targets = self._targets.to(logits.device)
        self._targets = self._predicts = None
        extra = {name: kwargs[name] for name in ("num_items_in_batch",) if name in kwargs}
        loss = model.loss_function(
            logits=logits, labels=None, vocab_size=logits.shape[-1], shift_labels=targets[None], **extra
        )
        if isinstance(output, tuple):
            return (loss, *output)
        output.loss = loss
        return output
