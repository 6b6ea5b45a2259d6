"""Parquet files: plain rows, and rows with the pictures in them, as datasets of the hub have them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from duet.data.load import missing_files, scan_rows
from duet.data.media_check import inspect
from duet.data.pictures import open_picture
from duet.data.rows import IMAGE, DataError, read_rows
from duet.errors import UserError

datasets = pytest.importorskip("datasets", reason="datasets is not installed")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def picture(colour: str) -> bytes:
    content = BytesIO()
    Image.new("RGB", (5, 4), colour).save(content, "PNG")
    return content.getvalue()


def said(pictures: int) -> list[dict[str, str]]:
    question = "<image>" * pictures + "What is it?"
    return [{"from": "human", "value": question}, {"from": "gpt", "value": "a star"}]


def write(path: Path, **columns: list[Any]) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def colours(path: Path, folder: Path) -> list[list[tuple[int, ...]]]:
    loaded = scan_rows(str(path), check=missing_files(folder))
    assert not loaded.faults
    return [[open_picture(folder / name).getpixel((0, 0)) for name in row.images] for row in loaded.rows]


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_pictures_in_lists_and_beside_files(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4), "blue").save(tmp_path / "blue.png")
    stored = [{"bytes": picture("red"), "path": "a.png"}, {"bytes": picture("lime"), "path": None}]
    images = [stored, None, [], [{"bytes": None, "path": "blue.png"}, stored[0]]]
    path = write(tmp_path / "rows.parquet", images=images, conversations=[said(2), said(0), said(0), said(2)])
    assert colours(path, tmp_path) == [[RED, GREEN], [], [], [BLUE, RED]]


@pytest.mark.parametrize("wrapped", [True, False])
def test_one_picture_per_row(wrapped: bool, tmp_path: Path) -> None:
    column = [picture("lime"), None, picture("red")]
    if wrapped:
        column = [content and {"bytes": content, "path": "x.png"} for content in column]
    path = write(tmp_path / "rows.parquet", image=column, messages=[said(1), said(0), said(1)])
    assert colours(path, tmp_path) == [[GREEN], [], [RED]]
    names = [name for row in read_rows(path) for name in row.images]
    facts = inspect([(IMAGE, Path(name)) for name in names], deep=False)
    assert [(fact.height, fact.width, fact.fault) for fact in facts.values()] == [(4, 5, None)] * 2


def test_a_file_of_the_hub_s_own_making(tmp_path: Path) -> None:
    kinds = {"id": datasets.Value("string"), "image": datasets.Image()}
    text = {"from": datasets.Value("string"), "value": datasets.Value("string")}
    features = datasets.Features({**kinds, "conversations": datasets.List(text)})
    rows = {"id": ["a"], "image": [{"bytes": picture("red"), "path": None}], "conversations": [said(1)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    assert colours(tmp_path / "rows.parquet", tmp_path) == [[RED]]


def test_a_damaged_picture_and_stored_videos(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", image=[b"no picture"], conversations=[said(1)])
    [row] = read_rows(path)
    with pytest.raises(DataError, match=r"cannot read the picture .*rows\.parquet#0\.image\.0"):
        open_picture(Path(row.images[0]))
    path = write(tmp_path / "videos.parquet", video=[{"bytes": b"x"}], conversations=[said(0)])
    with pytest.raises(DataError, match=r"videos\.parquet: column 'video' holds videos"):
        read_rows(path)


def test_rows_without_pictures_and_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = [{"role": "user", "from": None, "content": "One?"}, {"role": "assistant", "from": None, "content": "1"}]
    path = write(tmp_path / "rows.parquet", image=[None], messages=[spoken])
    assert read_rows(path)[0].turns == (("One?", "1"),)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"broken\.parquet"):
        read_rows(tmp_path / "broken.parquet")
    monkeypatch.setattr("duet.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"rows\.parquet: reading parquet needs datasets: pip install datasets"):
        read_rows(path)
