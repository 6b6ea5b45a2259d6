"""`duet judge` from files to result, before a local judge."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from duet.cli import judge as command
from duet.errors import UserError
from duet.eval.judge import client as client_module
from duet.eval.judge import run as run_module
from duet.eval.judge.protocol import build_request, request_key
from tests.eval_files import case as official_case
from tests.judge_server import NO, YES, Answer, Files, JudgeServer, says


def run(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


def result(files: Files, server: JudgeServer, *more: str, code: int = 0) -> dict:
    out = files.data / "out.json"
    assert run(files.command(server, "--json", str(out), *more)) == code
    return json.loads(out.read_text())


def half(question: str, attempt: int) -> Answer:
    """Yes for even rows, no for odd ones."""
    return says(NO if int(question[8:-1]) % 2 else YES)


def test_complete_run(files: Files, server: JudgeServer, capsys: pytest.CaptureFixture[str]):
    server.script = half
    rows = files.data / "rows.jsonl"
    found = result(files, server, "--per-row", str(rows))
    assert found["complete"] and found["headline"] == {"name": "accuracy", "value": 50.0, "judge": "judge"}
    assert found["metrics"]["score"] == 3.0 and found["tallies"] == {"yes": 15, "no": 15, "score_sum": 90}
    assert found["counts"]["rows"] == found["counts"]["judged"] == 30 and found["counts"]["cached"] == 0
    assert found["served"] == {"judge-0125": 30}
    assert found["usage"] == {"calls": 30, "retried": 0, "prompt_tokens": 9000, "completion_tokens": 360}
    assert found["judge"]["prompt_sha256"] and found["judge"]["temperature"] is None
    assert "temperature" not in server.requests[0][3]
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(line["pred"], line["score"]) for line in lines] == [("yes", 5), ("no", 1)] * 15
    text = capsys.readouterr().out
    assert "msvd accuracy 50.00 by judge\n" in text and "PARTIAL" not in text


def test_a_second_run_asks_nothing(files: Files, server: JudgeServer, caplog: pytest.LogCaptureFixture):
    server.script = half
    first = result(files, server)
    caplog.clear()
    again = result(files, server)
    assert not caplog.records  # no progress of nothing
    assert len(server.requests) == 30
    assert again["counts"]["cached"] == 30 and again["usage"]["calls"] == 0
    assert again["metrics"] == first["metrics"] and again["served"] == first["served"]


def test_another_judge_or_temperature_or_answer_is_asked_anew(files: Files, server: JudgeServer):
    result(files, server)
    result(files, server, "--judge-model", "other")
    result(files, server, "--temperature", "0")
    assert len(server.requests) == 90 and server.requests[-1][3]["temperature"] == 0
    files.predict({row: f"It is {'no ' if row == 7 else ''}thing {row}." for row in range(30)})
    found = result(files, server)
    assert len(server.requests) == 91 and found["counts"]["cached"] == 29


def test_trouble_does_not_change_the_result(files: Files, server: JudgeServer):
    moods = [Answer(429, headers={"Retry-After": "0"}), Answer(500), says(YES, cut=True), Answer(200, b"garbage")]

    def script(question: str, attempt: int) -> Answer:
        row = int(question[8:-1])
        return moods[row % 4] if attempt == 0 and row < 16 else half(question, attempt)

    server.script = script
    found = result(files, server)
    assert found["complete"] and found["metrics"]["accuracy"] == 50.0 and found["usage"]["retried"] == 16


def test_unreadable_replies_are_asked_again_and_counted(files: Files, server: JudgeServer, capsys):
    """Row 0 is never readable, row 2 at the second time; the official denominators differ for the two metrics."""
    server.script = lambda question, attempt: (
        says("hm")
        if question == "what is 0?" or (question == "what is 2?" and not attempt)
        else half(question, attempt)
    )
    found = result(files, server, "--reasks", "2", code=3)
    assert server.attempts["what is 0?"] == 3 and server.attempts["what is 2?"] == 2
    assert (found["counts"]["judged"], found["counts"]["unreadable"]) == (29, 1) and not found["complete"]
    assert found["metrics"]["accuracy"] == pytest.approx(100 * 14 / 29)
    assert found["metrics"]["score"] == (14 * 5 + 15) / 30
    assert found["headline"]["name"] == "accuracy_all_rows"
    assert found["headline"]["value"] == pytest.approx(100 * 14 / 30)
    assert "PARTIAL" in capsys.readouterr().out
    result(files, server, "--reasks", "2", code=3)  # all three replies were paid for: no more calls
    assert server.attempts["what is 0?"] == 3
    result(files, server, "--reasks", "3", code=3)
    assert server.attempts["what is 0?"] == 4


def test_a_failing_row_fails_alone(files: Files, server: JudgeServer):
    server.script = lambda question, attempt: Answer(400, b"too long") if question == "what is 5?" else says(YES)
    rows = files.data / "rows.jsonl"
    found = result(files, server, "--per-row", str(rows), code=3)
    assert (found["counts"]["judged"], found["counts"]["failed"]) == (29, 1)
    assert found["metrics"]["accuracy"] == 100 and found["headline"]["value"] < 97
    line = json.loads(rows.read_text().splitlines()[5])
    assert line["status"] == "failed" and "too long" in line["reason"] and line["pred"] is None
    server.script = half
    assert result(files, server)["counts"]["cached"] == 29


def test_missing_and_unknown_predictions(files: Files, server: JudgeServer):
    files.predict({**dict.fromkeys(range(10), "x"), 77: "foreign"})
    found = result(files, server, code=3)
    counts = found["counts"]
    assert (counts["rows"], counts["judged"], counts["missing"], counts["unknown"]) == (30, 10, 20, 1)
    assert found["metrics"]["accuracy"] == 100 and found["headline"]["value"] == pytest.approx(100 / 3)
    assert len(server.requests) == 10


def test_limit_is_no_full_result(files: Files, server: JudgeServer):
    found = result(files, server, "--limit", "4", code=3)
    assert len(server.requests) == 4 and found["counts"]["skipped"] == 26 and found["counts"]["rows"] == 30
    assert found["headline"] == {"name": "accuracy_all_rows", "value": 100.0, "judge": "judge"}


def test_equal_rows_share_one_call(files: Files, server: JudgeServer):
    asked = json.loads((files.data / "test_q.json").read_text())
    answers = json.loads((files.data / "test_a.json").read_text())
    asked[1]["question"], answers[1]["answer"] = asked[0]["question"], answers[0]["answer"]
    (files.data / "test_q.json").write_text(json.dumps(asked))
    (files.data / "test_a.json").write_text(json.dumps(answers))
    rows = [{"id": row["question_id"], "question": row["question"], "pred": "same"} for row in asked]
    files.predictions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = result(files, server)
    assert len(server.requests) == 29 and found["counts"]["cached"] == 1 and found["complete"]


def test_calls_at_the_same_time_are_bounded(files: Files, server: JudgeServer):
    server.script = lambda question, attempt: says(YES, delay=0.05)
    result(files, server, "--concurrency", "3")
    assert server.most_running == 3


def test_a_dead_endpoint_ends_the_run(files: Files, server: JudgeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_module, "GIVE_UP_AFTER", 5)
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.1)
    server.script = lambda question, attempt: Answer(502, b"gone")
    with pytest.raises(UserError, match=r"5 calls in a row failed.*502: gone"):
        run(files.command(server, "--retries", "1", "--concurrency", "2"))
    assert len(server.requests) < 30  # of the 60 that all rows would make


def test_given_up_midway_keeps_what_is_done(files: Files, server: JudgeServer, capsys):
    def script(question: str, attempt: int) -> Answer:
        return says(YES) if int(question[8:-1]) < 10 else Answer(429, b'{"code": "insufficient_quota"}')

    server.script = script
    found = result(files, server, "--concurrency", "1", code=3)
    assert (found["counts"]["judged"], found["counts"]["failed"]) == (10, 20) and "insufficient_quota" in found[
        "stopped"
    ]
    assert "given up" in capsys.readouterr().out and len(server.requests) == 11
    server.script = half
    assert result(files, server)["counts"]["cached"] == 10


def test_wrong_key_says_so_once(files: Files, server: JudgeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server.script = lambda question, attempt: Answer(401, b"Incorrect API key provided: sk-secret")
    with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        run(files.command(server, "--concurrency", "1"))
    assert "sk-secret" not in str(caught.value) and len(server.requests) == 1


def test_the_key_is_written_nowhere(files: Files, server: JudgeServer, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setenv("DUET_JUDGE_KEY", "sk-secret")
    server.script = lambda question, attempt: Answer(400, b"sk-secret") if question == "what is 5?" else says(YES)
    result(files, server, "--per-row", str(files.data / "rows.jsonl"), code=3)
    assert server.requests[0][2]["Authorization"] == "Bearer sk-secret"
    written = "".join(path.read_text() for path in files.data.iterdir()) + "".join(capfd.readouterr())
    assert "sk-secret" not in written


def test_dry_run_sends_nothing(files: Files, server: JudgeServer, capsys: pytest.CaptureFixture[str]):
    plan = result(files, server, "--dry-run", "--price-in", "0.5", "--price-out", "1.5")
    assert not server.requests and not files.cache.exists()
    assert (plan["calls"], plan["cached"], plan["missing"]) == (30, 0, 0)
    assert 30 * 250 < plan["prompt_tokens"] < 30 * 400 and plan["completion_tokens"] == 30 * 16
    assert plan["cost_usd"] == pytest.approx((plan["prompt_tokens"] * 0.5 + 480 * 1.5) / 1e6)
    assert "30 calls to judge (dry run, nothing is sent)" in capsys.readouterr().out
    result(files, server, "--limit", "10", code=3)
    later = result(files, server, "--dry-run")
    assert (later["calls"], later["cached"]) == (20, 10) and "cost_usd" not in later


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--judge-url", "localhost:1"], "--judge-url"),
        (["--predictions", "nowhere.jsonl"], "no such file"),
    ],
)
def test_unusable_input(files: Files, server: JudgeServer, words: list[str], message: str):
    with pytest.raises(UserError, match=message):
        run(files.command(server, *words))


def test_only_video_benchmarks_are_judged(files: Files, server: JudgeServer):
    with pytest.raises(UserError, match="duet score pope"):
        run(["pope", *files.command(server)[1:]])
    with pytest.raises(UserError, match="none of its 1 predictions"):
        files.predict({99: "x"})
        run(files.command(server))


@pytest.mark.parametrize("words", [["--concurrency", "0"], ["--timeout", "nan"], ["--retries", "x"], ["--limit", "0"]])
def test_unusable_numbers(files: Files, server: JudgeServer, words: list[str]):
    with pytest.raises(SystemExit):
        run(files.command(server, *words))


@pytest.mark.parametrize("name", ["msvd", "tgif"])
def test_equal_to_the_official_script(tmp_path: Path, server: JudgeServer, name: str):
    """The stand-in replies that the official script was given, served over HTTP."""
    rows = {"msvd": 56, "tgif": 120}[name]
    folder = official_case(f"{name.upper()}_Zero_Shot_QA/real{rows}_clean_judge")
    expected = json.loads((folder / "expected.json").read_text())["official"]
    scripted = {row["id"]: row["replies"] for row in json.loads((folder / "judge_replies.json").read_text())}
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    replies = {}
    for line in lines:
        request = build_request("judge", line["question"], line["answer"], line["pred"])
        replies[request_key(request)] = scripted[line["id"]][0]
    server.script = lambda question, attempt: says(replies[request_key(server.requests[-1][3])])
    out = tmp_path / "out.json"
    words = [name, "--data", str(folder), "--predictions", str(folder / "predictions.jsonl"), "--json", str(out)]
    words += ["--judge-url", server.url, "--judge-model", "judge", "--cache", str(tmp_path / "cache.jsonl")]
    assert run([*words, "--concurrency", "1"]) == 0
    found = json.loads(out.read_text())
    assert found["tallies"]["yes"] == expected["yes_count"] and found["tallies"]["no"] == expected["no_count"]
    assert found["metrics"]["accuracy"] == pytest.approx(100 * expected["accuracy"], abs=1e-9)
    assert found["metrics"]["score"] == pytest.approx(expected["average_score"], abs=1e-9)
    assert found["counts"]["judged"] == expected["files_judged"] == rows
