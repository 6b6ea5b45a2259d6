"""`duet ask` on a small checkpoint: what it prints, and that the counts are those of the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet.cli.main import main
from tests import golden_qwen, golden_video, qwen3_checkpoint
from tests.llava_next_checkpoints import save_hf

NUMBERS = ["--dominant", "20", "--contextual", "6", "--layers", "16,24", "--ratios", "0.5,0"]


def test_answer_and_line_about_it(picture: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", str(picture), "What is it?", "--model", checkpoint, "--max-new-tokens", "3", "--device", "cpu"]
    assert main(words) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("[duet (duet_c_all)] visual tokens 576 -> 205 -> 102 -> 0, average 128.0; prefill ")
    assert " ms, decode " in line and "(3 tokens)" in line


def test_compare_as_json(picture: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", str(picture), str(picture), "<image> or <image>?", "--model", checkpoint, *NUMBERS]
    assert main([*words, "--compare", "--json", "--max_new_tokens", "2", "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out)
    ours, all_tokens = result["answers"]
    assert ours["visual_tokens"] == [1152, 52, 26, 0] and ours["boundaries"] == [0, 16, 24]
    assert ours["average"] == (16 * 52 + 8 * 26) / 32
    assert (all_tokens["method"], all_tokens["visual_tokens"], all_tokens["average"]) == ("none", [1152], 1152)
    assert all(answer["prefill_ms"] > 0 for answer in result["answers"])
    assert result["budget"]["contextual"] == 6


def test_none_is_the_stock_model(picture: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", str(picture), "What is it?", "--model", checkpoint, "--max-new-tokens", "4", "--device", "cpu"]
    main([*words, "--compare", "--json"])
    stock = json.loads(capsys.readouterr().out)["answers"][1]["answer"]
    assert main([*words, "--method", "none"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(stock) and "[none] visual tokens 576, average 576.0" in out


QWEN = str(golden_qwen.FOLDER / "weights_hf")
#: Eight frames of 256 patches and CLS; three pairs of frames of 3 x 2 tokens, of 4 x 2.
VIDEOS = {
    "video_llava": (lambda: golden_video.HF, ["--dominant", "20", "--contextual", "4"], [2056, 192, 96, 0]),
    "qwen": (lambda: QWEN, ["--dominant", "3", "--contextual", "1", "--frames", "6"], [18, 12, 6, 0]),
    "qwen3": (qwen3_checkpoint.saved, ["--dominant", "3", "--contextual", "1", "--frames", "6"], [24, 12, 6, 0]),
}


@pytest.mark.parametrize("family", VIDEOS)
def test_a_video(family: str, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, more, counts = VIDEOS[family]
    words = [
        "ask",
        str(film),
        "What moves?",
        "--model",
        str(model()),
        "--layers",
        "0.5,0.75",
        "--ratios",
        "0.5,0",
        *more,
    ]
    assert main([*words, "--device", "cpu", "--max-new-tokens", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["files"] == [str(film)]
    assert result["answers"][0]["visual_tokens"] == counts


def test_pictures_of_any_size_are_counted_as_they_are(
    picture: Path, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The average is reached on what the processor made of a picture and a video."""
    words = ["ask", str(picture), str(film), "<image> or <video>?", "--model", QWEN, "--average", "60", "--json"]
    assert main([*words, "--device", "cpu", "--max-new-tokens", "2"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["answers"]
    assert result["average"] == pytest.approx(60, abs=3)
    full, entered, *_ = result["visual_tokens"]
    assert full > entered > 60


def test_llava_next(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", str(picture), "What is it?", "--model", str(save_hf(tmp_path)), "--device", "cpu", "--json"]
    assert (
        main([*words, "--dominant", "20", "--contextual", "4", "--method", "visionzip", "--max-new-tokens", "2"]) == 0
    )
    (result,) = json.loads(capsys.readouterr().out)["answers"]
    assert result["visual_tokens"][1] == 3 * 24 and result["boundaries"] == [0]


def test_mistakes_with_videos(
    picture: Path, film: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, sound = tmp_path / "cut.mp4", tmp_path / "sound.mp4"
    cut.write_bytes(film.read_bytes()[:400])
    sound.write_bytes(b"not a video at all")
    end = ["What moves?", "--device", "cpu", "--model"]
    for words, message in (
        (["ask", str(film), *end, checkpoint], "takes only pictures"),
        (["ask", str(tmp_path / "no.mp4"), *end, checkpoint], "no such file"),
        (["ask", str(cut), *end, str(golden_video.HF)], "cut.mp4"),
        (["ask", str(sound), *end, str(golden_video.HF)], "sound.mp4"),
        (["ask", str(picture), "--frames", "4", *end, checkpoint], "no video among the files"),
        (["ask", str(film), "--frames", "100000", *end, str(golden_video.HF)], "at most 768 frames"),
        (["ask", str(picture), "What is in <video>?", *end[1:], checkpoint], "<video>"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("duet: error: ") and error.count("\n") == 1
        assert message in error


def test_mistakes(picture: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["ask", str(picture), "What is it?", "--device", "cpu", "--model"]
    for words, message in (
        ([*ask, str(tmp_path / "nowhere")], "no checkpoint at"),
        ([*ask, checkpoint, "--dominant", "600", "--layers", "9", "--ratios", "0"], "the picture has 576"),
        ([*ask, checkpoint, "--layers", "40", "--ratios", "0", "--method", "pyramiddrop"], "has 32 layers"),
        ([*ask, checkpoint, "--average", "570"], f"cannot be reached on {checkpoint} with stages 1 and 2"),
        ([*ask, checkpoint, "--dominant", "20"], "has a stage 2"),
        ([*ask, checkpoint, "--score", "loudest"], "loudest"),
        (["ask", str(picture), "<image><image>", *ask[3:], checkpoint], "2 placeholder"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("duet: error: ") and error.count("\n") == 1
        assert message in error


def test_a_file_that_is_no_picture(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 not much")
    assert main(["ask", str(broken), "What is it?", "--model", checkpoint, "--device", "cpu"]) == 2
    assert str(broken) in capsys.readouterr().err
