"""The decoder loop on one row, every method and switch, against `tests/plain_duet.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import duet
from tests.duet.engine.cases import CASES
from tests.plain_duet import run
from tests.tiny_llava import collate, make_row, prompt_of

LOGITS = {"atol": 1e-4, "rtol": 0}


class Watch:
    """Lengths and position ids that really enter each layer; the ids are read back from the rotary tables."""

    def __init__(self, lm: Any) -> None:
        self.lm = lm
        self.lengths: list[int] = []
        self.positions: list[list[int]] = []
        cos, _ = lm.rotary_emb(torch.zeros(1), position_ids=torch.arange(400)[None])
        self.table = cos[0]

    def __enter__(self) -> Watch:
        self.handles = [layer.register_forward_pre_hook(self._note, with_kwargs=True) for layer in self.lm.layers]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _note(self, layer: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        self.lengths.append(args[0].shape[1])
        cos = kwargs["position_embeddings"][0][0]
        self.positions.append([int((self.table - row).abs().sum(-1).argmin()) for row in cos])


@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_row_equals_the_plain_restatement(kind, name, pictures):
    model, plain, placeholders = kind
    row = prompt_of(make_row(pictures, seed=pictures, placeholders=placeholders))
    wanted = run(plain, row, CASES[name].plan)
    CASES[name].attach(model)
    with duet.record(model) as trace, Watch(model.model.language_model) as watch:
        output = model(**collate([row]))
    assert [stage.kept[0].tolist() for stage in trace.stages] == wanted.kept
    assert watch.lengths == wanted.lengths
    assert watch.positions == wanted.positions
    torch.testing.assert_close(output.logits[0, wanted.columns], wanted.logits, **LOGITS)
    gone = torch.ones(len(row.ids), dtype=torch.bool).index_fill(0, wanted.columns, False)
    assert (output.logits[0, gone] == 0).all()
    assert [layer.get_seq_length() for layer in output.past_key_values.layers] == wanted.cached
    assert output.past_key_values.get_seq_length() == len(row.ids)


@torch.no_grad()
def test_scores_are_recorded_for_every_candidate(tiny):
    CASES["duet_c_all"].attach(tiny)
    with duet.record(tiny) as trace:
        tiny(**collate([prompt_of(make_row(2, seed=1))]))
    assert trace.entered == [18]
    assert [stage.boundary for stage in trace.stages] == [2, 4]
    assert [len(stage.candidates[0]) for stage in trace.stages] == [18, 10]
    for stage in trace.stages:
        order = stage.scores[0].argsort(descending=True, stable=True)[: len(stage.kept[0])]
        assert stage.candidates[0][order].sort().values.tolist() == stage.kept[0].tolist()
    assert [len(row) for row in trace.reductions] == [2]
    assert trace.lengths == {0: [2 + 18 + 2 + 6], 2: [2 + 10 + 2 + 6], 4: [2 + 4 + 2 + 6]}


@pytest.mark.parametrize("name", ["duet", "keep", "paper"])
@torch.no_grad()
def test_eager_and_sdpa_keep_the_same(tiny, plain, name):
    batch = collate([prompt_of(make_row(2, seed=3)), prompt_of(make_row(1, seed=4))])
    found = []
    for model in (tiny, plain):
        CASES[name].attach(model)
        with duet.record(model) as trace:
            logits = model(**batch).logits
        found.append((logits, trace))
        duet.detach(model)
    (logits, trace), (other_logits, other) = found
    torch.testing.assert_close(logits, other_logits, **LOGITS)
    for stage, again in zip(trace.stages, other.stages, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(stage.kept, again.kept, strict=True))
    assert tiny.config._attn_implementation == "sdpa"
    assert {layer.self_attn.config._attn_implementation for layer in tiny.model.language_model.layers} == {"sdpa"}
    assert {layer.self_attn.config._attn_implementation for layer in tiny.model.vision_tower.encoder.layers} == {"sdpa"}


@pytest.mark.parametrize("name", ["none", "duet", "pyramiddrop"])
@torch.no_grad()
def test_the_tower_stops_after_the_feature_layer(tiny, name):
    calls = [0, 0, 0]
    handles = [
        layer.register_forward_hook(lambda *_, number=number: calls.__setitem__(number, calls[number] + 1))
        for number, layer in enumerate(tiny.model.vision_tower.encoder.layers)
    ]
    CASES[name].attach(tiny)
    tiny(**collate([make_row()]))
    for handle in handles:
        handle.remove()
    assert calls == [1, 1, 0]
