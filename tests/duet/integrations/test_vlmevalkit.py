"""The VLMEvalKit launcher against a real `duet serve`: with VLMEvalKit itself (`scripts/vlmevalkit.sh`), and with a
package of the same name that sends what the `OpenAIWrapper` of ms-vlmeval 0.0.20 sends.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.duet.serve.server import KEY, NAME, Running, alone, asked, running

API = '''import base64, json
from urllib.request import Request, urlopen


class OpenAIWrapper:
    """Keyword arguments and request of the original; pictures go out as JPEG or PNG with `detail`."""

    is_api = True

    def __init__(self, model, retry=5, key=None, temperature=0, timeout=300, api_base=None, max_tokens=2048,
                 img_detail="low"):
        assert img_detail in ["high", "low"] and api_base.startswith("http")
        self.model, self.key, self.api_base, self.max_tokens = model, key, api_base, max_tokens
        self.temperature, self.img_detail = temperature, img_detail

    def generate(self, message, **options):
        return self.generate_inner(message, **options)

    def generate_inner(self, message, **options):
        parts = []
        for item in message:
            if item["type"] == "text":
                parts.append(dict(type="text", text=item["value"]))
            else:
                content = base64.b64encode(open(item["value"], "rb").read()).decode()
                url = f"data:image/jpeg;base64,{content}"
                parts.append(dict(type="image_url", image_url=dict(url=url, detail=self.img_detail)))
        payload = dict(model=self.model, messages=[dict(role="user", content=parts)], temperature=self.temperature,
                       max_tokens=self.max_tokens, **options)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        with urlopen(Request(self.api_base, json.dumps(payload).encode(), headers), timeout=60) as answer:
            return json.load(answer)["choices"][0]["message"]["content"].strip()
'''
RUN = """import json, sys
from vlmeval.config import supported_VLM

assert sys.argv[1:3] == ["--model", "duet"]
rows, answers = sys.argv[4], sys.argv[6]
model = supported_VLM["duet"]()
found = [model.generate(row, dataset="mini") for row in json.load(open(rows))]
json.dump(found, open(answers, "w"))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as server:
        yield server


def test_answers_are_those_of_the_served_model(server, tmp_path, monkeypatch):
    package = tmp_path / "vlmeval"
    package.mkdir()
    for name, text in (("__init__", ""), ("api", API), ("config", "supported_VLM = {}\n"), ("run", RUN)):
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "vlmeval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("DUET_API_KEY", KEY)
    rows, expected = [], []
    for number in range(3):
        picture, question = asked(number)
        picture.save(tmp_path / f"{number}.png")
        rows.append(
            [{"type": "image", "value": str(tmp_path / f"{number}.png")}, {"type": "text", "value": question.text}]
        )
        expected.append(alone(question.text, picture, budget="mini_third"))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    from duet.integrations.vlmevalkit import main, server_settings

    url = f"http://127.0.0.1:{server.port}"
    assert server_settings(url)["model"] == NAME
    main([f"{url}/", "--data", str(tmp_path / "rows.json"), "--work-dir", str(tmp_path / "answers.json")])
    assert json.loads((tmp_path / "answers.json").read_text()) == expected


ROWS = 9


def write_tables(folder: Path) -> list[str]:
    """The same questions as a VQA and a multiple-choice benchmark; returns the answers to the former."""
    tables = {"mini": [["index", "image", "question", "answer"]]}
    tables["choices"] = [["index", "image", "question", "A", "B", "answer", "category"]]
    answers = []
    for number in range(ROWS):
        picture, question = asked(number)
        content = io.BytesIO()
        picture.save(content, "JPEG")  # as VLMEvalKit sends it
        encoded = base64.b64encode(content.getvalue()).decode()
        tables["mini"].append([number, encoded, question.text, question.answer])
        tables["choices"].append([number, encoded, question.text, question.answer, "purple", "A", "all"])
        again = io.BytesIO()
        Image.open(content).save(again, "JPEG")
        answers.append(alone(question.text, Image.open(again).convert("RGB"), budget="mini_third"))
    for name, rows in tables.items():
        with (folder / f"{name}.tsv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t").writerows(rows)
    return answers


@pytest.mark.vlmevalkit
def test_vlmevalkit_gets_the_answers_of_duet(server, tmp_path):
    import pandas

    expected = write_tables(tmp_path)
    given = {"LMUData": str(tmp_path), "DUET_API_KEY": KEY, "VLMEVAL_MIN_IMAGE_EDGE": "1", "HF_HUB_OFFLINE": "1"}
    words = ["--data", "mini", "choices", "--judge", "exact_matching", "--api-nproc", "4"]
    command = [sys.executable, "-m", "duet.integrations.vlmevalkit", f"http://127.0.0.1:{server.port}", *words]
    run = subprocess.run(command, cwd=tmp_path, env={**os.environ, **given}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    found = pandas.read_excel(tmp_path / "outputs" / "duet" / "duet_mini.xlsx")
    assert found["prediction"].astype(str).tolist() == expected
    scores = pandas.read_csv(tmp_path / "outputs" / "duet" / "duet_choices_acc.csv")
    assert 0 < float(scores["Overall"][0]) <= 1
