"""Stage 1 of `duet_cover`: the patches that together cover the picture, and the words of the question, best.

Greedy maximum coverage. A patch's gain is how much better the picture is covered with it than with all picks so far,
summed over all patches to cover, by default the increase of their cosine to the nearest pick. The switches are the
parts in which published methods differ, and these are settings of it:

* SCOPE (`duet/baselines/scope.py`): `saliency=1`, the gain times the attention of CLS to this power;
* MMTok (`duet/baselines/mmtok.py`): `calibration=softmax`, `words=2`: cosines become softmaxes, and the words of the
  question are covered, too, with twice the weight of the picture; without a question only the picture is.

`merge=cluster` is ours: every dropped patch belongs to the kept one that covers it best, and each kept token becomes
the true mean of itself and those of its patches whose cosine to it is at least `floor`. So is `enough`: a picture stops
taking tokens once it is covered this well, and simple pictures leave part of the budget. docs/beyond.md has the
formulas and the experiments that chose the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import normalize

from duet.edit import NONE, Edit
from duet.ops.coverage import covered_by, patches_covered, words_covered
from duet.ops.greedy import Coverage, Preservation, everyone, greedy
from duet.ops.reduce import SCORES, allowance, check_score
from duet.ops.similarity import cosines, exact

if TYPE_CHECKING:
    from torch import Tensor

    from duet.budget import Stage1
    from duet.types import VisionStates

FEATURES = ("tower", "projected", "both")
CALIBRATIONS = ("none", "softmax")
MERGES = ("none", "cluster")
SCOPES = ("medium", "unit")
#: MMTok's temperatures of the softmaxes over patches and over words.
PATCH_TEMPERATURE, WORD_TEMPERATURE = 0.2, 0.02


@torch.no_grad()
def select(
    *,
    keep: int,
    features: Tensor,
    cls_attention: Tensor | None = None,
    projected: Tensor | None = None,
    text_tokens: Tensor | None = None,
    text_valid: Tensor | None = None,
    saliency: float = 0.0,
    temperature: float | None = None,
    words: float = 0.0,
    word_temperature: float = WORD_TEMPERATURE,
    relevance: float = 0.0,
    diversity: float = 0.0,
) -> Tensor:
    """The patches that cover the picture best, in the order of picking.

    Args:
        keep: K.
        features: `[B, N, D]`, what patches are compared by.
        cls_attention: `[B, N]`, for `saliency` and `relevance`.
        projected: `[B, N, P]`; text_tokens: `[B, M, P]`; text_valid: `[B, M]` bool: for `words`.
        saliency: exponent of the attention that gains are multiplied with; 0 for none.
        temperature: of the softmax over patches; None for cosines.
        words: weight of all words of the question; all patches have 1. 0 for none.
        word_temperature: of the softmax over words.
        relevance: weight of the attention against the gain in coverage, both divided by their means; 0 for none.
        diversity: weight of the distance to the nearest pick, likewise; read if `relevance` is above 0.

    Returns:
        `[B, K]` long; the first k are the choice for k.
    """
    cover = patches_covered(features, temperature)
    if words and text_tokens is not None and text_tokens.shape[1]:
        assert projected is not None
        named = words_covered(projected, text_tokens, text_valid, word_temperature) * words
        cover = torch.cat([named.to(cover), cover * (1 / features.shape[1])], 2)
    if relevance:
        assert cls_attention is not None
        own = exact(cls_attention).to(cover)
        terms = Preservation(cover, own, everyone(features), diversity / relevance, 1 / relevance)
        return greedy(terms, keep, everyone(features), exact=False)
    weight = None
    if saliency:
        assert cls_attention is not None
        weight = exact(cls_attention) ** saliency
    plain = weight is None and temperature is None
    return greedy(Coverage(cover, weight), keep, everyone(features), exact=not plain)


@torch.no_grad()
def needed(features: Tensor, order: Tensor, enough: float) -> Tensor:
    """How many picks cover each picture by `enough`.

    Args:
        features: `[B, N, D]`.
        order: `[B, K]` picks.
        enough: wanted mean over the patches of the cosine to the nearest pick.

    Returns:
        `[B]` long, from 1 to K.
    """
    like = cosines(features, features.gather(1, order[..., None].expand(-1, -1, features.shape[2])))
    covered = like.cummax(-1).values.mean(1)
    return ((covered < enough).sum(-1) + 1).clamp_max(order.shape[1])


@torch.no_grad()
def clusters(features: Tensor, kept: Tensor, floor: float) -> Edit:
    """Keep `kept [B, K]`, each as the true mean of itself and of the patches that it covers best.

    Args:
        features: `[B, N, D]`.
        kept: negative entries are padding.
        floor: patches whose cosine to their kept patch is lower are dropped.
    """
    tokens = features.shape[1]
    like, group = covered_by(features, kept)
    joins = (like >= floor) & ~Edit.keep(kept, tokens).marked
    share = 1 / torch.ones_like(kept, dtype=like.dtype).scatter_add(1, group, joins.to(like.dtype))
    number = torch.arange(tokens, device=kept.device).expand_as(group)
    source = torch.where(joins, number, NONE)
    return Edit(kept, tokens, source, group, share.gather(1, group), share, kept.shape[1])


@dataclass(frozen=True)
class Cover:
    """Stage 1 by `select`.

    Args:
        saliency: exponent of the tower's attention; 0 for coverage alone, 1 as in SCOPE.
        score: `cls_row`, or `column_mean` on towers without CLS; read if `saliency` is above 0.
        calibration: `none` for cosines, `softmax` as in MMTok.
        temperature: of that softmax.
        words: weight of the question's words against all patches; 2 as in MMTok, 0 for none.
        word_temperature: of the softmax over words.
        merge: `cluster` to merge dropped patches into those that cover them; `none` to drop them.
        floor: smallest cosine of a patch that is merged; -1 for all.
        enough: mean cosine to the nearest pick at which a picture takes no more tokens; 1 for the whole budget.
        over: `medium`: all crops or frames together; `unit`: each by itself.
        features: patches are compared by features of the `tower`, by `projected` ones, or by `both`, side by side.
        relevance: weight of the tower's attention beside the gain in coverage, as in TOPS; 0 for none.
        diversity: weight of the distance to the nearest pick beside them; with `relevance` only.
    """

    saliency: float = 0.0
    score: str = "cls_row"
    calibration: str = "none"
    temperature: float = PATCH_TEMPERATURE
    words: float = 0.0
    word_temperature: float = WORD_TEMPERATURE
    merge: str = "cluster"
    floor: float = -1.0
    enough: float = 1.0
    over: str = "medium"
    features: str = "tower"
    relevance: float = 0.0
    diversity: float = 0.0

    contextual: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_score(self.score)
        for name, known in (("calibration", CALIBRATIONS), ("merge", MERGES), ("over", SCOPES), ("features", FEATURES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose {', '.join(known)}")
        for name in ("saliency", "words", "relevance", "diversity"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("temperature", "word_temperature", "enough"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.relevance and (self.saliency or self.words or self.calibration != "none"):
            raise ValueError("relevance is another way than saliency, words and calibration; leave those out")
        if self.diversity and not self.relevance:
            raise ValueError("diversity is weighed beside relevance; give relevance, too")
        if self.enough < 1 and self.over == "unit":
            raise ValueError("enough below 1 needs over=medium: units of one call must keep equally many tokens")

    @property
    def scope(self) -> str:
        """Whether its rows are media or units."""
        return self.over

    @property
    def needs(self) -> frozenset[str]:
        """What the switches read: the score row, projected features, the question's words."""
        named = {"projected", "text_tokens"} if self.words else set()
        named |= {"projected"} if self.features != "tower" else set()
        return frozenset(named | ({SCORES[self.score]} if self.saliency or self.relevance else set()))

    def __call__(self, states: VisionStates, budget: Stage1) -> Edit:
        """Keep as many patches as the budget has tokens, or as cover the picture by `enough`."""
        features = self._compared(states)
        order = select(
            keep=allowance(states, budget),
            features=features,
            cls_attention=states.scores.get(SCORES[self.score]),
            projected=states.projected,
            text_tokens=states.text_tokens,
            text_valid=states.text_valid,
            saliency=self.saliency,
            temperature=self.temperature if self.calibration == "softmax" else None,
            words=self.words,
            word_temperature=self.word_temperature,
            relevance=self.relevance,
            diversity=self.diversity,
        )
        kept = order.sort(-1).values
        if self.enough < 1:
            tokens = features.shape[1]
            spare = torch.arange(order.shape[1], device=order.device) >= needed(features, order, self.enough)[:, None]
            kept = order.masked_fill(spare, tokens).sort(-1).values
            kept = kept.masked_fill(kept == tokens, NONE)
        if self.merge == "cluster":
            return clusters(features, kept, self.floor)
        return Edit.keep(kept, features.shape[1])

    def _compared(self, states: VisionStates) -> Tensor:
        """`[B, N, D]`, what patches are compared by."""
        if self.features == "tower":
            return states.features
        assert states.projected is not None
        if self.features == "projected":
            return states.projected
        return torch.cat([normalize(exact(one), dim=-1) for one in (states.features, states.projected)], -1)
