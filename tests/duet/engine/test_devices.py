"""Models spread over two devices by `device_map`: everything that goes with the hidden states follows them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import duet
from duet.engine.tokens import Tokens
from tests.families import FAMILIES
from tests.two_devices import Devices, label_of, spread

FIRST, SECOND = "cuda:0", "cuda:1"
GREEDY = {"max_new_tokens": 4, "do_sample": False}


#: First layer on the second device: inside a segment, at a boundary, in front of all. Then where the tower is, and
#: where its projector and the final norm are.
SPREADS = [(3, FIRST, SECOND), (2, FIRST, SECOND), (4, SECOND, FIRST), (0, FIRST, FIRST)]


@pytest.mark.parametrize(("cut", "tower", "norm"), SPREADS)
@pytest.mark.parametrize("name", FAMILIES)
def test_spread_models_compute_the_same(name, cut, tower, norm):
    family = FAMILIES[name]
    model = family.attach(family.build())
    batch, labelled = family.collate(family.rows), family.collate(family.rows, labels=True)
    with duet.record(model) as wanted:
        logits = model(**batch).logits
    tokens = model.generate(**batch, **GREEDY, num_beams=2)
    losses = [model.train(mode)(**labelled).loss for mode in (False, True)]
    lm, head = "model.language_model", FIRST if model.config.tie_word_embeddings else SECOND
    layers = {f"{lm}.layers.{number}": SECOND if number >= cut else FIRST for number in range(6)}
    others = {f"{lm}.embed_tokens": FIRST, f"{lm}.rotary_emb": FIRST, f"{lm}.norm": norm, "lm_head": head}
    spread(model.eval(), {**dict.fromkeys(family.vision, tower), family.vision[-1]: norm, **layers, **others})
    with Devices():
        there = {key: value.to(FIRST) for key, value in batch.items()}
        with duet.record(model) as trace:
            found = model(**there).logits
        assert label_of(found) == torch.device(head)
        torch.testing.assert_close(found.cpu(), logits)
        assert [[row.tolist() for row in stage.kept] for stage in trace.stages] == [
            [row.tolist() for row in stage.kept] for stage in wanted.stages
        ]
        assert model.generate(**there, **GREEDY, num_beams=2).tolist() == tokens.tolist()
        static = {"cache_implementation": "static", "disable_compile": True}
        assert model.generate(**there, **GREEDY, num_beams=2, **static).tolist() == tokens.tolist()
        there = {key: value.to(FIRST) for key, value in labelled.items()}
        for mode, loss in zip((False, True), losses, strict=True):
            torch.testing.assert_close(model.train(mode)(**there).loss.cpu(), loss)


def test_tokens_go_where_a_hook_has_the_next_module_compute():
    tokens = Tokens(*(torch.zeros(1, 3) for _ in range(4)), padded=False, left=False)
    module = torch.nn.Linear(3, 3)
    stays = tokens.before(module)
    assert stays.hidden is tokens.hidden and stays.columns is tokens.columns  # one device: nothing is copied
    module._hf_hook = SimpleNamespace(execution_device="meta")
    moved = tokens.before(module)
    for part in (moved.hidden, moved.columns, moved.valid, moved.positions):
        assert part.device.type == "meta"
