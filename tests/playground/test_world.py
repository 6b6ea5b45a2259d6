"""The small world: the same seed gives the same bytes, pictures show what the scene says, answers are balanced."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from playground.mini import choices, held_out, questions
from playground.mini.conversations import TURNS, caption, question_row
from playground.mini.draw import IGNORED, draw, item_mask, patch_labels
from playground.mini.generate import data_hash, write_eval, write_train
from playground.mini.regions import region_row
from playground.mini.world import COLORS, PLACES, Scene, rng, sample_scene


def scenes(count: int, split: str = "test") -> list[Scene]:
    return [sample_scene(rng(0, split, index)) for index in range(count)]


def test_a_scene_is_determined_by_seed_split_and_index() -> None:
    assert scenes(5) == scenes(5)
    assert scenes(5) != scenes(5, "other")
    assert np.array_equal(draw(scenes(1)[0]), draw(scenes(1)[0]))


def test_things_stay_inside_their_places() -> None:
    for scene in scenes(200):
        assert len({item.place for item in scene.items}) == len(scene.items)
        for item in scene.items:
            for low, size, cell in ((item.left, item.width, item.column), (item.top, item.height, item.row)):
                edges = (0, 24, 56, 80)
                assert edges[cell] <= low
                assert low + size <= edges[cell + 1]


def test_things_are_drawn_in_their_color_and_the_rest_is_dim() -> None:
    for scene in scenes(20):
        picture = draw(scene).astype(int)
        for item in scene.shapes:
            inside = item_mask(item) > 0.99
            shown = picture[item.top : item.top + item.height, item.left : item.left + item.width][inside]
            assert np.abs(shown.mean(0) - COLORS[item.color]).max() < 15
        background = picture.reshape(10, 8, 10, 8, 3).mean((1, 3)).reshape(100, 3)[patch_labels(scene) == -1]
        assert background.max() < 190


def test_patch_labels_cover_every_thing_and_leave_most_patches_to_the_background() -> None:
    shares = []
    for scene in scenes(100):
        labels = patch_labels(scene)
        assert set(labels) - {IGNORED, -1} == set(range(len(scene.items)))
        shares.append((labels == -1).mean())
    assert 0.55 < np.mean(shares) < 0.9


def test_captions_name_everything_in_raster_order() -> None:
    scene = scenes(1)[0]
    parts = caption(scene).split(", ")
    assert parts[-1] == scene.background
    assert [part.startswith(PLACES[item.place]) for part, item in zip(parts, scene.items, strict=False)]
    assert len(parts) == len(scene.items) + 1


def test_eight_different_turns_with_one_suffix() -> None:
    for index in range(60):
        random = rng(0, "test", index)
        row = question_row("0", "a.png", sample_scene(random), random)
        spoken = [turn["value"] for turn in row["conversations"]]
        assert len(spoken) == 2 * TURNS
        assert sum("Answer " in value for value in spoken) == 1
        assert "Answer " in spoken[0]
        assert ("image" in row) == spoken[0].startswith("<image>\n")


@pytest.mark.parametrize("name", ["pope", "mme"])
def test_pairs_differ_and_the_true_one_is_true(name: str) -> None:
    for category, scene, true, false in getattr(held_out, name)(84, 0, "test"):
        assert true != false
        if name == "pope":
            names = {f"{item.color} {item.text}" for item in scene.shapes}
            assert true.removeprefix("Is there a ").removesuffix(" in the image?") in names, category
            assert false.removeprefix("Is there a ").removesuffix(" in the image?") not in names


@pytest.mark.parametrize("manner", ["random", "popular", "adversarial"])
def test_absent_names_follow_pope_s_manners(manner: str) -> None:
    for scene in scenes(50):
        colors, shapes = {item.color for item in scene.shapes}, {item.text for item in scene.shapes}
        for name in questions.absent_pairs(scene, manner):
            color, shape = name.split()
            expected = {"random": (False, False), "popular": (False, True), "adversarial": (True, True)}[manner]
            assert (color in colors, shape in shapes) == expected


def test_yes_and_no_and_all_letters_are_even() -> None:
    answers: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    for index in range(600):
        random = rng(0, "balance", index)
        scene = sample_scene(random)
        for maker in (*questions.POPE.values(), *questions.MME.values()):
            question = maker(scene, random)
            answers[question.answer if question else "none"] += 1
        letters.update(asked.letter for maker in choices.SEED if (asked := maker(scene, random)))
    assert 0.47 < answers["Yes"] / (answers["Yes"] + answers["No"]) < 0.53
    assert all(0.22 < letters[letter] / letters.total() < 0.28 for letter in "ABCD")


def test_the_right_option_stands_once_among_different_options() -> None:
    for index in range(100):
        random = rng(0, "choices", index)
        scene = sample_scene(random)
        for maker in (*choices.SEED, *choices.SCIENCE_PICTURE, *choices.SCIENCE_TEXT):
            asked = maker(scene, random)
            if asked is not None:
                assert len(set(asked.choices)) == len(asked.choices) >= 2
                assert 0 <= asked.answer < len(asked.choices)


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_train(tmp_path / name / "train", 6, seed, watch=6)
        write_eval(tmp_path / name / "eval", 12, seed)
    hashes = [data_hash(tmp_path / name) for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_regions_name_what_the_phrase_picks_out() -> None:
    for index in range(40):
        scene = sample_scene(rng(0, "test", index))
        row = region_row("0", "a.png", scene, rng(0, "regions", index))
        spoken = [turn["value"] for turn in row["conversations"]]
        for question, answer in zip(spoken[::2], spoken[1::2], strict=True):
            phrase = question.removeprefix("<image>\n").removeprefix("Describe the ").removesuffix(".")
            items = scene.items if phrase in PLACES else scene.shapes
            words = phrase.removesuffix(" object")
            named = [item for item in items if words == PLACES[item.place] or f" {words} " in f" {item.phrase} "]
            expected = ", ".join(f"{PLACES[item.place]} {item.phrase}" for item in named)
            assert answer == (expected or "nothing"), phrase
