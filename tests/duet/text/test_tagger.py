"""spaCy as a tagger: the output of a pipeline, and the message if it is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from duet.errors import UserError
from duet.text.tagger import spacy_tagger


def test_missing_spacy_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError, match=r"pip install 'duet-vlm\[text\]'.*python -m spacy download en_core_web_sm"):
        spacy_tagger()


def test_missing_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, exclude: list[str]) -> None:
        raise OSError(f"[E050] Can't find model '{name}'.")

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=load))
    with pytest.raises(UserError, match="cannot find model 'en_core_web_sm': python -m spacy download en_core_web_sm"):
        spacy_tagger()


def test_spacy_pipeline_gives_spans_and_tags(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason="spaCy is an optional extra: pip install 'duet-vlm[text]'")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("attribute_ruler")
    ruler.add([[{"LOWER": "dog"}]], {"POS": "NOUN"})
    ruler.add([[{"ORTH": "?"}]], {"POS": "PUNCT"})
    pipeline.to_disk(tmp_path)
    text = "What's the  dog? 🐱 dog"
    found = [(text[start:end], tag) for start, end, tag in spacy_tagger(str(tmp_path))(text)]
    assert [pair for pair in found if pair[1]] == [("dog", "NOUN"), ("?", "PUNCT"), ("dog", "NOUN")]
    assert [word for word, _ in found][:2] == ["What", "'s"]
