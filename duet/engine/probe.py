"""`probe`: read the attention of text tokens in any decoder layer while a prompt runs. Nothing is dropped or changed.

The rows are computed where stage 2 ranks, in a forward pre-hook of the layer and from its queries and keys
(`DecoderSide.ranking`), so any attention kernel works, and sharded or offloaded weights are in memory.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from duet.engine.attachment import attached
from duet.engine.prompt import layers_of
from duet.ops.scores import mean_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from duet.interfaces import DecoderSide


@contextmanager
def probe(model: nn.Module, layers: Sequence[int], columns: Tensor) -> Iterator[dict[int, Tensor]]:
    """Read attention rows of the first prompt that runs inside the `with` block, a batch of one.

    Args:
        model: with a method attached that keeps all tokens (`none`).
        layers: layers to read; 1 is the first.
        columns: `[C]` long, prompt columns of the tokens to read.

    Yields:
        layer -> `[C, T]` on the host: probabilities over the prompt's T columns, mean over heads, in float32 (float64
        stays). Filled when the block is left.

    Raises:
        ValueError: nothing is attached, or a method that drops tokens; a layer that the model does not have; a batch
            of several prompts.
    """
    attachment = attached(model)
    compression, stack = attachment.compression, layers_of(attachment.lm)
    if compression.reducer is not None or compression.pruner is not None:
        raise ValueError(f"method {compression.method} drops tokens; attach method none to read attention over all")
    if not all(1 <= number <= len(stack) for number in layers):
        raise ValueError(f"layers {list(layers)}: the decoder has layers 1 to {len(stack)}")
    found: dict[int, Tensor] = {}
    handles = [
        stack[number - 1].register_forward_pre_hook(
            _reader(found, number, columns, compression.decoder), with_kwargs=True
        )
        for number in layers
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _reader(found: dict[int, Tensor], number: int, columns: Tensor, decoder: DecoderSide) -> Callable[..., None]:
    """The pre-hook of one layer; calls after the first are new tokens and are ignored."""

    @torch.no_grad()
    def read(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if number in found:
            return
        hidden = args[0] if args else kwargs["hidden_states"]
        if len(hidden) != 1:
            raise ValueError(f"attention is read from one prompt at a time, not from a batch of {len(hidden)}")
        cos, sin = (table.to(hidden.device) for table in kwargs["position_embeddings"])
        projection = decoder.ranking(layer, hidden, (cos, sin))
        index = columns.to(hidden.device)[None]
        visible = torch.arange(hidden.shape[1], device=hidden.device) <= index[..., None]
        rows = mean_rows(projection.queries(index), projection.keys(), projection.scale, visible)
        found[number] = rows[0].cpu()

    return read
