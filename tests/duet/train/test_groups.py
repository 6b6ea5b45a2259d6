"""Parts, what is trained of them, and the optimizer's groups: equal to the original's, and by part in every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from duet.errors import UserError
from duet.llava.model.original import to_original_name
from duet.train.adapters import add_lora, check_lora, linear_names, target_pattern
from duet.train.arguments import TrainingArguments
from duet.train.freeze import Parts, freeze, learned_table, plain_name
from duet.train.groups import parameter_groups
from duet.train.trainer import DuetTrainer
from tests.families import FAMILIES
from tests.tiny_llava import tiny_llava

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "training" / "parameter_groups.json").read_text())


def golden_model() -> Any:
    """The shape of the golden one: a 2-layer LLaMA and a 2-layer CLIP."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text, vision = LlamaConfig(vocab_size=32, **sizes), CLIPVisionConfig(image_size=28, patch_size=14, **sizes)
    return LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision, image_token_index=31))


@pytest.mark.parametrize("case", ["projector_lr", "no_projector_lr", "projector_only"])
def test_groups_are_the_original_s(tmp_path: Path, case: str) -> None:
    model = golden_model()
    freeze(model, () if case == "projector_only" else ["tower"], projector_only=case == "projector_only")
    rate = 2e-6 if case == "projector_lr" else None
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, learning_rate=2e-5, weight_decay=0.1, mm_projector_lr=rate
    )
    optimizer = DuetTrainer(model=model, args=arguments).create_optimizer()
    names = {id(value): to_original_name(name) for name, value in model.named_parameters()}
    found = [
        {name: group[name] for name in ("lr", "weight_decay")}
        | {"names": sorted(names[id(value)] for value in group["params"])}
        for group in optimizer.param_groups
    ]
    assert found == [{**group, "names": sorted(group["names"])} for group in GOLDEN[case]]


def test_lora_targets_are_the_original_s() -> None:
    assert linear_names(golden_model()) == GOLDEN["lora_targets"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_parts(family: str) -> None:
    model = FAMILIES[family].build()
    parts = Parts.of_model(model)
    found = {part: [] for part in ("tower", "projector", "decoder", "newline")}
    for name, _ in model.named_parameters():
        found[parts.part(name)].append(name)
    towers, projector = FAMILIES[family].vision[:-1], FAMILIES[family].vision[-1]
    assert all(name.startswith(towers) and not name.startswith(projector) for name in found["tower"])
    assert all("merger" in name or name.startswith(projector) for name in found["projector"])
    assert found["tower"] and found["projector"]
    assert not [name for name in found["decoder"] if name.startswith((*towers, projector))]
    assert [name for name in found["decoder"] if "embed_tokens" in name]
    assert found["newline"] == (["model.image_newline"] if family == "llava_next" else [])


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_go_into_the_language_model_alone(family: str) -> None:
    model = add_lora(FAMILIES[family].build(), {"r": 2})
    freeze(model)
    parts = Parts.of_model(model)
    learned = [name for name, value in model.named_parameters() if value.requires_grad]
    adapters = [name for name in learned if ".lora_" in name]
    assert {parts.part(name) for name in adapters} == {"decoder"}
    assert {name.split(".")[-4] for name in adapters} >= {"q_proj", "v_proj", "down_proj"}
    assert {parts.part(name) for name in learned} == {"decoder", "projector"}
    assert not [name for name in learned if parts.part(name) == "decoder" and ".lora_" not in name]
    freeze(model, ["projector"])
    assert all(".lora_" in name for name, value in model.named_parameters() if value.requires_grad)


def test_rates_by_part_and_by_prefix() -> None:
    model = tiny_llava()
    freeze(model)
    rates = {"tower": 1.0, "projector": 2.0, "model.language_model.layers.1": 3.0}
    groups = parameter_groups(model, rates, 0.1, set())
    names = {id(value): name for name, value in model.named_parameters()}
    for group in groups:
        for value in group["params"]:
            name = names.pop(id(value))
            places = {"model.vision_tower": 1.0, "model.multi_modal": 2.0, "model.language_model.layers.1.": 3.0}
            assert group.get("lr") == next((rate for prefix, rate in places.items() if name.startswith(prefix)), None)
    assert not names
    freeze(model, ["tower"])
    with pytest.raises(UserError, match=r"rates .*'tower'"):
        parameter_groups(model, rates, 0.1, set())


def test_the_table_says_what_is_trained() -> None:
    model = add_lora(tiny_llava(), {"r": 2, "use_dora": True})
    learned = freeze(model)
    table = learned_table(model, {"projector": 2e-5}, 2e-4)
    rows = {line.rsplit("  ", 1)[0].split()[0]: line for line in table.splitlines()}
    assert f"{learned:,}" in rows["all"]
    assert rows["projector"].endswith("2e-05") and "100.00%" in rows["projector"]
    assert "0.00%" in rows["tower"]
    assert any("decoder (adapter)" in line and line.endswith("0.0002") for line in table.splitlines())


def test_train_names_what_is_trained() -> None:
    model = tiny_llava()
    freeze(model, train=["projector", "model.language_model.layers.0"])
    learned = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {plain_name(name).split(".")[1] for name in learned} == {"multi_modal_projector", "language_model"}
    assert all(".layers.0." in name for name in learned if "language_model" in name)
    with pytest.raises(UserError, match="train: no parameter is under 'merger'; the model has the parts tower"):
        freeze(model, train=["merger"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rank": 3}, "unknown option 'rank'"),
        ({"lora_alfa": 3}, "did you mean lora_alpha"),
        ({"r": 0}, "r is 0"),
        ({"r": True}, "r is True"),
    ],
)
def test_an_unusable_lora_option_is_named(given: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_lora(given)


def test_names_mean_layers_of_the_language_model_and_patterns_anything() -> None:
    model = tiny_llava()
    wrapped = add_lora(model, {"r": 2, "target_modules": ["q_proj"]})
    assert all("language_model" in name for name, _ in wrapped.named_parameters() if "lora" in name)
    pattern = r".*vision_tower.*\.k_proj"
    assert target_pattern(tiny_llava(), pattern) == pattern
    wrapped = add_lora(tiny_llava(), {"r": 2, "target_modules": ["multi_modal_projector.linear_1", "q_proj"]})
    assert any("linear_1.lora_A" in name for name, _ in wrapped.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_and_biases_do_not_decay_in_any_family(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family].build()
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, weight_decay=0.1)
    decayed = set(DuetTrainer(model=model, args=arguments).get_decay_parameter_names(model))
    flat = {name for name, value in model.named_parameters() if value.ndim == 1}
    kept = {name for name in flat & decayed if "norm" in name or "ln_" in name or name.endswith("bias")}
    assert not kept and len(decayed) > 10
