"""The judge's endpoint and the files to be judged."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from duet.eval.judge import client as client_module
from tests.judge_server import Files, JudgeServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("DUET_JUDGE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.01)
    server = JudgeServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Thirty questions `what is N?`, all answered."""
    rows = range(30)
    asked = [{"video_name": "clip", "question_id": f"v_{row}", "question": f"what is {row}?"} for row in rows]
    answers = [{"answer": f"thing {row}", "type": 3, "question_id": f"v_{row}"} for row in rows]
    (tmp_path / "test_q.json").write_text(json.dumps(asked))
    (tmp_path / "test_a.json").write_text(json.dumps(answers))
    files = Files(tmp_path, tmp_path / "merge.jsonl", tmp_path / "merge.judge.jsonl")
    files.predict({row: f"It is thing {row}." for row in rows})
    return files
