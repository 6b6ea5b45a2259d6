"""The rows of `table.py` about what is done with an attached model: copies, files, adapters, devices, quantisation."""

from __future__ import annotations

import copy
import pickle
import tempfile
from typing import Any

import pytest
import torch

import duet
from duet.engine.attachment import is_attached
from tests.compatibility.world import World, stock_of
from tests.tiny_llava import tiny_llava

#: Not quantised with the decoder.
TOWER = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]


def copied(world: World) -> None:
    world.generate(copy.deepcopy(world.model()))


def pickled(world: World) -> None:
    # a fresh one: stock models that have returned hidden states cannot be pickled either
    world.generate(pickle.loads(pickle.dumps(world.attach(world.family.build()))))


def saved(world: World) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world.model().save_pretrained(folder)
        again = type(stock_of(world.name)).from_pretrained(folder).eval()
    wanted = stock_of(world.name)(**world.batch()).logits
    assert torch.equal(again(**world.batch()).logits, wanted) and not is_attached(again)


def detached(world: World) -> None:
    model = world.model()
    model.generate(**world.batch(), max_new_tokens=2)
    duet.detach(model)
    assert torch.equal(model(**world.batch()).logits, stock_of(world.name)(**world.batch()).logits)


def compiled_first(world: World) -> None:
    model = world.stock()
    lm = model.model.language_model
    lm.forward = torch.compile(lm.forward, backend="eager")
    world.attach(model)


def lora(world: World) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = peft.LoraConfig(r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)")
    for first in ("attach", "wrap"):
        model = world.stock()
        if first == "attach":
            world.attach(model)
        model = peft.get_peft_model(model, copy.deepcopy(config)).eval()
        if first == "wrap":
            world.attach(model)
        world.generate(model)


def dispatched(world: World) -> None:
    from accelerate import dispatch_model

    model = world.model()
    places = {name: "cpu" for name, _ in model.model.named_children()}
    places = {f"model.{name}": place for name, place in places.items()} | {"lm_head": "cpu"}
    places |= {f"model.{name}": "cpu" for name, _ in model.model.named_parameters(recurse=False)}
    world.generate(dispatch_model(model, places, force_hooks=True))


def offloaded(world: World) -> None:
    from accelerate import cpu_offload

    model = world.model()
    cpu_offload(model)
    world.generate(model)


def on_disk(world: World) -> None:
    from accelerate import disk_offload

    model = world.model()
    with tempfile.TemporaryDirectory() as folder:
        disk_offload(model.model.language_model, folder)
        world.generate(model)


def data_parallel(world: World) -> None:
    model = world.model()
    model.model._is_replica = True
    model(**world.batch())


def bitsandbytes_nf4(world: World) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from transformers import BitsAndBytesConfig

    _quantised(world, BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=TOWER))


def torchao_int8(world: World) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    _quantised(world, TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=TOWER))


def _quantised(world: World, config: Any) -> None:
    """Cached decoding of the quantised model against recomputing on the same model; 64 wide, as nf4 on a CPU needs."""
    stock = tiny_llava(hidden_size=64, intermediate_size=64)
    with tempfile.TemporaryDirectory() as folder:
        stock.save_pretrained(folder)
        model = type(stock).from_pretrained(folder, quantization_config=config).eval()
    world.attach(model)
    for row in world.rows:
        out = model.generate(**world.batch([row]), **world.options())
        world.check(out, [row], model, atol=0.02, rtol=0)
