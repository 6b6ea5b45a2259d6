"""The oracle: which visual tokens a model needs at a layer, found by leaving them out, and how rules compare with it.

For every prompt the model with all tokens gives its greedy answer, the reference; no labels are used. At one boundary
inside the language model some of the tokens are dropped, and the loss of a choice is the Kullback-Leibler divergence of
the reduced model from the full one, a mean over the tokens of that answer.

* **Drop each in turn**: a token's loss is that of the choice without it. Rules are correlated with this rank.
* **Elimination**: the tokens whose loss is smallest leave first, and all others are tried again after each round. Two
  tokens that show the same thing need not both go, as they would by the first rank.

Both know the full model's answer, which no rule does, and they are judged on the loss that they minimise. So the
distance of a rule to the better of them is an upper bound of what a better rank could give at this boundary. It is a
loose one where stage 1 has lost something already: they choose tokens that lead back to the full model's answer.
**Nothing dropped** is what the tokens that entered say, the most that a rule without the answer can aim at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

import duet
from duet.budget import Budget
from duet.edit import NONE, Edit
from duet.engine.attach import attach_compression
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.likelihood import answer_logits
from duet.ops.coverage import clusters
from duet.ops.gather import close_gaps, take

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duet.eval.asking.answerer import Answerer
    from duet.eval.asking.batches import EncodedPrompt
    from duet.types import LayerView

#: Names of the oracle's two rows, and of the one for all tokens that entered.
DROP, ELIMINATION, ENTERED = "oracle: drop each in turn", "oracle: elimination", "nothing dropped"
#: Rounds of the elimination down to the smallest share.
ROUNDS = 10


@dataclass(frozen=True)
class Place:
    """Where tokens are dropped.

    Attributes:
        stage1: name of the stage 1 before, `none` for all tokens.
        dominant: tokens of a picture that enter the language model, with a stage 1.
        layer: the drop is after this many layers.
        shares: shares of the tokens that entered to be left, largest first.
        attention: `plain`, or `proportional`; then the oracles merge dropped tokens as `cover_prune` does.
    """

    stage1: str
    dominant: int | float | None
    layer: int
    shares: tuple[float, ...]
    attention: str = "plain"

    def method(self, stage2: str) -> str:
        """The composition with a stage 2."""
        first = "" if self.stage1 == "none" else f"stage1:{self.stage1}+"
        return f"{first}stage2:{stage2}"

    def budget(self, share: float) -> Budget:
        """One drop that leaves this share."""
        return Budget(dominant=self.dominant, layers=(self.layer,), ratios=(share,))

    def left(self, share: float, entered: int) -> int:
        """Tokens left of those that entered."""
        return self.budget(share).keep_counts(entered)[0]


@dataclass
class Choice:
    """What one way of choosing lost on one prompt, by share: the divergence, and whether the answer is the same."""

    loss: dict[float, float] = field(default_factory=dict)
    same: dict[float, bool] = field(default_factory=dict)


@dataclass
class Asked:
    """A prompt with the full model's answer.

    Attributes:
        inputs: processor output, batch dimension 1.
        answer: `[A]` token ids, the end included.
        full: `[A, W]` log-probabilities of the model with all tokens.
        drop: `[V]` loss of dropping each token that entered; empty before it is measured.
        choices: by name of the rule or oracle.
        correlation: rank correlation of a rule's scores with `drop`; rules without it are absent.
    """

    inputs: Any
    answer: Tensor
    full: Tensor
    drop: Tensor = field(default_factory=lambda: torch.zeros(0))
    choices: dict[str, Choice] = field(default_factory=dict)
    correlation: dict[str, float] = field(default_factory=dict)


class Given:
    """Stage 2 that keeps the tokens it is told: `keep [B, V]` bool over those that entered.

    Args:
        merge: merge the others into those that cover them best; otherwise they are gone.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    layer: ClassVar[str] = "next"

    def __init__(self, merge: bool = False) -> None:
        self.keep, self.merge = torch.zeros(0), merge

    def score(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """Nothing is scored."""
        return torch.zeros(view.visual.shape, device=view.visual.device), torch.zeros_like(view.visual)

    def edit(self, view: LayerView, scores: Tensor, counts: Tensor) -> Edit:
        """Keep exactly these; rows may keep different numbers."""
        number = (view.visual.cumsum(1) - 1).clamp_min(0)
        keep = view.visual & self.keep.to(number.device).gather(1, number)
        index, real = close_gaps(keep, int(keep.sum(1).max()), left=False)
        kept = torch.where(real, index, NONE)
        if not self.merge:
            return Edit.keep(kept, keep.shape[1])
        index, real = close_gaps(view.visual, int(view.visual.sum(1).max()), left=False)
        sizes = None if view.sizes is None else take(view.sizes, index)
        return clusters(view.hidden, index, real, kept, keep.shape[1], sizes)


@torch.no_grad()
def ask(answerer: Answerer, prompts: Sequence[EncodedPrompt], max_new_tokens: int) -> list[Asked]:
    """The full model's greedy answers, with their log-probabilities; nothing is attached afterwards."""
    answerer.compress("none")
    model, found = answerer.model, []
    for prompt in prompts:
        inputs = {name: value.to(model.device) for name, value in prompt.inputs.items()}
        tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
        answer = tokens[0, inputs["input_ids"].shape[1] :].cpu()
        (_, _, logits), *_ = answer_logits(model, inputs, [(0, answer)], 1)
        found.append(Asked(inputs, answer, logits.float().log_softmax(-1)))
    return found


@torch.no_grad()
def measure_rule(answerer: Answerer, place: Place, rule: str, asked: Iterable[Asked]) -> None:
    """Let a rule choose at every share, and correlate its scores with the loss of each token."""
    model = answerer.model
    for number, share in enumerate(place.shares):
        duet.attach(
            model,
            place.method(rule),
            place.budget(share),
            tokenizer=answerer.processor.tokenizer,
            positions="keep",
            attention=place.attention,
        )
        for one in asked:
            with duet.record(model) as trace:
                (_, _, logits), *_ = answer_logits(model, one.inputs, [(0, one.answer)], 1)
            _note(one, rule, share, logits[None])
            scores = trace.stages[0].scores[0] if trace.stages else torch.zeros(0)
            if number == 0 and len(one.drop) == len(scores) > 1:
                value = rank_correlation(scores, one.drop)
                if value is not None:
                    one.correlation[rule] = value
        duet.detach(model)


@torch.no_grad()
def measure_oracle(answerer: Answerer, place: Place, asked: Sequence[Asked], group: int, batch_size: int) -> None:
    """Both oracles at every share.

    Args:
        answerer: its model must have nothing attached.
        place: where.
        asked: prompts; get `drop` and both choices.
        group: neighbouring tokens that are tried together.
        batch_size: choices per forward.

    Raises:
        UserError: a prompt of which fewer tokens enter than there are groups to tell apart.
    """
    model = answerer.model
    tokenizer = answerer.processor.tokenizer
    duet.attach(
        model,
        place.method("random_rank"),
        place.budget(0.999),
        tokenizer=tokenizer,
        positions="keep",
        attention=place.attention,
    )
    given = Given(merge=place.attention == "proportional")
    attach_compression(model, replace(attached(model).compression, pruner=given))
    try:
        for one in asked:
            _oracle_of(model, given, place, one, group, batch_size)
    finally:
        duet.detach(model)


def _oracle_of(model: Any, given: Given, place: Place, one: Asked, group: int, batch_size: int) -> None:
    trial = _Trial(model, given, one, batch_size)
    entered = trial.entered()
    units = torch.arange(entered) // group
    if int(units[-1]) < 1:
        raise UserError(f"{entered} tokens enter and are tried {group} at a time; give a smaller --group")
    everything = torch.ones(entered, dtype=torch.bool)
    single = trial.losses(torch.stack([units != unit for unit in units.unique()]))
    one.drop = (single / torch.bincount(units))[units]
    order = one.drop.sort(descending=True, stable=True).indices
    kept, counts = everything.clone(), [place.left(share, entered) for share in place.shares]
    whole = trial.logits(everything[None])
    step = max(1, -(-(entered - counts[-1]) // (ROUNDS * group)))
    for share, count in zip(place.shares, counts, strict=True):
        best = torch.zeros_like(everything).index_fill(0, order[:count], True)
        kept = trial.eliminate(kept, units, count, step)
        for name, choice in ((DROP, best), (ELIMINATION, kept)):
            _note(one, name, share, trial.logits(choice[None]))
        _note(one, ENTERED, share, whole)


class _Trial:
    """One prompt's choices, tried in batches."""

    def __init__(self, model: Any, given: Given, one: Asked, batch_size: int) -> None:
        self.model, self.given, self.one, self.batch_size = model, given, one, batch_size

    def entered(self) -> int:
        """Visual tokens that enter the language model."""
        with duet.record(self.model) as trace:
            self.given.keep = torch.ones(1, self.one.inputs["input_ids"].shape[1], dtype=torch.bool)
            list(answer_logits(self.model, self.one.inputs, [(0, self.one.answer)], 1))
        return trace.entered[0]

    def logits(self, keep: Tensor) -> Tensor:
        """`[R, A, W]` with the tokens `keep [R, V]`."""
        found = []
        for rows in keep.split(self.batch_size):
            self.given.keep = rows
            asked = [(0, self.one.answer)] * len(rows)
            found += [logits for _, _, logits in answer_logits(self.model, self.one.inputs, asked, len(rows))]
        return torch.stack(found)

    def losses(self, keep: Tensor) -> Tensor:
        """`[R]`, see `divergence`; on the CPU."""
        return divergence(self.one.full, self.logits(keep)).cpu()

    def eliminate(self, kept: Tensor, units: Tensor, count: int, step: int) -> Tensor:
        """Drop the units whose loss is smallest, `step` a round, while more than `count` tokens are left."""
        kept = kept.clone()
        while int(kept.sum()) > count:
            left = units[kept].unique()
            losses = self.losses(torch.stack([kept & (units != unit) for unit in left]))
            for unit in left[losses.sort(stable=True).indices[:step]]:
                over = int(kept.sum()) - count
                kept[(kept & (units == unit)).nonzero().flatten()[:over]] = False
        return kept


def divergence(full: Tensor, logits: Tensor) -> Tensor:
    """KL(full || reduced), a mean over the answer.

    Args:
        full: `[A, W]` log-probabilities of the model with all tokens.
        logits: `[R, A, W]`.

    Returns:
        `[R]`, in nats.
    """
    reduced = logits.float().log_softmax(-1)
    return (full.exp() * (full - reduced)).sum(-1).mean(-1)


def rank_correlation(a: Tensor, b: Tensor) -> float | None:
    """Spearman's correlation of two rows `[N]`; equal values share a rank. None if one of them is constant."""
    ranks = []
    for row in (a.double(), b.double()):
        _, place, times = row.unique(return_inverse=True, return_counts=True)
        middle = times.cumsum(0) - (times - 1) / 2
        ranks.append(middle[place] - middle[place].mean())
    size = ranks[0].norm() * ranks[1].norm()
    return None if size == 0 else float(ranks[0] @ ranks[1] / size)


def _note(one: Asked, name: str, share: float, logits: Tensor) -> None:
    choice = one.choices.setdefault(name, Choice())
    choice.loss[share] = float(divergence(one.full, logits)[0])
    choice.same[share] = bool((logits[0].argmax(-1).cpu() == one.answer).all())
