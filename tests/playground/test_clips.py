"""Clips show what they say, questions about them have one answer, and the benchmarks' files are the official ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from duet.data.encode import IGNORED
from duet.data.video import read_frames
from duet.eval.benchmarks import get
from playground.mini import clips
from playground.mini.clips import ACTIONS, FRAME, STATES, draw_clip, noise_clip, sample_clip
from playground.mini.train_video import TOKENS, batch_of, build, pixels_of
from playground.mini.video_sets import BENCHMARKS, save_video, write_video_set
from playground.mini.world import COLORS, rng


def some(count: int) -> list[clips.Clip]:
    return [sample_clip(rng(0, "test", index)) for index in range(count)]


def test_shapes_stay_in_the_picture_and_apart() -> None:
    seen = set()
    for clip in some(300):
        seen.add(clip.actors[0].action)
        assert len({one.shape for one in clip.actors}) == len({one.color for one in clip.actors}) == len(clip.actors)
        for state in range(STATES):
            taken = np.zeros((FRAME, FRAME), dtype=int)
            for actor in clip.actors:
                if (box := actor.boxes[state]) is not None:
                    left, top, side = box
                    assert min(left, top) >= 0 and max(left, top) + side <= FRAME
                    taken[top : top + side, left : left + side] += 1
            assert taken.max() <= 1
    assert seen == set(ACTIONS)


def test_actors_do_what_is_said() -> None:
    for clip in some(300):
        actor = clip.actors[0]
        boxes = np.array([box for box in actor.boxes if box is not None])
        change = boxes[-1] - boxes[0]
        wanted = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}
        if actor.action.startswith("moving"):
            axis, sign = wanted[actor.action.split()[1]]
            assert change[axis] * sign >= 20
            assert actor.corner(0) != actor.corner(-1)
        elif actor.action in ("growing", "shrinking"):
            assert change[2] == (10 if actor.action == "growing" else -10)
        else:
            assert not change.any()
        gone = "".join("x" if box is None else "." for box in actor.boxes)
        assert len([part for part in gone.split(".") if part]) == actor.blinks
        assert gone[0] == gone[-1] == "."


def test_the_drawing_shows_the_color_where_the_shape_is() -> None:
    for clip in some(20):
        states = draw_clip(clip).astype(int)
        for actor in clip.actors:
            for state, box in zip(states, actor.boxes, strict=True):
                if box is not None and actor.shape in ("circle", "square", "cross"):
                    middle = state[box[1] + box[2] // 2, box[0] + box[2] // 2]
                    assert np.abs(middle - COLORS[actor.color]).max() < 25


def test_a_written_video_gives_its_states_back(tmp_path: Path) -> None:
    for clip in some(3):
        states = draw_clip(clip)
        save_video(states, tmp_path / "clip.mp4")
        frames = read_frames(tmp_path / "clip.mp4", STATES)
        small = frames.reshape(STATES, FRAME, 2, FRAME, 2, 3).mean((2, 4))
        assert np.abs(small - states).mean() < 8
        assert all(np.abs(small[state] - states).mean((1, 2, 3)).argmin() == state or clip.actors[0].action in
                   ("resting", "blinking") for state in range(STATES))  # fmt: skip


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_the_benchmark_reads_its_files(name: str, tmp_path: Path) -> None:
    write_video_set(tmp_path, name, 12, 0, draw_clip)
    samples = get(name).load(tmp_path)
    assert len(samples) == len({sample.id for sample in samples}) == 12
    for sample in samples:
        assert Path(str(sample.video)).is_file() and sample.answer
    write_video_set(tmp_path / "noise", name, 12, 0, noise_clip)
    files = sorted(path.relative_to(tmp_path / "noise") for path in (tmp_path / "noise").rglob("*.json"))
    assert files and all((tmp_path / file).read_bytes() == (tmp_path / "noise" / file).read_bytes() for file in files)


def test_questions_of_a_clip_have_one_answer_each() -> None:
    answers: dict[str, set[str]] = {}
    for index, clip in enumerate(some(40)):
        for seed in range(6):
            for maker in clips.ALL:
                question = maker(clip, np.random.default_rng(seed))
                if question is not None:
                    answers.setdefault(f"{index} {question.text}", set()).add(question.answer)
    assert all(len(found) == 1 for found in answers.values())


def test_the_model_starts_from_llava_mini_and_reads_clips() -> None:
    model, processor = build(Path("playground/mini/checkpoints/llava-mini"), 0)
    batch = batch_of(0, 0, 2, processor.tokenizer)
    assert (batch["input_ids"] == processor.video_token_id).sum(1).tolist() == [TOKENS] * 2
    learned = [[t for t in row.tolist() if t != IGNORED] for row in batch["labels"]]
    assert all(row.count(processor.tokenizer.eos_token_id) == 4 for row in learned)
    with torch.no_grad():
        assert torch.isfinite(model(**batch).loss)
    clip = sample_clip(rng(0, "clips", 0))
    same = processor["video"](list(draw_clip(clip)))["pixel_values_videos"]
    assert torch.allclose(same[0], pixels_of(draw_clip(clip)), atol=1e-5)


def test_video_questions_are_json(tmp_path: Path) -> None:
    write_video_set(tmp_path, "msvd", 8, 0, draw_clip)
    folder = tmp_path / "GPT_Zero_Shot_QA" / "MSVD_Zero_Shot_QA"
    asked, answers = (json.loads((folder / name).read_text()) for name in ("test_q.json", "test_a.json"))
    assert set(asked[0]) == {"video_name", "question_id", "question"}
    assert set(answers[0]) == {"answer", "type", "question_id"}
    assert [row["question_id"] for row in asked] == [row["question_id"] for row in answers]
