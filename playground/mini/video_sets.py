"""Writes the held-out clips and questions in the files of the three video benchmarks: TGIF-QA, MSVD-QA, MSRVTT-QA.

`GPT_Zero_Shot_QA/NAME_Zero_Shot_QA/` with `test_q.json`, `test_a.json` and the videos in the benchmark's own folder. A
file has every state twice, enlarged to 80x80, in H.264.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .clips import MSRVTT, MSVD, TGIF, Asker, Clip, sample_clip
from .eval_sets import SPLIT, write_json
from .questions import Question
from .world import rng

#: Frames per second, copies of each state, and how much larger a frame is than a state.
RATE, COPIES, SCALE = 8, 2, 2
#: Name in the folder, folder of the videos, name of a video, questions.
BENCHMARKS: dict[str, tuple[str, str, str, tuple[Asker, ...]]] = {
    "tgif": ("TGIF", "mp4", "tumblr_mini{:06d}_500", TGIF),
    "msvd": ("MSVD", "videos", "mini{:06d}_0_2", MSVD),
    "msrvtt": ("MSRVTT", "videos/all", "video{}", MSRVTT),
}
ANSWER_TYPES = {"action": 0, "object": 1, "number": 2, "color": 3, "location": 4}


def held_out_clips(name: str, count: int, seed: int, split: str = SPLIT) -> list[tuple[Clip, Question]]:
    """`count` questions of one benchmark, each with its own clip; the makers in turn."""
    makers, found = BENCHMARKS[name][3], []
    for number in range(count):
        random, question = rng(seed, f"{split}/{name}", number), None
        while question is None:
            clip = sample_clip(random)
            question = makers[number % len(makers)](clip, random)
        found.append((clip, question))
    return found


def write_video_set(root: Path, name: str, count: int, seed: int, picture: Callable[[Clip], np.ndarray]) -> None:
    """One benchmark under `root`; `picture` draws a clip, uint8 `[8, 40, 40, 3]`."""
    title, videos, form, _ = BENCHMARKS[name]
    folder = root / "GPT_Zero_Shot_QA" / f"{title}_Zero_Shot_QA"
    asked, answers = [], []
    for number, (clip, question) in enumerate(held_out_clips(name, count, seed)):
        video, key = (
            form.format(number),
            {"tgif": f"FRAMEQA{number}", "msvd": f"v_mini_{number}"}.get(name, str(number)),
        )
        save_video(picture(clip), folder / videos / f"{video}.mp4")
        asked.append({"video_name": video, "question_id": key, "question": question.text})
        kind = ANSWER_TYPES.get(question.kind.split()[0], 1)
        answers.append({"answer": question.answer, "type": kind, "question_id": key})
    write_json(folder / "test_q.json", asked)
    write_json(folder / "test_a.json", answers)


def save_video(states: np.ndarray, path: Path) -> None:
    """Write uint8 `[T, H, W, 3]` as mp4, each state for `COPIES` frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = states.repeat(COPIES, 0).repeat(SCALE, 1).repeat(SCALE, 2)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"crf": "12", "preset": "ultrafast", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, RATE)
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
