"""A prompt as one compiled region: boundary 0, all layers with their drops, the final norm.

The host plans the lengths (`plan.py`) and pads the prompt, so prompts of about the same length run the same code, which
waits for nothing and can be captured as one CUDA graph. What leaves the region is cut to its real length, so the cache
is the one that an ordinary prompt fills.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.nn.functional import pad
from transformers.modeling_outputs import BaseModelOutputWithPast

from duet.engine.cache import PromptRecord, ReducedCache, Segment
from duet.engine.decoder import leave_prompt, run_layers
from duet.engine.drops import plan_prompt
from duet.engine.prompt import PromptRun, enter_prompt, layers_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache

    from duet.engine.call import Call
    from duet.engine.plan import Plan
    from duet.interfaces import TextModel


class _Collected:
    """In place of the cache inside the region: keys and values of its layers."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """`[B, Hkv, T, d]` each; layers come in order."""
        self.keys.append(keys)
        self.values.append(values)
        return keys, values


def _prompt(
    lm: TextModel, call: Call, hidden: Tensor, positions: Tensor | None, kwargs: dict[str, Any]
) -> tuple[Tensor, list[Any], list[Tensor], list[Tensor]]:
    """The region: `run_prompt` on a padded prompt.

    Returns:
        last hidden states `[B, columns, D]`; the fields of each segment; keys and values of all layers.
    """
    record = PromptRecord(hidden.shape[1], call.compression.decoder)
    run, cache = PromptRun(lm, call, record, enter_prompt(lm, call, hidden, positions)), _Collected()
    run_layers(run, range(len(layers_of(lm))), cache, **kwargs)  # type: ignore[arg-type]
    parts = [
        (one.start, one.valid, one.lengths, one.ends, one.visual, one.renumbered, one.bias) for one in record.segments
    ]
    return leave_prompt(lm, call, run.tokens), parts, cache.keys, cache.values


def run_planned(
    lm: TextModel,
    call: Call,
    hidden: Tensor,
    positions: Tensor | None,
    cache: DynamicCache | None,
    **kwargs: Any,
) -> BaseModelOutputWithPast:
    """`run_prompt`, compiled as the call says.

    Raises:
        ValueError: the method decides by the picture how many tokens it keeps.
    """
    columns = hidden.shape[1]
    assert call.compiled is not None
    plan = plan_prompt(call, columns)
    if plan is None:
        raise ValueError(
            f"{call.compression.method} decides by the picture how many tokens it keeps, so a prompt has no fixed "
            "length to be compiled for: attach it again without duet.compile"
        )
    own = _padded(call, plan)
    more = plan.columns - columns
    positions = None if positions is None else pad(positions, (0, more))
    shape = None if positions is None else positions.shape
    run = call.compiled.code.get(_prompt, (plan.key, shape, hidden.dtype), call.compiled.options)
    states, parts, keys, values = run(lm, own, pad(hidden, (0, 0, 0, more)), positions, kwargs)
    states = states[:, :columns].clone()  # the next replay of a graph writes where this one did
    if cache is not None:
        record = PromptRecord(columns, call.compression.decoder)
        record.segments = [_segment(part, plan, call) for part in parts]
        starts = [one.start for one in record.segments]
        for number, pair in enumerate(zip(keys, values, strict=True)):
            width = record.segments[sum(start <= number for start in starts) - 1].width
            cache.update(*(one[:, :, :width] for one in pair), number)  # copies them
        cache = ReducedCache.adopt(cache, record)
    return BaseModelOutputWithPast(last_hidden_state=states, past_key_values=cache)


def _segment(part: Any, plan: Plan, call: Call) -> Segment:
    """A segment as it is without the plan's padding."""
    start, valid, lengths, ends, visual, renumbered, bias = part
    width, even = plan.longest(start, call.compression.absences)
    valid = None if even else valid[:, :width].clone()
    bias = None if bias is None else bias[:, :width].clone()
    return Segment(start, width, valid, lengths.clone(), ends.clone(), visual.clone(), renumbered, bias)


def _padded(call: Call, plan: Plan) -> Call:
    """The call of a padded prompt; its code reads nothing that differs between prompts of one plan, but tensors."""
    assert call.layout is not None and call.valid is not None and call.placeholder is not None
    layout, valid = call.layout, call.valid

    def wide(one: Any) -> Any:
        return None if one is None else pad(one, (0, plan.columns - one.shape[1]))

    names = ("placeholder", "filled", "visual", "valid", "sizes")
    return replace(
        call,
        plan=plan,
        compiled=None,
        host=None,
        placeholder=wide(call.placeholder),
        valid=wide(valid),
        layout=replace(layout, **{name: wide(getattr(layout, name)) for name in names}),
        input_ids=None,
        deep=tuple(pad(one, (0, 0, 0, plan.columns - one.shape[1])) for one in call.deep),
        memory={},
        entered=[],
        kinds=[],
        separators=None,
    )
