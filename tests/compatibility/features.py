"""One function for each row of `table.py` about calls: use the feature, and compare or let the refusal through."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, StaticCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

import duet
from tests.compatibility.world import LOGITS, STEPS, World, stock_of
from tests.tiny_parts import recomputed


def greedy(world: World) -> None:
    world.generate(world.model())


def beams(world: World) -> None:
    out = world.model().generate(
        **world.batch(), **{**world.options(), "num_beams": 3, "num_return_sequences": 2}, output_scores=True
    )
    for number, (ids, score) in enumerate(zip(out.sequences, out.sequences_scores, strict=True)):
        new = ids[-STEPS:]
        steps = world.wanted(world.rows[number // 2], new).log_softmax(-1)
        torch.testing.assert_close(score, steps.gather(1, new[:, None]).sum() / STEPS, **LOGITS)


def sampling(world: World) -> None:
    model, found = world.model(), []
    for _ in range(2):
        torch.manual_seed(0)
        options = {**world.options(), "do_sample": True, "num_return_sequences": 2}
        out = world.check(model.generate(**world.batch(), **options), [row for row in world.rows for _ in range(2)])
        found.append(out.sequences)
    assert torch.equal(*found)


def no_cache(world: World) -> None:
    world.generate(world.model(), use_cache=False)


def streamer(world: World) -> None:
    seen: list[Tensor] = []
    streams = SimpleNamespace(put=lambda tokens: seen.append(tokens.flatten()), end=lambda: None)
    out = world.generate(world.model(), world.rows[:1], streamer=streams)
    assert torch.equal(torch.cat(seen), out.sequences[0])


def custom_generate(world: World) -> None:
    def decode(model: Any, input_ids: Tensor, **kwargs: Any) -> Tensor:
        for name in ("logits_processor", "stopping_criteria", "generation_config"):
            kwargs.pop(name)
        inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **kwargs)
        return model(**inputs).logits[:, -1]

    found = world.model().generate(**world.batch(), custom_generate=decode, max_new_tokens=1)
    for logits, row in zip(found, world.rows, strict=True):
        torch.testing.assert_close(logits, world.wanted(row, torch.tensor([5]))[0], **LOGITS)


def threads(world: World) -> None:
    model = world.model()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda row: world.generate(model, [row]), [*world.rows, *world.rows]))


def prefill_chunks(world: World) -> None:
    world.generate(world.model(), prefill_chunk_size=4)


def embeds_and_pixels(world: World) -> None:
    model, batch = world.model(), world.batch()
    embeds = model.get_input_embeddings()(batch.pop("input_ids"))
    model.generate(**batch, inputs_embeds=embeds, max_new_tokens=2)


def _answered(world: World) -> tuple[list[Any], Tensor]:
    new = world.words(len(world.rows))
    return [world.family.answered(row, answer) for row, answer in zip(world.rows, new, strict=True)], new


def prompt_lengths(world: World) -> None:
    model, (rows, new) = world.model(), _answered(world)
    logits = model(**world.batch(rows), prompt_lengths=[len(row.ids) for row in world.rows]).logits
    for found, row, answer in zip(logits, world.rows, new, strict=True):
        torch.testing.assert_close(found[-STEPS - 1 : -1], world.wanted(row, answer), **LOGITS)


def labels(world: World) -> None:
    model, (rows, new) = world.model(), _answered(world)
    out = model(**world.family.collate(rows, labels=True))
    pairs = zip(world.rows, new, strict=True)
    losses = [torch.nn.functional.cross_entropy(world.wanted(row, answer), answer) for row, answer in pairs]
    torch.testing.assert_close(out.loss, torch.stack(losses).mean(), **LOGITS)


def loglikelihood(world: World) -> None:
    new = world.words(len(world.rows))
    scores = duet.loglikelihood(world.model(), world.batch(), [[answer] for answer in new])
    for (score,), row, answer in zip(scores, world.rows, new, strict=True):
        wanted = world.wanted(row, answer).log_softmax(-1).gather(1, answer[:, None])[:, 0]
        torch.testing.assert_close(score.tokens, wanted, **LOGITS)


def features_out(world: World) -> None:
    stock, model = world.stock(), world.model()
    wanted, found = stock(**world.batch()), model(**world.batch())
    for name in ("image_hidden_states", "video_hidden_states"):
        whole, kept = (getattr(out, name, None) for out in (wanted, found))
        assert (whole is None) == (kept is None)
        if whole is not None and world.method == "pyramiddrop_all":
            torch.testing.assert_close(kept, whole.flatten(0, -2), **LOGITS)
        elif whole is not None:
            assert 0 < len(kept) < len(whole.flatten(0, -2))


def hidden_states(world: World) -> None:
    model = world.model()
    model.set_attn_implementation("eager")
    with duet.record(model) as trace:
        out = model(**world.batch(), output_hidden_states=True, output_attentions=True)
    depth = model.config.get_text_config().num_hidden_layers
    lengths = [max(rows) for _, rows in sorted(trace.lengths.items())]
    starts = sorted(trace.lengths)
    widths = [lengths[max(n for n, start in enumerate(starts) if start <= layer)] for layer in range(depth)]
    assert [attention.shape[-1] for attention in out.attentions] == widths
    assert len(out.hidden_states) == depth + 1 and out.logits.shape[1] == world.batch()["input_ids"].shape[1]


def embeds_alone(world: World) -> None:
    model, embeds = world.model(), torch.randn(1, 9, 32)
    with pytest.warns(UserWarning, match="runs uncompressed"):
        found = model(inputs_embeds=embeds).logits
    torch.testing.assert_close(found, stock_of(world.name)(inputs_embeds=embeds).logits)


def no_pixels(world: World) -> None:
    ids = {"input_ids": world.batch(world.rows[:1])["input_ids"]}
    torch.testing.assert_close(world.model()(**ids).logits, stock_of(world.name)(**ids).logits)


def feature_layer(world: World) -> None:
    layer, model, other = {"vision_feature_layer": -1}, world.model(), world.stock()
    other.config.vision_feature_layer = other.model.config.vision_feature_layer = -1
    torch.testing.assert_close(model(**world.batch(), **layer).logits, world.attach(other)(**world.batch()).logits)
    assert not torch.equal(model(**world.batch()).logits, model(**world.batch(), **layer).logits)


def select_strategy(world: World) -> None:
    strategy = world.stock().config.vision_feature_select_strategy
    other = "full" if strategy == "default" else "default"
    world.model()(**world.batch(), vision_feature_select_strategy=other)


def encoder_outputs(world: World) -> None:
    batch = world.batch()
    world.model()(**{name: batch[name] for name in ("input_ids", "attention_mask")}, mm_encoder_outputs={"image": None})


def packed(world: World) -> None:
    batch = world.batch(world.rows[:1])
    del batch["attention_mask"]
    length = batch["input_ids"].shape[1]
    world.model()(**batch, position_ids=torch.cat([torch.arange(length - 3), torch.arange(3)])[None])


def mask_4d(world: World) -> None:
    batch = world.batch(world.rows[:1])
    length = batch["input_ids"].shape[1]
    positions = {} if "mm_token_type_ids" not in batch else {"position_ids": torch.arange(length).expand(3, 1, -1)}
    world.model()(**{**batch, **positions, "attention_mask": torch.ones(1, 1, length, length).tril()})


def labels_and_logits(world: World) -> None:
    batch = world.family.collate(world.rows, labels=True)
    world.model()(**batch, logits_to_keep=2)


def checkpointing(world: World) -> None:
    rows, _ = _answered(world)
    batch, model = world.family.collate(rows, labels=True), world.model().train()
    wanted = model(**batch).loss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable()
    with torch.enable_grad():
        loss = model(**batch).loss
        loss.backward()
    torch.testing.assert_close(loss.detach(), wanted)


def eager(world: World) -> None:
    model = world.model()
    model.set_attn_implementation("eager")
    world.generate(model)


def own_attention(world: World) -> None:
    AttentionInterface.register("duet_test", sdpa_attention_forward)
    AttentionMaskInterface.register("duet_test", sdpa_mask)
    model = world.model()
    model.set_attn_implementation("duet_test")
    world.generate(model)


def half(world: World) -> None:
    """Against itself: in half precision other tokens are kept than in float32 where weights are random."""
    model, row = world.model().bfloat16(), world.rows[0]

    def collate(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
        whole = world.family.collate(*args, **kwargs)
        return {name: part.bfloat16() if part.is_floating_point() else part for name, part in whole.items()}

    out = model.generate(**collate([row]), **world.options())
    found = torch.cat(out.logits)
    wanted = recomputed(model, row, out.sequences[0, len(row.ids) :], collate).float()
    assert (found - wanted).abs().mean() < 0.02 * wanted.abs().mean()


def given_cache(world: World) -> None:
    world.generate(world.model(), past_key_values=DynamicCache())
    world.generate(world.model(), cache_implementation="dynamic")


def static_name(world: World) -> None:
    world.generate(world.model(), cache_implementation="static")


def static_cache(world: World) -> None:
    model = world.model()
    world.generate(model, past_key_values=StaticCache(model.config.get_text_config(), max_cache_len=400))


def quantized_cache(world: World) -> None:
    world.generate(world.model(), cache_implementation="quantized")


def offloaded_cache(world: World) -> None:
    if not torch.cuda.is_available():
        pytest.skip("an offloaded cache needs a GPU")
    model = world.model().cuda()
    rows = world.rows[:1]
    batch = {name: part.cuda() for name, part in world.batch(rows).items()}
    out = model.generate(**batch, **world.options(), cache_implementation="offloaded")
    found = torch.cat(out.logits).cpu()
    wanted = world.wanted(rows[0], out.sequences[0, -STEPS:].cpu())
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)


def second_turn(world: World) -> None:
    model, row = world.model(), world.rows[0]
    first = model.generate(**world.batch([row]), **world.options())
    ids = torch.cat([first.sequences, torch.tensor([[7, 8]])], 1)
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=first.past_key_values, **world.options()
    )
    wanted = world.wanted(row, out.sequences[0, len(row.ids) :])[-STEPS:]
    torch.testing.assert_close(torch.cat(out.logits), wanted, **LOGITS)


def by_hand(world: World) -> None:
    model, rows = world.model(), world.rows[:2]
    caches = [model(**world.batch([row])).past_key_values for row in rows]
    new = world.words(2)
    for step in range(STEPS - 1):
        for row, own, answer in zip(rows, caches, new, strict=True):
            found = model(input_ids=answer[None, step : step + 1], past_key_values=own).logits[0, -1]
            torch.testing.assert_close(found, world.wanted(row, answer)[step + 1], **LOGITS)


def new_pictures(world: World) -> None:
    model, batch = world.model(), world.batch(world.rows[:1])
    model(**batch, past_key_values=model(**batch).past_key_values)


def stock_draft(world: World) -> None:
    model, draft = world.model(), world.stock()
    for row in world.rows[:2]:
        world.generate(model, [row], assistant_model=draft)


def own_draft(world: World) -> None:
    model, draft = world.model(), world.model()
    draft.lm_head.weight.data += 0.3 * torch.randn(draft.lm_head.weight.shape)
    world.generate(model, world.rows[:1], assistant_model=draft)


def attached_draft(world: World) -> None:
    batch, options = world.batch(world.rows[:1]), {**world.options(), "return_dict_in_generate": False}
    model = world.stock()
    wanted = model.generate(**batch, **options)
    assert torch.equal(model.generate(**batch, **options, assistant_model=world.model()), wanted)


def lookup(world: World) -> None:
    model = world.model()
    for row in world.rows[:2]:
        world.generate(model, [row], prompt_lookup_num_tokens=3)
