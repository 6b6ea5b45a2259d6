"""LLaVA-NeXT against the slow restatement: order, counts, unpadding, newlines, both stages, every switch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import duet
from duet.llava.anyres import lay_out
from tests.duet.engine.cases import CASES
from tests.duet.engine.test_decoder import Watch
from tests.plain_duet import eager, run
from tests.plain_next import embedder, stitched
from tests.tiny_llava_next import PINPOINTS, SIDE, SIZE, collate, make_row, prompt_of, stock_tokens, tiny_llava_next

#: Sums of long prompts, in another order.
LOGITS = {"atol": 5e-4, "rtol": 0}
#: Heights and widths: two by two tiles without padding; landscape; portrait; one row of tiles; extreme proportions.
SIZES = [(112, 112), (75, 100), (130, 90), (30, 50), (6, 100), (150, 20)]


@pytest.fixture(scope="module", params=["llama", "mistral"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A model, and its copy for the plain restatement."""
    model = tiny_llava_next(request.param)
    return model, eager(model)


def check(pair: tuple[Any, Any], name: str, sizes: list[tuple[int, int]], newlines: str | None, pinpoints: Any = None):
    model, plain = pair
    row = prompt_of(make_row(*sizes, seed=len(sizes), pinpoints=pinpoints))
    case = CASES[name]
    switches = {} if newlines is None else {"newlines": newlines}
    wanted = run(plain, row, case.plan, embed=embedder(newlines or "keep"))
    replace(case, switches={**case.switches, **switches}).attach(model)
    with duet.record(model) as trace, Watch(model.model.language_model) as watch:
        output = model(**collate([row]))
    duet.detach(model)
    assert [stage.kept[0].tolist() for stage in trace.stages] == wanted.kept
    assert watch.lengths == wanted.lengths
    assert watch.positions == wanted.positions
    torch.testing.assert_close(output.logits[0, wanted.columns], wanted.logits, **LOGITS)
    assert [layer.get_seq_length() for layer in output.past_key_values.layers] == wanted.cached


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_picture_equals_the_plain_restatement(pair, name, size):
    check(pair, name, [size], None)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.plan.merge])
@torch.no_grad()
def test_newlines_dropped(pair, name):
    check(pair, name, [(75, 100), (112, 112)], "drop")


@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=2),
    name=st.sampled_from(["none", "visionzip", "duet", "keep", "paper", "duet_c"]),
    data=st.data(),
)
@torch.no_grad()
def test_any_sizes(pair, sizes, name, data):
    newlines = data.draw(st.sampled_from(["keep", "drop"])) if CASES[name].plan.merge else None
    check(pair, name, sizes, newlines)


@pytest.mark.parametrize("pinpoints", [[[168, 56]], [[56, 168]], [[56, 56]], [[168, 168], [56, 112]]], ids=str)
@pytest.mark.parametrize("size", [(20, 100), (100, 20), (56, 56), (3, 300), (300, 3)], ids=str)
@torch.no_grad()
def test_tiles_of_padding_alone_are_left_out(pinpoints, size):
    model = tiny_llava_next(pinpoints=pinpoints)
    for newlines in ("keep", "drop"):
        check((model, eager(model)), "duet", [size], newlines, pinpoints)
    check((model, eager(model)), "keep", [size], None, pinpoints)


@settings(max_examples=200)
@given(
    height=st.integers(1, 2000),
    width=st.integers(1, 2000),
    pinpoints=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3)).map(lambda pair: [pair[0] * SIZE, pair[1] * SIZE]), min_size=1
    ),
)
def test_layout_equals_the_stock_count_and_the_plain_restatement(height, width, pinpoints):
    picture = lay_out((height, width), tuple(map(tuple, pinpoints)), SIZE, SIDE)
    crops, tokens = stock_tokens((height, width), pinpoints)
    assert (picture.count, picture.size) == (crops, tokens)
    rows = stitched((height, width), pinpoints, SIZE, SIDE)
    wanted: list[tuple[int, int, int] | None] = [(0, *divmod(patch, SIDE)) for patch in range(SIDE**2)]
    for row in rows:
        wanted += [*row, None]
    found: list[tuple[int, int, int] | None] = [None] * picture.size
    for crop in picture.crops:
        for patch, slot in zip(crop.patches(SIDE).tolist(), crop.slots().tolist(), strict=True):
            assert found[slot] is None
            found[slot] = (crop.number, *divmod(patch, SIDE))
    assert found == wanted
    assert [slot for slot, what in enumerate(wanted) if what is None] == list(picture.newlines)


def test_pinpoints_of_the_tests_are_those_of_the_real_models():
    assert [[side * 6 for side in pair] for pair in PINPOINTS] == [
        [336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008],
    ]  # fmt: skip
