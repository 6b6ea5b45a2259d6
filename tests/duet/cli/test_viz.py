"""`duet viz` on a small checkpoint: a picture comes out for every kind of method, mistakes come before the model."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from duet.cli.main import main
from duet.method_table import METHODS
from duet.report.method_sheet import draw_methods
from duet.text.salient import without_system
from tests import golden_qwen, golden_video, qwen3_checkpoint
from tests.llava_next_checkpoints import save_hf

#: Real pictures, other people's, so not in the repository.
MEDIA = Path(os.environ.get("DUET_MEDIA", Path(__file__).parents[4] / "shared" / "media"))


def viz(picture: Path, checkpoint: str, output: Path, *more: str) -> int:
    words = ["viz", str(picture), "What is it?", "--model", checkpoint, "-o", str(output), "--max-new-tokens", "2"]
    return main([*words, "--device", "cpu", *more])


@pytest.mark.parametrize("method", ["duet", "duet_c_s", "visionzip", "pyramiddrop"])
def test_it_draws(method: str, picture: Path, checkpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "kept.png"
    assert viz(picture, checkpoint, output, "--method", method) == 0
    with Image.open(output) as drawn:
        colours = drawn.convert("RGB").getcolors(1 << 24)
        assert drawn.width > 1000 and drawn.height > 700
    assert colours is not None and len(colours) > 5000


def test_two_pictures_and_kept_positions(picture: Path, checkpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "two.png"
    words = ["viz", str(picture), str(picture), "Same?", "--model", checkpoint, "-o", str(output), "--device", "cpu"]
    assert main([*words, "--max-new-tokens", "2", "--positions", "keep", "--text-guidance", "attention"]) == 0
    with Image.open(output) as drawn:
        assert drawn.height > 1500


FOLDERS = {
    "video_llava": lambda: golden_video.HF,
    "qwen": lambda: golden_qwen.FOLDER / "weights_hf",
    "qwen3": qwen3_checkpoint.saved,
}


@pytest.mark.parametrize("family", FOLDERS)
def test_a_video_and_a_picture(family: str, film: Path, picture: Path, tmp_path: Path) -> None:
    model = FOLDERS[family]()
    output = tmp_path / "video.png"
    words = ["viz", str(film), str(picture), "Same?", "--model", str(model), "-o", str(output), "--device", "cpu"]
    assert main([*words, "--max-new-tokens", "2", "--frames", "4"]) == 0
    with Image.open(output) as drawn:
        assert drawn.height > 1500


def test_crops_of_llava_next(picture: Path, tmp_path: Path) -> None:
    """Two rows: the base crop, the tiles."""
    output = tmp_path / "next.png"
    assert viz(picture, str(save_hf(tmp_path)), output, "--newlines", "drop") == 0
    with Image.open(output) as drawn:
        assert 1500 < drawn.height < 2500


@pytest.mark.parametrize("name", ["images/desert.jpg", "videos/sample_demo_22.mp4"])
def test_a_photograph_and_a_real_video(name: str, checkpoint: str, tmp_path: Path) -> None:
    path = MEDIA / name
    if not path.exists():
        pytest.skip(f"no {path}; set DUET_MEDIA to a folder with images/ and videos/")
    assert viz(path, str(golden_video.HF) if path.suffix == ".mp4" else checkpoint, tmp_path / "kept.png") == 0


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("A chat between a curious user and an assistant. USER: why? ASSISTANT:", "USER"),
        ("system\nYou are helpful.\nuser\nwhy?\nassistant", "user"),
        ("[INST] Is the user tall? [/INST]", "["),
        ("why?", "why"),
    ],
)
def test_the_system_sentence_is_left_out(text: str, start: str) -> None:
    words = without_system([(word, False) for word in re.findall(r"\s?(?:\w+|[^\w\s])", text)])
    assert words[0][0].strip() == start


def maps(path: Path, checkpoint: str, output: Path, *more: str) -> int:
    words = ["viz", str(path), "Is the red ring left?", "--model", checkpoint, "-o", str(output), "--device", "cpu"]
    return main([*words, "--max-new-tokens", "2", *more])


@pytest.mark.parametrize(
    ("options", "width"), [(["--layers", "1,3", "--words"], 4), (["--layers", "2"], 3), (["--words", "red"], 1)]
)
def test_attention_of_words(options: list[str], width: int, picture: Path, checkpoint: str, tmp_path: Path) -> None:
    output = tmp_path / "words.png"
    assert maps(picture, checkpoint, output, *options) == 0
    with Image.open(output) as drawn:
        assert drawn.width > 160 * (3 + 1.7 * width)
        colours = drawn.convert("RGB").getcolors(1 << 24)
    assert colours is not None and len(colours) > 3000


@pytest.mark.parametrize("family", ["llava_next", *FOLDERS])
def test_attention_in_every_family(family: str, film: Path, picture: Path, tmp_path: Path) -> None:
    """A view per picture, its tiles, and the frames of a video."""
    output = tmp_path / "words.png"
    if family == "llava_next":
        assert maps(picture, str(save_hf(tmp_path)), output, "--layers", "1,2") == 0
    else:
        assert maps(film, str(FOLDERS[family]()), output, "--layers", "1,2", "--frames", "4") == 0
    with Image.open(output) as drawn:
        assert drawn.height > 700


def test_every_method_on_one_sheet(
    picture: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that cannot run are named with the reason, on the sheet and on the screen."""
    drawn: dict[str, Any] = {}

    def draw(*given: Any) -> Any:
        drawn.update(zip(("heading", "subtitle", "views", "entries", "missing", "depth"), given, strict=True))
        return draw_methods(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("duet.report.method_sheet.draw_methods", draw)
        assert viz(picture, checkpoint, tmp_path / "all.png", "--methods", "all") == 0
    names = [entry.name for entry in drawn["entries"]]
    assert names[0] == "none" and {"duet_c", "pyramiddrop", "scope"} < set(names)
    assert {*names, *(name for name, _ in drawn["missing"])} == set(METHODS)
    assert "cdpruner" in dict(drawn["missing"]) and "duet_c_all" not in dict(drawn["missing"])
    averages = [entry.average for entry in drawn["entries"][1:]]
    assert max(averages) < 1.15 * min(averages)
    assert all(len(spot.steps) == len(names) for view in drawn["views"] for spot in view.spots)
    said = capsys.readouterr().out
    assert "cdpruner cannot run here: " in said and "all.png" in said


def test_some_methods_in_a_family_without_cls(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = golden_qwen.FOLDER / "weights_hf"
    words = ["viz", str(film), "Same?", "--model", str(model), "-o", str(tmp_path / "some.png"), "--device", "cpu"]
    assert main([*words, "--max-new-tokens", "2", "--frames", "4", "--methods", "duet,stage1:pool,vscan,pool"]) == 0
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()[:2]] == ["none", "stage1"]
    assert "duet: " in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "scopee"], "unknown method 'scopee'; did you mean scope"),
        (["--methods", ","], "names no method"),
        (["--methods", "all", "--dominant", "4"], "--dominant with --methods"),
        (["--methods", "all", "--words"], "--words with --methods"),
        (["--methods", "all", "--score", "column_mean"], "--score with --methods"),
        (["--methods", "all", "--average", "3", "--budget", "llava15_64"], "contradict each other"),
    ],
)
def test_mistakes_about_methods(
    more: list[str],
    message: str,
    picture: Path,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the model is loaded."""
    monkeypatch.setattr("duet.load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert viz(picture, checkpoint, tmp_path / "all.png", *more) == 2
    assert message in capsys.readouterr().err


def test_no_method_can_run(picture: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert viz(picture, checkpoint, tmp_path / "all.png", "--methods", "cdpruner") == 2
    assert "none of these methods can run here: cdpruner: " in capsys.readouterr().err


def test_a_budget_has_layers_too(picture: Path, checkpoint: str, tmp_path: Path) -> None:
    """With ratios they are where tokens are dropped."""
    output = tmp_path / "kept.png"
    words = ["--method", "pyramiddrop", "--layers", "1,2", "--ratios", "0.5,0"]
    assert viz(picture, checkpoint, output, *words) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--layers", "99"], "--layers 99: this model has"),
        (["--layers", "0"], "--layers 0: layers are 1, 2"),
        (["--layers", "1.5"], "--layers 1.5: layers are 1, 2"),
        (["--words", "zebra"], "--words zebra: no such word"),
        (["--words", ","], "contains no word"),
        (["--layers", "2", "--average", "20"], "--average has no effect"),
        (["--words", "--method", "visionzip"], "--method visionzip has no effect"),
        (["--words", "--layers", "1", "--ratios", "0.5"], "--ratios has no effect"),
    ],
)
def test_mistakes_about_attention(
    more: list[str],
    message: str,
    picture: Path,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that need no model are told before it is loaded."""
    if more != ["--layers", "99"]:
        monkeypatch.setattr("duet.load", lambda *_, **__: pytest.fail("the model was loaded"))
    assert maps(picture, checkpoint, tmp_path / "words.png", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "words.png").exists()


def test_mistakes(picture: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for output, more, message in (
        (tmp_path / "kept.jpeg2", [], ".jpeg2"),
        (tmp_path / "no" / "kept.png", [], "no such folder"),
        (tmp_path / "kept.png", ["--method", "none"], "nothing to draw"),
    ):
        assert viz(picture, checkpoint, output, *more) == 2
        assert message in capsys.readouterr().err


def test_without_words_or_layers_viz_draws_what_a_method_keeps(monkeypatch):
    """What another command does with the words after it must not look like `--words`."""
    from duet.cli import main as command
    from duet.cli import viz, viz_attention

    seen = []
    monkeypatch.setattr(viz, "run", lambda args: seen.append(viz_attention.wants_attention(args)) or 0)
    for extra in ([], ["--method", "visionzip"], ["--words"]):
        assert command.main(["viz", "picture.png", "question", *extra]) == 0
    assert seen == [False, False, True]
