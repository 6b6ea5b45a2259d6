"""The drops of a prompt, and the plan of one that runs compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from duet.engine.host import upload
from duet.engine.plan import Drop, Plan, padded

if TYPE_CHECKING:
    from duet.engine.call import Call


def drops_of(call: Call, every: bool = False) -> dict[int, Drop]:
    """Boundaries that drop any token, or `every` one, with their drops."""
    if call.plan is not None:
        return call.plan.drops
    assert call.layout is not None
    units = [len(row) for row in call.layout.units]
    budget = call.compression.budget
    rows = [budget.drops(*counts) for counts in zip(call.entered, units, strict=True)]
    stages = zip(*rows, strict=True)
    return {
        layer: Drop(torch.tensor(stage), stage)
        for layer, stage in zip(call.compression.layers, stages, strict=True)
        if every or any(most > count for most, count in stage)
    }


def plan_prompt(call: Call, columns: int) -> Plan | None:
    """The plan of a prompt of so many columns; None if the host does not know its lengths."""
    words, lengths, host = call.text_lengths, call.lengths, call.host
    if words is None or lengths is None or host is None:
        return None
    assert host.placeholder is not None and call.valid is not None
    text, left = padded(max(words)), list(call.entered)
    others = [length - one for length, one in zip(lengths, left, strict=True)]
    entry = text + max(length - word for length, word in zip(lengths, words, strict=True))
    separators = [other - word for other, word in zip(others, words, strict=True)]
    drops, real = {}, {0: lengths}
    for number, drop in drops_of(call).items():
        spared = max(max(one - most, 0) for one, (most, _) in zip(left, drop.rows, strict=True))
        left = drop.survive(left)
        width = text + max(map(sum, zip(left, separators, strict=True)))
        drops[number] = Drop(upload(drop.counts, call.valid.device), drop.rows, width, spared)
        real[number] = [sum(parts) for parts in zip(others, left, strict=True)]
    whole = max(text + int(host.placeholder.sum(1).max()), columns)
    salient = call.salient_text
    salient = None if salient is None else pad(salient, (0, whole - salient.shape[1]))
    return Plan(whole, text, entry, drops, real, words, salient)
