"""The hops world: names fit one thing, answers are what the scene says, walks never lead back, textures vary."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from playground.mini import hops
from playground.mini.draw import draw, patch_labels
from playground.mini.generate import data_hash, write_hops_train
from playground.mini.hops_world import draw_textured, sample_full_scene
from playground.mini.world import COLORS, SHAPES, Item, Scene, rng, sample_scene
from playground.mini.worlds import WORLDS


def item(kind: str, text: str, color: str, size: str, place: int) -> Item:
    return Item(kind, text, color, size, place, 0, 0, 11, 11)


#: A red ring, the word and a small blue bar in the first row; a green ring below the word; the number below that.
SCENE = Scene(
    "sea",
    (
        item("shape", "ring", "red", "large", 0),
        item("word", "sun", "white", "large", 1),
        item("shape", "bar", "blue", "small", 2),
        item("shape", "ring", "green", "small", 4),
        item("number", "7", "white", "large", 7),
    ),
    0,
)


def asked(maker: hops.Maker, scene: Scene = SCENE, tries: int = 300) -> dict[str, str]:
    """All questions that a maker asks, with their answers."""
    found = {}
    for seed in range(tries):
        question = maker(scene, np.random.default_rng(seed))
        if question is not None:
            assert found.setdefault(question.text, question.answer) == question.answer
    return found


def test_direct_names_fit_one_thing_only() -> None:
    names = dict(hops.anchors(SCENE))
    assert set(names) == {"the word", "the number", "the bar", "the red object", "the blue object", "the green object"}
    assert names["the bar"].color == "blue"


def test_hops_follow_the_sides() -> None:
    one, two = asked(hops.hop(1)), asked(hops.hop(2))
    assert one["What color is the object below the word?"] == "green"
    assert one["What shape is the object to the left of the word?"] == "ring"
    assert one["What is written at the object to the left of the bar?"] == "sun"
    assert two["What is written at the object above the object above the number?"] == "sun"
    assert not any("below the object above" in text for text in two)


def test_likeness_lists_and_counts() -> None:
    assert asked(hops.alike(0))["What color is the other object with the shape of the red object?"] == "green"
    assert asked(hops.described(1))["Describe the object below the word."] == "small green ring"
    assert asked(hops.listed)["Which shapes are red?"] == "ring"
    counts = asked(hops.count_where)
    assert counts["How many small shapes are in the image?"] == "2"
    assert counts["How many ring shapes are in the image?"] == "2"


def test_comparisons_say_what_the_scene_shows() -> None:
    compared = asked(hops.compared, tries=600)
    assert compared["Do the bar and the object below the word have the same size?"] == "Yes"
    assert compared["Do the bar and the object to the left of the word have the same size?"] == "No"
    assert not any("color" in text for text in compared)  # no two things have the same
    assert hops.more(SCENE, np.random.default_rng(0)) is None  # one of each color
    twice = Scene("sea", (*SCENE.items, item("shape", "cross", "red", "small", 8)), 0)
    assert asked(hops.more, twice)["Are there more red shapes than blue shapes?"] == "Yes"
    assert asked(hops.more, twice)["Are there more green shapes than red shapes?"] == "No"


def test_answers_vary_and_yes_is_as_frequent_as_no() -> None:
    answers: dict[str, Counter[str]] = {}
    for index in range(300):
        random = rng(0, "test", index)
        for question in hops.turns(sample_full_scene(random), random, hops.FULL, 8):
            answers.setdefault(question.kind, Counter())[question.answer] += 1
    scenes = [(sample_full_scene(random), random) for random in (rng(0, "pairs", index) for index in range(500))]
    for maker in (hops.compared, hops.more):
        for question in filter(None, (maker(*scene) for scene in scenes)):
            answers.setdefault(question.kind, Counter())[question.answer] += 1
    for kind in ("compare color", "compare size", "compare counts"):
        assert 0.4 < answers[kind]["Yes"] / answers[kind].total() < 0.6, kind
    for kind in ("2 hops", "3 hops"):
        assert set(COLORS) | set(SHAPES) <= set(answers[kind])
        assert max(answers[kind].values()) < 0.15 * answers[kind].total()


def test_full_scenes_have_six_to_nine_things_and_few_empty_patches() -> None:
    scenes = [sample_full_scene(rng(0, "test", index)) for index in range(100)]
    assert {len(scene.items) for scene in scenes} == {6, 7, 8, 9}
    empty = np.mean([(patch_labels(scene) == -1).mean() for scene in scenes])
    assert empty < np.mean([(patch_labels(sample_scene(rng(0, "test", i))) == -1).mean() for i in range(100)]) - 0.1


def contrasts(picture: np.ndarray, scene: Scene) -> np.ndarray:
    """Standard deviation of the brightness inside each patch without a thing."""
    pixels = picture.mean(-1).reshape(10, 8, 10, 8).transpose(0, 2, 1, 3).reshape(100, 64)
    return pixels.std(1)[patch_labels(scene) == -1]


def test_empty_patches_are_less_alike_than_in_the_first_world() -> None:
    scenes = [sample_full_scene(rng(0, "test", index)) for index in range(40)]
    textured = np.mean([contrasts(draw_textured(scene), scene).std() for scene in scenes])
    assert textured > 1.6 * np.mean([contrasts(draw(scene), scene).std() for scene in scenes])
    assert np.array_equal(draw_textured(scenes[0]), WORLDS["hops"].draw(scenes[0]))


def test_the_training_files_and_their_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_hops_train(tmp_path / name, 16, seed=0, watch=14)
    assert data_hash(tmp_path / "a") == data_hash(tmp_path / "b")
    for file in ("short.json", "full.json", "watch.json"):
        rows = json.loads((tmp_path / "a" / file).read_text())
        assert all((tmp_path / "a" / "images" / row["image"]).is_file() for row in rows)
    assert {row["task"] for row in rows} >= {"3_hops", "list", "alike_3_hops", "compare_counts"}


@pytest.mark.parametrize("hops_made", [1, 2, 3])
def test_a_walk_of_n_hops_passes_n_things(hops_made: int) -> None:
    for index in range(40):
        random = rng(0, "test", index)
        found = hops.walk(sample_full_scene(random), random, hops_made)
        assert found is None or found[0].count("the object ") == hops_made
