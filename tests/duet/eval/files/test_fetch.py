"""Downloads from a local server: resumed, checked, unpacked; what cannot be fetched is named with its place."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from duet.cli.main import main
from duet.errors import UserError
from duet.eval.files import fetch
from duet.eval.files.layout import Entry, layout_of

CONTENT = bytes(range(256)) * 5000


def zipped(**files: bytes) -> bytes:
    stream = BytesIO()
    with ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def server():
    """Serves `.files`; `.ranges` are the ranges that were asked for; `.cut` ends answers after so many bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = httpd.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            asked = self.headers.get("Range")
            httpd.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : httpd.cut])

        def log_message(self, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.files, httpd.ranges, httpd.cut = {}, [], None
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def step(tmp_path: Path, url: str, **facts) -> fetch.Step:
    return fetch.Step(tmp_path / "data" / "it", Entry("it", "a page", url=url, **facts), False)


def test_an_interrupted_download_continues(server, tmp_path):
    server.files["it.bin"], server.cut = CONTENT, 100_000
    file = tmp_path / "it.bin"
    with pytest.raises(UserError, match="run it again, it continues"):
        fetch.download(f"{server.url}/it.bin", file)
    assert not file.exists()
    server.cut, seen = None, []
    fetch.download(f"{server.url}/it.bin", file, lambda done, total: seen.append((done, total)))
    assert file.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_is_checked_by_its_hash(server, tmp_path):
    server.files["it.bin"] = CONTENT
    good = hashlib.sha256(CONTENT).hexdigest()
    fetch.fetch(step(tmp_path, f"{server.url}/it.bin", sha256=good), tmp_path / "downloads")
    assert (tmp_path / "data" / "it").read_bytes() == CONTENT
    (tmp_path / "data" / "it").unlink()
    with pytest.raises(UserError, match="the official file has 00; it was deleted"):
        fetch.fetch(step(tmp_path, f"{server.url}/it.bin", sha256="00"), tmp_path / "downloads")
    assert not (tmp_path / "downloads" / "it.bin").exists() and not (tmp_path / "data" / "it").exists()


def test_part_of_an_archive_is_unpacked(server, tmp_path):
    server.files["it.zip"] = zipped(**{"val/a.png": b"a", "val/b/c.png": b"c", "other.txt": b"o"})
    fetch.fetch(step(tmp_path, f"{server.url}/it.zip", unpack="val/"), tmp_path / "downloads")
    target = tmp_path / "data" / "it"
    assert {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()} == {"a.png", "b/c.png"}
    with pytest.raises(UserError, match=r"has no test/, only other\.txt, val"):
        fetch.fetch(step(tmp_path, f"{server.url}/it.zip", unpack="test/"), tmp_path / "downloads")
    assert len(server.ranges) == 1  # the archive is there


def test_one_member_is_unpacked(tmp_path):
    (tmp_path / "it.zip").write_bytes(zipped(**{"questions.json": b"[]", "questions.json.bak": b"no"}))
    fetch.unpack(tmp_path / "it.zip", "questions.json", tmp_path / "data" / "questions.json")
    assert (tmp_path / "data" / "questions.json").read_bytes() == b"[]"


def test_an_archive_cannot_write_elsewhere(tmp_path):
    (tmp_path / "it.zip").write_bytes(zipped(**{"val/../../evil.txt": b"!"}))
    with pytest.raises(UserError, match="would be written outside"):
        fetch.unpack(tmp_path / "it.zip", "val/", tmp_path / "data")
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize("content", [b"<html>", zipped(a=b"1" * 1000)[:-60]])
def test_a_damaged_archive_is_named(content, tmp_path):
    (tmp_path / "it.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"it\.zip"):
        fetch.unpack(tmp_path / "it.zip", "a", tmp_path / "data")


def test_what_cannot_be_reached_says_where_to_put_it(server, tmp_path):
    with pytest.raises(UserError, match=r"answers 404.*fetch .*it\.bin by hand"):
        fetch.download(f"{server.url}/it.bin", tmp_path / "it.bin")
    with pytest.raises(UserError, match=r"could not be fetched.*put the file at .*it\.bin"):
        fetch.download("http://127.0.0.1:1/it.bin", tmp_path / "it.bin")


def test_the_command_says_what_is_by_hand(server, tmp_path, monkeypatch, capsys):
    layout = layout_of("pope")
    files = tuple(
        Entry(entry.path, entry.source, url=entry.url and f"{server.url}/it.json", unpack=None)
        for entry in layout.files
    )
    monkeypatch.setattr(fetch, "layout_of", lambda task: type(layout)("pope", "pope", (1,), files, "MIT"))
    server.files["it.json"] = b"{}"
    assert main(["data", "fetch", "pope", "--data", str(tmp_path)]) == 3
    out = capsys.readouterr().out
    assert "by hand: eval.zip of LLaVA" in out and "questions MIT" in out and "1 to be put in place by hand" in out
    assert (tmp_path / "pope" / "coco" / "coco_pope_random.json").read_bytes() == b"{}"
    (tmp_path / "pope" / "llava_pope_test.jsonl").touch()
    assert main(["data", "fetch", "pope", "--data", str(tmp_path)]) == 0
    assert "llava_pope_test.jsonl: there" in capsys.readouterr().out


def test_the_small_world_is_made_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "fetch", "mini", "--count", "2"]) == 0
    assert Path("playground/data/mini/eval/pope/llava_pope_test.jsonl").exists()
    assert main(["data", "fetch", "mini", "--count", "2"]) == 2
    assert "exists; delete it" in capsys.readouterr().err
    assert main(["data", "fetch", "pope", "--count", "2"]) == 2
