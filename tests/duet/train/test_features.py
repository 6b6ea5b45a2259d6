"""Kept tower features: the losses of a run are those without them, and the tower runs once per picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from duet.backbones.kept import Features, Memory, media_keys, picture_keys
from duet.budget import Backbone
from duet.budget.cost import tower_flops
from duet.config import ConfigError
from duet.errors import UserError
from duet.train.features import KEYS, Files, Keyed, StepFeatures
from duet.train.run import run
from tests.families import FAMILIES, Family
from tests.training import losses_of, make_recipe, write_world

DUET = {"method": "duet", "budget": {"dominant": 10, "contextual": 6, "layers": [1], "ratios": [0.5]}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 pictures: two batches of an epoch."""
    return write_world(tmp_path_factory.mktemp("features"), 8, 1)


def losses(
    world: Path,
    output: Path,
    cache: str | None,
    monkeypatch: pytest.MonkeyPatch,
    compression: dict | None,
    **more: object,
) -> tuple[list[float], list[int]]:
    """The losses of two epochs, and the pictures of every run of the tower's first layer."""
    encoded: list[int] = []
    layer = torch.nn.Conv2d.forward
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, "forward", lambda self, x: encoded.append(len(x)) or layer(self, x))
        epochs = {"num_train_epochs": 2, "save_steps": 1000}
        run(make_recipe(world, output, compression, cache_features=cache, **epochs, **more))
    return losses_of(output), encoded


@pytest.mark.parametrize(("cache", "compression"), [("memory", None), ("memory", DUET), ("disk", DUET)])
def test_losses_are_those_without_it(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str, compression: dict | None
) -> None:
    plain, always = losses(world, tmp_path / "plain", None, monkeypatch, compression)
    kept, once = losses(world, tmp_path / "kept", cache, monkeypatch, compression)
    assert kept == plain
    assert always == [4, 4, 4, 4]
    assert once == [4, 4, 4]  # the first epoch, and one batch that is compared
    sums = [json.loads((tmp_path / name / "ledger.json").read_text())["total"]["flops"] for name in ("plain", "kept")]
    backbone = Backbone.from_config(AutoConfig.from_pretrained(world / "init"))
    layers = backbone.tower.layers + (backbone.tower.unread if compression is None else 0)
    tower = replace(backbone.tower, layers=layers, unread=0)
    assert sums[0] - sums[1] == 8 * tower_flops(tower, backbone.known_patches, backbone.cls) > 0
    assert not (tmp_path / "kept" / "features").exists()


def test_the_limit_holds_and_the_rest_is_encoded(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, always = losses(world, tmp_path / "plain", None, monkeypatch, DUET)
    kept, some = losses(world, tmp_path / "kept", "memory", monkeypatch, DUET, cache_features_gb=2e-4)
    assert kept == plain
    assert 8 < sum(some) < sum(always) == 16


def test_what_cannot_be_exact_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a frozen tower"):
        run(make_recipe(world, tmp_path, None, freeze="projector", cache_features="memory"))
    with pytest.raises(UserError, match="single attention rows"):
        run(make_recipe(world, tmp_path, {**DUET, "switches": {"contextual_merge": "paper"}}, cache_features="memory"))
    with pytest.raises(ConfigError, match="cache_features"):
        make_recipe(world, tmp_path, None, cache_features="ram")


@pytest.mark.parametrize("files", [False, True])
def test_pictures_are_kept_by_their_pixels_within_the_bytes(tmp_path: Path, files: bool) -> None:
    tower, device = torch.nn.Identity(), torch.device("cpu")
    kept = Features([tower], 2 * 12 * 4, Files(tmp_path / "kept") if files else Memory())
    pixels = torch.arange(36.0).view(3, 3, 2, 2)
    ran: list[int] = []

    for order in ([0, 1, 2], [1, 0], [2, 1]):
        some = pixels[order]

        def encode(places: list[int], some: torch.Tensor = some) -> list[dict[str, torch.Tensor]]:
            ran.append(len(places))
            return [{"features": one} for one in some[places].flatten(1)]

        with kept.about([(tower, picture_keys(some))]):
            found = kept.read(tower, "kind", len(order), device, encode)
        assert torch.equal(torch.stack([row["features"] for row in found]), some.flatten(1))
    assert ran == [3, 2, 1]  # the second is the one comparison; the third picture was over the limit
    assert (kept.hits, kept.misses, kept.nbytes) == (3, 4, 96)
    with kept.about([]), pytest.raises(ValueError, match="0 were announced"):
        kept.read(tower, "kind", 3, device, encode)


SETTINGS = {
    "cache_features": "memory", "cache_features_gb": 1, "world_size": 1, "n_gpu": 1, "fsdp": [], "output_dir": ".",
    "bf16": False, "fp16": False, "device": torch.device("cpu"),
}  # fmt: skip


def batches(family: Family) -> list[list[Any]]:
    """Two epochs; a row has other neighbours in the second."""
    half = len(family.rows) // 2
    return [family.rows[::2], family.rows[1::2], family.rows[half:], family.rows[:half]]


def step_losses(model: Any, family: Family, features: StepFeatures | None) -> list[float]:
    collator = Keyed(lambda rows: family.collate(rows, "right", labels=True), model.config)
    found = []
    for rows in batches(family):
        batch = collator(rows)
        if features is None:
            given = {name: value for name, value in batch.items() if name not in KEYS}
            found.append(model(**given).loss.item())
            continue
        with features.step(batch) as given:
            found.append(model(**given).loss.item())
    return found


@pytest.mark.parametrize("method", [None, "duet", "pyramiddrop"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_what_its_towers_return(name: str, method: str | None, monkeypatch: Any) -> None:
    family = FAMILIES[name]
    model = family.build().train()
    for part in family.vision:
        model.get_submodule(part).requires_grad_(False)
    if method is not None:
        family.attach(model, method)
    features = StepFeatures(model, SimpleNamespace(**SETTINGS))  # type: ignore[arg-type]
    plain = step_losses(model, family, None)
    torch.testing.assert_close(step_losses(model, family, features), plain, rtol=1e-6, atol=0)
    once, misses = features.features, features.features.misses
    assert misses > 0 and once.hits == misses  # the second epoch
    encoded: list[str] = []
    patched = {torch.nn.Conv2d, torch.nn.Conv3d}
    for kind in patched:
        stock = kind.forward
        monkeypatch.setattr(kind, "forward", lambda self, x, stock=stock: encoded.append("ran") or stock(self, x))
    kept = step_losses(model, family, features)
    assert not encoded and once.misses == misses and once.hits == 3 * misses
    torch.testing.assert_close(kept, plain, rtol=1e-6, atol=0)


def test_the_projector_of_qwen_is_in_its_tower() -> None:
    model = FAMILIES["qwen2_5_vl"].build()
    model.model.visual.blocks.requires_grad_(False)
    model.model.visual.patch_embed.requires_grad_(False)
    with pytest.raises(UserError, match=r"add `freeze: \[tower, projector\]`"):
        StepFeatures(model, SimpleNamespace(**SETTINGS))  # type: ignore[arg-type]


def test_a_picture_of_another_grid_is_another_one() -> None:
    pixels = torch.arange(96.0).view(16, 6)
    one, other = media_keys(pixels, torch.tensor([[1, 2, 4], [1, 2, 4]])), media_keys(pixels, torch.tensor([[1, 4, 4]]))
    turned = media_keys(pixels, torch.tensor([[1, 4, 2], [1, 2, 4]]))
    assert one.shape == (2, 2) and other.shape == (1, 2)
    assert not torch.equal(one[0], turned[0]) and torch.equal(one[1], turned[1])


def test_a_changed_pixel_is_another_picture() -> None:
    pixels = torch.zeros(2, 3, 2, 2)
    pixels[1, 0, 0, 0] = 1e-6
    first, second = picture_keys(pixels).tolist()
    assert first != second and picture_keys(pixels[:0]).shape == (0, 2)


def test_files_of_an_interrupted_run_count_and_are_found(tmp_path: Path) -> None:
    files = Files(tmp_path / "kept")
    assert files.nbytes() == 0
    files.put("one", {"features": torch.arange(8.0)})
    again = Files(tmp_path / "kept")
    found = again.get("one")
    assert found is not None and torch.equal(found["features"], torch.arange(8.0))
    assert again.nbytes() > 32 and again.get("two") is None
