"""TRIO: the gradient against autograd on the layer alone, suppression by hand, and every way that a prompt can run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity as cosine

import duet
from duet.analysis.oracle import Given
from duet.baselines.trio import Trio, select
from duet.budget import Budget
from duet.engine.attachment import attached, exchange_compression
from duet.errors import UserError
from duet.ops.saliency import gradient_norms
from tests.families import FAMILIES
from tests.tiny_llava import PATCHES, collate, make_row, prompt_of, tiny_llava
from tests.tiny_parts import check_rows_alone, recomputed

BUDGET = Budget(layers=(2,), ratios=(0.4,))
KEPT = round(0.4 * PATCHES)


def attach(model: Any, **options: Any) -> Any:
    return duet.attach(model, "stage2:trio", BUDGET, **options)


def first_stage(model: Any, batch: dict[str, Any]) -> Any:
    with duet.record(model) as trace:
        model(**batch)
    return trace.stages[0]


def plain_scores(model: Any, batch: dict[str, Any], layers: int) -> torch.Tensor:
    """The gradient norms of one prompt's visual tokens, by autograd through the stock layers, in eager attention."""
    duet.attach(model, "none")
    lm = attached(model).lm
    caught: list[dict[str, Any]] = []
    hook = lm.layers[2].register_forward_pre_hook(
        lambda _, args, kwargs: caught.append({**kwargs, "x": args[0]}), with_kwargs=True
    )
    with torch.no_grad():
        model(**batch)
    hook.remove()
    duet.detach(model)
    start = caught[0]["x"].detach().requires_grad_()
    mask, rope = caught[0]["attention_mask"], caught[0]["position_embeddings"]
    state = start
    for layer in lm.layers[2 : 2 + layers]:
        state = layer(state, attention_mask=mask, position_embeddings=rope)
    visual = (batch["input_ids"][0] == model.config.image_token_id).nonzero().flatten()
    after = state[0, int(visual[-1]) + 1 :]
    loss = (after - start[0, int(visual[-1]) + 1 :].detach()).square().mean().sqrt() * after.numel()
    (gradient,) = torch.autograd.grad(loss, start)
    return gradient[0, visual].norm(dim=-1)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("layers", [1, 2, 99])
def test_scores_are_gradients_through_the_next_layers(layers, kernel):
    model = tiny_llava()
    model.set_attn_implementation(kernel)
    batch = collate([prompt_of(make_row(1, 6))])
    wanted = plain_scores(model, batch, layers)
    stage = first_stage(attach(model, layers=layers), batch)
    torch.testing.assert_close(stage.scores[0], wanted, rtol=1e-3, atol=1e-6)
    assert wanted.std() > 0.01 * wanted.mean()


def test_a_gradient_is_a_difference_quotient():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    hidden = torch.randn(1, 5, 3, generator=generator, dtype=torch.float64)
    watched = torch.tensor([[False, False, False, True, True]])

    def ahead(state: torch.Tensor) -> torch.Tensor:
        return state + torch.tanh(mix @ state)

    def loss(state: torch.Tensor) -> float:
        return float((ahead(state) - hidden)[watched].square().sum() / 2)

    scale = (2 * loss(hidden) / 6) ** 0.5
    wanted = torch.zeros_like(hidden)
    for place in torch.cartesian_prod(torch.arange(5), torch.arange(3)):
        step = torch.zeros_like(hidden)
        step[0, place[0], place[1]] = 1e-6
        wanted[0, place[0], place[1]] = (loss(hidden + step) - loss(hidden - step)) / 2e-6 / scale
    torch.testing.assert_close(gradient_norms(ahead, hidden, watched), wanted.norm(dim=-1), rtol=1e-6, atol=1e-8)


def test_suppression_by_hand():
    """Directions in the plane: 1 is like 0, and 4 like 3; with room for more than three, the best suppressed follow."""
    angle = torch.tensor([0.0, 5.0, 60.0, 120.0, 115.0]).deg2rad()
    hidden = torch.stack([angle.cos(), angle.sin()], -1)[None]
    scores = torch.tensor([[5.0, 4.0, 1.0, 2.0, 3.0]])
    real = torch.ones(1, 5, dtype=torch.bool)
    picked = [select(keep=n, scores=scores, hidden=hidden, threshold=0.9, real=real)[0].tolist() for n in (2, 3, 4, 5)]
    assert picked == [[0, 4], [0, 4, 2], [0, 4, 2, 1], [0, 4, 2, 1, 3]]
    assert select(keep=3, scores=scores, hidden=hidden, threshold=1.0, real=real).tolist() == [[0, 1, 4]]
    real[0, 0] = False
    assert select(keep=3, scores=scores, hidden=hidden, threshold=0.9, real=real).tolist() == [[1, 4, 2]]


def test_equal_scores_go_to_the_first():
    hidden = torch.eye(4)[None]
    real = torch.ones(1, 4, dtype=torch.bool)
    assert select(keep=4, scores=torch.ones(1, 4), hidden=hidden, threshold=0.9, real=real).tolist() == [[0, 1, 2, 3]]


@torch.no_grad()
def test_kept_tokens_are_not_alike():
    """Walk down the recorded order with a plain loop."""
    model = attach(tiny_llava(), threshold=0.3)
    states: list[torch.Tensor] = []
    hook = attached(model).lm.layers[1].register_forward_hook(lambda _, args, out: states.append(out))
    stage = first_stage(model, collate([prompt_of(make_row(1, 6))]))
    hook.remove()
    ids = collate([prompt_of(make_row(1, 6))])["input_ids"][0]
    hidden = states[0][0, ids == model.config.image_token_id]
    order = stage.scores[0].sort(descending=True, stable=True).indices.tolist()
    kept: list[int] = []
    for strict in (True, False):
        for one in order:
            alike = any(cosine(hidden[one], hidden[other], dim=0) > 0.3 for other in kept)
            if len(kept) < KEPT and one not in kept and not (strict and alike):
                kept.append(one)
    assert stage.kept[0].tolist() == sorted(kept) != sorted(order[:KEPT])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", list(FAMILIES))
@torch.no_grad()
def test_runs_on_every_family(family, side):
    known = FAMILIES[family]
    model = duet.attach(
        known.build(), "stage1:cover+stage2:trio", Budget(dominant=4, layers=(1,), ratios=(0.5,)), layers=2
    )
    check_rows_alone(model, known.prompts, known.collate, side, {"atol": 2e-4, "rtol": 0})


def test_inference_mode_and_collected_states_change_nothing():
    model = attach(tiny_llava())
    batch = collate([prompt_of(make_row(pictures, 6, seed=pictures)) for pictures in (1, 2)], "left")
    with torch.no_grad():
        wanted = model(**batch)
        collected = model(**batch, output_hidden_states=True)
    with torch.inference_mode():
        found = model(**batch)
    torch.testing.assert_close(found.logits, wanted.logits)
    torch.testing.assert_close(collected.logits, wanted.logits)
    assert len(collected.hidden_states) == model.config.text_config.num_hidden_layers + 1


@pytest.mark.parametrize("cache", [None, "static"])
@torch.no_grad()
def test_answers_are_those_of_one_forward(cache):
    model = attach(tiny_llava())
    row = prompt_of(make_row(1, 6))
    options = {"cache_implementation": cache, "disable_compile": True} if cache else {}
    out = model.generate(
        **collate([row]), max_new_tokens=3, min_new_tokens=3, do_sample=False, output_logits=True,
        return_dict_in_generate=True, **options,
    )  # fmt: skip
    new = out.sequences[0, len(row.ids) :]
    torch.testing.assert_close(torch.cat(out.logits), recomputed(model, row, new, collate), rtol=0, atol=2e-4)


@pytest.mark.parametrize("checkpointing", [None, False, True])
def test_training_is_that_of_the_kept_tokens(checkpointing):
    """Dropout and gradient checkpointing do not see the look ahead: loss and gradients are as with the same choice."""
    batch = collate([make_row(1, text=5), make_row(2, text=8, seed=1)], "right", labels=True)
    model = attach(tiny_llava())
    model.train()
    for layer in attached(model).lm.layers:
        layer.self_attn.attention_dropout = 0.3
    torch.manual_seed(0)
    with torch.no_grad(), duet.record(model) as trace:
        model(**batch)
    given = Given()
    given.keep = torch.zeros(2, 2 * PATCHES, dtype=torch.bool)
    for row, kept in enumerate(trace.stages[0].kept):
        given.keep[row, kept] = True
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
    found = []
    for compression in (attached(model).compression, replace(attached(model).compression, pruner=given)):
        exchange_compression(model, compression)
        torch.manual_seed(0)
        loss = model(**batch).loss
        loss.backward()
        gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
        found.append((loss.detach(), gradients))
        model.zero_grad(set_to_none=True)
    torch.testing.assert_close(found[0], found[1])
    assert found[0][1]["model.multi_modal_projector.linear_1.weight"].abs().sum() > 0


@torch.no_grad()
def test_half_precision():
    known = FAMILIES["llava_next"]
    model = attach(known.build().to(torch.bfloat16))
    batch = known.collate(known.prompts, "left")
    batch["pixel_values"] = batch["pixel_values"].to(torch.bfloat16)
    logits = model(**batch).logits
    assert logits.dtype == torch.bfloat16 and torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers is 0; it must be at least 1"),
        ({"threshold": 1.5}, "threshold is 1.5; it must be a cosine"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Trio(**options)
    with pytest.raises(UserError, match=message):
        attach(tiny_llava(), **options)


@torch.no_grad()
def test_sharded_weights_are_refused():
    model = attach(tiny_llava())
    layer = attached(model).lm.layers[2]
    layer.input_layernorm.weight.ds_id = 0
    with pytest.raises(UserError, match="sharded weights"):
        model(**collate([prompt_of(make_row(1, 6))]))
