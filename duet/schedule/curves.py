"""Curves: how far a model's answers move when its picture is withdrawn, frozen, away or late, by layer and stratum.

D is the divergence from the full model, as a share of the divergence without any picture: 0 is the full model, 1 a
blind one. Withdrawn from layer l: gone from there on. Frozen from l: read, not updated. Entering at k: the layers
before see text alone. Away at l: not there from l up to the next measured layer, then back. Quartered at l: a quarter
of the tokens stays, chosen by the method's stage 2. Each is measured with all tokens; withdrawal, freezing and entry
also with the few that stage 1 leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from duet.budget import Budget
from duet.schedule.passes import Forced, Meter, boundaries, divergence, force, full_answer

if TYPE_CHECKING:
    from torch import Tensor

    from duet.engine.call import Compression

#: Longest reference answer, in tokens.
LONGEST = 32
#: Strata whose answers change less than this without a picture (nats per token) say nothing about pictures.
LEAST_CEILING = 0.02
#: Layers of late entries that are tried.
ENTRIES = (1, 2, 4, 6, 8, 10, 12)
#: Stages of a curve's name: what is done, and with which tokens.
ALL_TOKENS, FEW_TOKENS = "all", "few"
BLIND = ("blind", ALL_TOKENS, 0)

#: (what is done, tokens, layer) -> divergence, of one sample.
Measured = dict[tuple[str, str, int], float]


@dataclass
class Asked:
    """A sample with the full model's answer.

    Attributes:
        stratum: its kind of task.
        inputs: processor output on the model's device, batch dimension 1.
        answer: `[N]` token ids of the full model.
        full: `[N, V]` its log-probabilities.
        measured: divergences.
    """

    stratum: str
    inputs: Mapping[str, Any]
    answer: Tensor
    full: Tensor
    measured: Measured = field(default_factory=dict)


@dataclass(frozen=True)
class Curves:
    """Divergences of all samples.

    Attributes:
        strata: those with a ceiling, in order of the file; blind: stratum -> its ceiling in nats, dropped ones too.
        rows: stratum -> samples' divergences.
        depth: layers of the decoder.
        prefills: cost of a sample, in full prefills, without the reference answer's decoding.
    """

    strata: tuple[str, ...]
    blind: dict[str, float]
    rows: dict[str, list[Measured]]
    depth: int
    prefills: float

    def share(self, stratum: str, key: tuple[str, str, int]) -> float:
        """D of a stratum: mean divergence over mean divergence without a picture."""
        return float(np.mean([row[key] for row in self.rows[stratum]])) / self.blind[stratum]

    def mean(self, key: tuple[str, str, int]) -> float:
        """D, mean over the strata."""
        return float(np.mean([self.share(stratum, key) for stratum in self.strata]))

    def curve(self, what: str, tokens: str, stratum: str | None = None) -> dict[int, float]:
        """Layer -> D, mean over the strata or of one."""
        first = next(iter(self.rows.values()))[0]
        layers = sorted(layer for name, kind, layer in first if (name, kind) == (what, tokens))
        read = self.mean if stratum is None else lambda key: self.share(stratum, key)
        return {layer: read((what, tokens, layer)) for layer in layers}


def ask(
    model: Any, compression: Compression, prompts: Sequence[tuple[str, Mapping[str, Any]]], told: Callable[[str], None]
) -> list[Asked]:
    """The full model's answers.

    Args:
        model: with compression attached.
        compression: any of its parts.
        prompts: stratum and processor output of each sample.
        told: progress.
    """
    whole, found = compression.with_all_tokens(), []
    for number, (stratum, inputs) in enumerate(prompts):
        answer = full_answer(model, whole, inputs, LONGEST)
        found.append(Asked(stratum, inputs, answer, torch.empty(0)))
        told(f"answers of the full model: {number + 1} of {len(prompts)}")
    return found


def measure_curves(
    model: Any,
    compression: Compression,
    few: Budget,
    asked: Sequence[Asked],
    meter: Meter,
    told: Callable[[str], None],
) -> Curves:
    """All curves of all samples.

    Args:
        model: with compression attached.
        compression: the method's parts.
        few: a budget of stage 1 alone, for the curves with few tokens; `Budget()` if the method has none.
        asked: from `ask`; gets `full` and `measured`.
        meter: counts.
        told: progress.
    """
    depth = 0
    for number, one in enumerate(asked):
        forced = force(model, compression.with_all_tokens(), one.inputs, one.answer, meter)
        states, one.full = forced.run(forced.start(), whole=True)
        depth = len(states)
        _blind(one, forced)
        _measure(one, forced, states, ALL_TOKENS)
        _leave(one, forced, states)
        if compression.pruner is not None:
            _quarter(one, forced, states, compression)
        if compression.reducer is not None:
            forced = force(model, compression.under(few, depth), one.inputs, one.answer, meter)
            states, own = forced.run(forced.start())
            one.measured["flat", FEW_TOKENS, 0] = divergence(one.full, own)
            _measure(one, forced, states, FEW_TOKENS)
        told(f"curves: {number + 1} of {len(asked)}")
    return _gathered(asked, depth, meter.prefills)


def few_tokens(average: float, visual: float) -> float:
    """Tokens that enter in the curves with few: half more than the average, as most shapes have."""
    return min(1.5 * average, 0.9 * visual)


def _blind(one: Asked, forced: Forced) -> None:
    one.measured[BLIND] = divergence(one.full, forced.run(forced.text_of(forced.start()))[1])


def _measure(one: Asked, forced: Forced, states: Sequence[Any], tokens: str) -> None:
    depth = len(states)
    for layer in boundaries(depth):
        gone = forced.run(forced.text_of(states[layer]), layer)[1]
        still = forced.run(states[layer], layer, Budget(frozen=layer))[1]
        one.measured["withdrawn", tokens, layer] = divergence(one.full, gone)
        one.measured["frozen", tokens, layer] = divergence(one.full, still)
    for layer in entries(depth):
        late = forced.run(forced.start(), 0, Budget(entry=layer))[1]
        one.measured["entering", tokens, layer] = divergence(one.full, late)


def _leave(one: Asked, forced: Forced, states: Sequence[Any]) -> None:
    for layer, after in pairwise(boundaries(len(states))):
        back = forced.run(states[layer], layer, Budget(away=tuple(range(layer, after))))[1]
        one.measured["away", ALL_TOKENS, layer] = divergence(one.full, back)


def entries(depth: int) -> list[int]:
    """The late entries that are tried: before half of the depth."""
    return [layer for layer in ENTRIES if layer <= depth // 2]


def _quarter(one: Asked, forced: Forced, states: Sequence[Any], compression: Compression) -> None:
    own = replace(forced.call, compression=replace(forced.call.compression, pruner=compression.pruner))
    ranked = replace(forced, call=own)
    for layer in boundaries(len(states)):
        left = ranked.run(states[layer], layer, Budget(layers=(layer,), ratios=(0.25,)))[1]
        one.measured["quartered", ALL_TOKENS, layer] = divergence(one.full, left)


def _gathered(asked: Sequence[Asked], depth: int, prefills: float) -> Curves:
    rows: dict[str, list[Measured]] = {}
    for one in asked:
        rows.setdefault(one.stratum, []).append(one.measured)
    blind = {stratum: float(np.mean([row[BLIND] for row in some])) for stratum, some in rows.items()}
    strata = tuple(stratum for stratum, ceiling in blind.items() if ceiling >= LEAST_CEILING)
    return Curves(strata, blind, {stratum: rows[stratum] for stratum in strata}, depth, prefills)
