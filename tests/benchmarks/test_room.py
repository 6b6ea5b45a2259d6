"""The computed size of a request's cache is that of caches that were filled."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest
import torch

from benchmarks import room
from benchmarks.configurations import configurations
from benchmarks.families import Asked, build_model, build_prompt
from benchmarks.shapes import SHAPES

TEXT, NEW = 64, 5


@pytest.mark.parametrize("shape", ["smoke", "smoke-llavanext", "smoke-qwen2_5_vl", "smoke-qwen3_vl"])
@torch.no_grad()
def test_the_formula_equals_a_filled_cache(shape):
    model = build_model(SHAPES[shape], torch.device("cpu"), torch.float32)
    prompt = build_prompt(model, Asked(1), TEXT)
    for one in configurations(model, prompt, ["none", "duet", "pyramiddrop"], SHAPES[shape].averages):
        with one.attached(model):
            out = model.generate(
                **prompt.inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, return_dict_in_generate=True
            )
        filled = sum(layer.keys.nbytes + layer.values.nbytes for layer in out.past_key_values.layers)
        assert filled == room.request_bytes(one.backbone, one.budget, prompt.text, NEW, size=4)


def test_rows_of_a_shape(tmp_path, capsys):
    out = tmp_path / "room.json"
    assert room.main(["--shapes", "smoke", "--cards", "1,2", "--output", str(out)]) == 0
    stock, ours = json.loads(out.read_text())["rows"]
    assert stock["more"] == 1 and ours["more"] > 1
    assert ours["requests"]["1"] > stock["requests"]["1"] and stock["requests"]["2"] >= 2 * stock["requests"]["1"]
    assert "| smoke | duet 160 |" in out.with_suffix(".md").read_text()
    small = room.shape_rows("llava15-7b", Namespace(method="duet", cards=[8], text=TEXT, new_tokens=NEW))
    assert [row["requests"]["8"] for row in small] == [0] * 4  # the weights alone do not fit
    with pytest.raises(SystemExit):
        room.main(["--shapes", "huge"])
    assert "choose among" in capsys.readouterr().err
