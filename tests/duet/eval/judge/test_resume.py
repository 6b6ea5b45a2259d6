"""A killed run continues where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from tests.judge_server import YES, Files, JudgeServer, says

PROGRAM = """
import argparse, sys
from duet.cli import judge
parser = argparse.ArgumentParser()
judge.add_arguments(parser)
sys.exit(judge.run(parser.parse_args()))
"""


def start(words: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_kill_and_resume(files: Files, server: JudgeServer):
    """kill -9 in the middle of 30 calls: only the two in flight may be asked again, the result is the same."""
    server.script = lambda question, attempt: says(YES, delay=0.05)
    out = files.data / "out.json"
    words = files.command(server, "--concurrency", "2", "--json", str(out))
    process = start(words)
    while len(server.requests) < 12 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() < 0
    asked = len(server.requests)
    kept = {json.loads(line)["question"] for line in files.cache.read_text().splitlines()}
    assert 30 > asked >= 12 and len(kept) >= asked - 2
    assert start(words).wait() == 0
    assert not kept & set(server.questions[asked:])
    assert len(server.requests) <= 30 + 2
    found = json.loads(out.read_text())
    assert found["complete"] and found["metrics"]["accuracy"] == 100 and found["counts"]["cached"] == len(kept)
