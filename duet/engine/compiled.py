"""`duet.compile`: prompts and answers of an attached model run as compiled code, on a GPU as CUDA graphs.

A prompt is three regions: the tower with its scores, stage 1, and the language model with all its drops
(`duet/engine/planned.py`). Steps of an answer are compiled as with `cache_implementation="static"`
(`duet/engine/fixed.py`). Qwen's towers run as they are: their stock attention splits by picture on the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duet.engine.attachment import attached
from duet.engine.checks import check_compiled
from duet.engine.compat import uncollected
from duet.ops.regions import Code, Compiled

if TYPE_CHECKING:
    from torch import nn


def compile(
    model: nn.Module, *, mode: str | None = None, backend: str = "inductor", options: dict[str, Any] | None = None
) -> nn.Module:
    """Run prompts with pictures as compiled code from now on, and `generate` with static caches and compiled steps.

    Texts are padded to a multiple of 32 tokens or, if they are long, by at most an eighth. The first prompt of a length
    compiles, which takes up to minutes; later ones of its length run what is there. Calls with gradients or labels,
    recorded ones and those in a block of `duet.look` run as before. `duet.attach` and `duet.detach` end it.

    Args:
        model: with compression attached; method `none` for the full model.
        mode, backend, options: of `torch.compile`; without any of them, on a GPU `mode="reduce-overhead"`, which
            captures CUDA graphs.

    Returns:
        the model.

    Raises:
        UserError: a method whose lengths or code are not fixed, an attention kernel without free masks, or a model
            whose weights are moved or sharded.
        ValueError: nothing is attached.
    """
    attachment = attached(model)
    check_compiled(attachment.lm, attachment.compression)
    if mode is None and backend == "inductor" and options is None:
        mode = "default" if next(attachment.lm.parameters()).device.type == "cpu" else "reduce-overhead"
    given = {"mode": None if options else mode, "backend": backend, "options": options}
    attachment.compiled = Compiled({"fullgraph": True, "dynamic": False, **given}, Code(uncollected))
    return model
