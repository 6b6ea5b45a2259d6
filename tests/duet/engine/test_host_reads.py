"""The host waits for the device once per prompt, whatever the batch, and never while decoding (`tests/host_reads.py`).

What stock code of a family waits for is its own: LLaVA-NeXT's and Qwen's read their grids many times.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.duet.engine.cases import SHAPES
from tests.duet.engine.test_seen import attach, questions, views
from tests.host_reads import HostReads, on_accelerator
from tests.tiny_llava import collate, make_row, prompt_of, tiny_llava

METHODS = ("none", "duet", "duet_c", "pyramiddrop", "visionzip", "fastv")


def waits(call: Any) -> dict[str, int]:
    """What this repository's code waits for in a call."""
    with HostReads() as reads:
        call()
    return reads.own


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_a_prompt_is_read_once_whatever_the_batch(family, method):
    for rows in (family.prompts[:1], family.prompts):
        model = on_accelerator(attach(family, method, ""))
        for side in ("left", "right"):
            batch = on_accelerator(family.collate(rows, side))
            found = waits(lambda model=model, batch=batch: model(**batch, use_cache=True, logits_to_keep=1))
            assert sum(found.values()) == 1 and "host.py" in next(iter(found)), found


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_every_shape_is_read_once(name):
    model = on_accelerator(SHAPES[name].attach(tiny_llava()))
    rows = [prompt_of(make_row(pictures, 4 + pictures, seed=pictures)) for pictures in (1, 0, 3)]
    for some in (rows[:1], rows):
        batch = on_accelerator(collate(some))
        found = waits(lambda batch=batch: model(**batch, use_cache=True, logits_to_keep=1))
        assert sum(found.values()) == 1, found


@torch.no_grad()
def test_salient_words_are_found_on_the_host(family):
    from tests.tiny_llava import fill_salient

    model = on_accelerator(family.attach(family.build(), "duet_c_s", salient=fill_salient))
    batch = on_accelerator(family.collate(family.prompts))
    assert sum(waits(lambda: model(**batch)).values()) == 1


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("method", METHODS[1:])
@torch.no_grad()
def test_decoding_never_waits(family, method, cache):
    found = []
    for new in (2, 5):
        model = on_accelerator(attach(family, method, ""))
        batch = on_accelerator(family.collate(family.prompts))
        asked = {**batch, "max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
        asked |= {"cache_implementation": cache, "disable_compile": True} if cache else {}
        found.append(waits(lambda model=model, asked=asked: model.generate(**asked)))
    assert found[0] == found[1]
    assert sum(found[0].values()) == 1


@pytest.mark.parametrize("method", ["duet", "visionzip", "pyramiddrop"])
def test_a_training_step_reads_once(family, method):
    for rows in (family.rows[:1], family.rows):
        model = on_accelerator(attach(family, method, "")).train()
        batch = on_accelerator(family.collate(rows, labels=True))
        found = waits(lambda model=model, batch=batch: model(**batch).loss.backward())
        assert sum(found.values()) == 1, found


@torch.no_grad()
def test_questions_about_read_pictures_read_once(family):
    from duet.engine.seen import Gallery, in_view

    model, rows = on_accelerator(attach(family, "duet", "")), questions(family)
    with HostReads():  # what is kept is on the device, too
        seen = views(model, family, rows, Gallery())
    batch = on_accelerator(family.collate(rows))
    with in_view(model, seen):
        found = waits(lambda: model(**batch, use_cache=True))
    assert sum(found.values()) == 1, found


def test_the_counter_counts():
    there = on_accelerator({"x": torch.arange(6.0)})["x"]
    with HostReads() as reads:
        bool(there[0] > 0), there.tolist(), there[there > 2], there.nonzero(), there.cpu()
        torch.zeros(3).to(there.device), torch.repeat_interleave(there, there.long())
    assert reads.count == 7
    with HostReads() as reads:
        torch.zeros(3).to(there.device, non_blocking=True), there[2:4], there.sort(), there.masked_fill(there > 2, 0)
        torch.arange(6).tolist(), torch.zeros(6).nonzero(), there.index_select(0, torch.arange(2))
    assert reads.count == 0
