"""The three video benchmarks from mp4 files to a judge's verdicts, on a tiny random Video-LLaVA."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from accelerate import PartialState

from duet.budget import Budget
from duet.cli.main import main
from duet.data.video import read_clip
from duet.errors import UserError
from duet.eval.asking.answerer import Answerer
from duet.eval.asking.task import read_task
from duet.eval.progress import Progress
from duet.eval.running.runner import Runner
from duet.types import Clip
from tests.golden_video import HF
from tests.judge_server import NO, YES, JudgeServer, says

av = pytest.importorskip("av")

#: Task -> its folder and the folder of its videos, as in Video-LLaVA's evaluation data.
LAYOUT = {
    "tgif": ("TGIF_Zero_Shot_QA", "mp4"),
    "msvd": ("MSVD_Zero_Shot_QA", "videos"),
    "msrvtt": ("MSRVTT_Zero_Shot_QA", "videos/all"),
}
CLIPS = {"short": 10, "long": 20, "broken": 12}
#: Question -> clip; two are about the same one.
ASKED = {"what is shown?": "short", "who is it?": "long", "what moves?": "broken", "is it dark in there?": "short"}
BUDGET = Budget(dominant=20, contextual=4, layers=(2, 3), ratios=(0.5, 0.0))


@pytest.fixture(scope="module")
def answerer() -> Iterator[Answerer]:
    answerer = Answerer.load(str(HF), device="cpu")
    answerer.compress("duet", BUDGET)
    yield answerer
    answerer.compress("none")


def film(path: Path, frames: int) -> None:
    """Noise of another seed in every frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        for seed in range(frames):
            noise = np.random.default_rng(seed + frames).integers(0, 255, (64, 80, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())


def write_answers(folder: Path, answers: list[str]) -> None:
    rows = [{"answer": answer, "type": 3, "question_id": f"v_{row}"} for row, answer in enumerate(answers)]
    (folder / "test_a.json").write_text(json.dumps(rows))


def write_task(root: Path, task: str) -> Path:
    """Folder of a benchmark with four questions about three clips, one of which ends in the middle."""
    name, videos = LAYOUT[task]
    folder = root / "GPT_Zero_Shot_QA" / name
    (folder / videos).mkdir(parents=True)
    for clip, frames in CLIPS.items():
        film(folder / videos / f"{clip}.mp4", frames)
    broken = folder / videos / "broken.mp4"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    rows = [
        {"video_name": clip, "question_id": f"v_{row}", "question": q} for row, (q, clip) in enumerate(ASKED.items())
    ]
    (folder / "test_q.json").write_text(json.dumps(rows))
    write_answers(folder, ["nothing of the kind"] * len(ASKED))
    return folder


def run(answerer: Answerer, task: str, root: Path, folder: Path, batch_size: int = 2) -> dict:
    questions = read_task(answerer, task, root, batch_size, max_new_tokens=3)
    progress = Progress(len(questions.samples), shown=False)
    return Runner(answerer, PartialState(cpu=True), progress).run(questions, folder)


def rows(folder: Path) -> list[dict]:
    return [json.loads(text) for text in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("task", LAYOUT)
def test_from_videos_to_verdicts(task: str, answerer: Answerer, tmp_path: Path, server: JudgeServer) -> None:
    data, out = write_task(tmp_path / "data", task), tmp_path / "out"
    found = run(answerer, task, tmp_path / "data", out)
    assert found["headline"] == {"name": "contains", "value": 0.0}
    assert found["counts"] | {"ties": 0} == {"asked": 4, "scored": 3, "missing": 1, "failed": 1, "ties": 0}
    assert "broken.mp4" in found["failures"]["2:v_2"]
    # 8 frames of 20 + 4 tokens in 2 layers, half of them in 1, none in 29
    assert found["tokens"]["kept"] == [192, 96, 0]
    assert found["tokens"]["average"] == found["tokens"]["computed_average"] == (2 * 192 + 96) / 32

    said = {line["id"]: line["pred"] for line in rows(out)}
    assert said.keys() == {"v_0", "v_1", "v_3"} and all(said.values())
    write_answers(data, [said["v_0"], "nothing of the kind", "anything", said["v_3"]])
    assert run(answerer, task, tmp_path / "data", tmp_path / "right")["metrics"]["contains"] == 50

    server.script = lambda question, attempt: says(NO if question == "who is it?" else YES)
    result = tmp_path / "judged.json"
    words = ["judge", task, "--data", str(data), "--predictions", str(tmp_path / "right" / "predictions.jsonl")]
    assert main([*words, "--judge-url", server.url, "--judge-model", "judge", "--json", str(result)]) == 3
    judged = json.loads(result.read_text())
    assert judged["tallies"] == {"yes": 2, "no": 1, "score_sum": 11}
    assert judged["headline"] == {"name": "accuracy_all_rows", "value": 50.0, "judge": "judge"}
    assert (judged["counts"]["judged"], judged["counts"]["missing"]) == (3, 1)
    assert sorted(server.questions) == sorted(question for question in ASKED if question != "what moves?")


def test_a_video_is_decoded_once(answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path, "msvd")
    decoded = []

    def watched(path: str, frames: Callable[[float], int]) -> Clip:
        decoded.append(Path(path).stem)
        return read_clip(path, frames)

    monkeypatch.setattr("duet.eval.asking.answerer.read_clip", watched)
    run(answerer, "msvd", tmp_path, tmp_path / "single", batch_size=1)
    assert decoded == ["short", "long", "broken"]


def test_without_a_reader_nothing_is_asked(answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path, "msvd")
    monkeypatch.setattr("duet.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match="reading videos needs av: pip install"):
        read_task(answerer, "msvd", tmp_path, batch_size=1)


def test_batches_of_videos_answer_as_single_ones_do(answerer: Answerer, tmp_path: Path) -> None:
    write_task(tmp_path, "msvd")
    run(answerer, "msvd", tmp_path, tmp_path / "single", batch_size=1)
    run(answerer, "msvd", tmp_path, tmp_path / "batch", batch_size=4)
    pairs = list(zip(rows(tmp_path / "single"), rows(tmp_path / "batch"), strict=True))
    firm = [(one, other) for one, other in pairs if not (one.get("tie") or other.get("tie"))]
    assert firm and all(one == other for one, other in firm)
