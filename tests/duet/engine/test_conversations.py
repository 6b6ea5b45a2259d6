"""Two conversations on one model do not mix, in any family: all that one needs is on its cache."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.families import Family
from tests.tiny_parts import recomputed

pytestmark = pytest.mark.usefixtures("no_grad")

LOGITS = {"atol": 2e-4, "rtol": 0}


def with_pictures(family: Family) -> list[Any]:
    """Two prompts with pictures, and one of words."""
    shown = [any("pixel" in name for name in family.collate([row])) for row in family.prompts]
    rows = list(zip(family.prompts, shown, strict=True))
    return [row for row, pictures in rows if pictures][:2] + [row for row, pictures in rows if not pictures][:1]


def words(family: Family, rows: int, steps: int = 3) -> Tensor:
    return torch.randint(3, family.words, (rows, steps), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("method", ["visionzip_c", "duet"])
@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_decoding_by_hand_is_not_moved_by_another_prompt(family, method, positions):
    model = family.attach(family.build(), method, positions=positions)
    prompts = with_pictures(family)
    new = words(family, len(prompts))
    caches = [model(**family.collate([prompt])).past_key_values for prompt in prompts]
    for step in range(new.shape[1]):
        for number, prompt in enumerate(prompts):
            token = new[number, step : step + 1][None]
            found = model(input_ids=token, past_key_values=caches[number]).logits[0, -1]
            wanted = recomputed(model, prompt, torch.cat([new[number, : step + 1], token[0]]), family.collate)[-1]
            torch.testing.assert_close(found, wanted, **LOGITS)


def test_generate_goes_on_from_its_own_cache(family):
    model = family.attach(family.build())
    others = [*range(family.words, model.config.get_text_config().vocab_size)]
    options = {"max_new_tokens": 3, "do_sample": False, "suppress_tokens": others, "return_dict_in_generate": True}
    prompts = with_pictures(family)[:2]
    first = [model.generate(**family.collate([prompt]), **options) for prompt in prompts]
    for prompt, turn in zip(prompts, first, strict=True):
        ids = torch.cat([turn.sequences, torch.tensor([[7, 8]])], 1)
        cache = deepcopy(turn.past_key_values)
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, output_logits=True, **options
        )
        new = out.sequences[0, len(prompt.ids) :]
        wanted = recomputed(model, prompt, new, family.collate)[-3:]
        torch.testing.assert_close(torch.cat(out.logits), wanted, **LOGITS)


def test_padded_rows_go_on_by_hand(family):
    """Without position ids; the mask tells the count, the cache what pictures shift it by, also in another order."""
    model = family.attach(family.build(), positions="keep")
    batch = family.collate(family.prompts)
    mask = torch.cat([batch["attention_mask"], torch.ones(len(family.prompts), 1, dtype=torch.long)], 1)
    tokens = words(family, len(family.prompts), 1)
    positions = None if "mm_token_type_ids" in batch else (batch["attention_mask"].cumsum(1) - 1).clamp_min(0)
    cache = model(**batch, position_ids=positions).past_key_values
    later = None if positions is None else (mask.cumsum(1) - 1)[:, -1:]
    order = torch.arange(len(tokens)).flip(0)
    turned = deepcopy(cache)
    turned.reorder_cache(order)
    found = model(input_ids=tokens, attention_mask=mask, position_ids=later, past_key_values=cache).logits[:, -1]
    for number, prompt in enumerate(family.prompts):
        wanted = recomputed(model, prompt, tokens[number].repeat(2), family.collate)[-1]
        torch.testing.assert_close(found[number], wanted, **LOGITS)
    later = None if later is None else later[order]
    again = model(
        input_ids=tokens[order], attention_mask=mask[order], position_ids=later, past_key_values=turned
    ).logits[:, -1]
    torch.testing.assert_close(again, found[order], **LOGITS)


def test_nothing_is_left_on_the_model(family):
    model = family.attach(family.build())
    known = {id(module): dict(vars(module)) for module in model.modules()}
    batch = family.collate(family.prompts)
    model(**batch)
    model.generate(**batch, max_new_tokens=2, do_sample=False)
    for module in model.modules():
        for name, value in vars(module).items():
            assert value is known[id(module)].get(name), (type(module).__name__, name)


@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_a_cache_that_is_cut_into_its_prompt_goes_on_from_there(family, positions):
    """As assisted decoding does with wrong guesses; here a padded batch gives its last two tokens back."""
    model = family.attach(family.build(), positions=positions)
    batch = family.collate(family.prompts)
    mask, ids = batch["attention_mask"], batch["input_ids"]
    numbers = None if "mm_token_type_ids" in batch else (mask.cumsum(1) - 1).clamp_min(0)
    out = model(**batch, position_ids=numbers)
    out.past_key_values.crop(-2)
    assert out.past_key_values.get_seq_length() == ids.shape[1] - 2
    later = None if numbers is None else numbers[:, -2:]
    again = model(input_ids=ids[:, -2:], attention_mask=mask, position_ids=later, past_key_values=out.past_key_values)
    torch.testing.assert_close(again.logits, out.logits[:, -2:], **LOGITS)
