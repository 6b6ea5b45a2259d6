"""Evaluation prompts with the original's token ids."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlavaConfig

import duet
from duet.errors import UserError
from duet.eval.asking.answerer import Answerer
from duet.eval.asking.original import PiecesApart
from duet.llava.asking import LlavaAsking
from playground.mini.build_model import build_processor
from tests.golden_llava import FOLDER as LLAVA
from tests.golden_training import FOLDER, cases, records

PICTURE = Image.new("RGB", (40, 40))


def asking(name: str) -> LlavaAsking:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tokenizers" / name)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return LlavaAsking(LlavaConfig(), build_processor(tokenizer))


def collapsed(ids: list[int], image: int) -> list[int]:
    """Runs of visual tokens as one -200."""
    found: list[int] = []
    for token in ids:
        if token != image:
            found.append(token)
        elif found[-1] != -200:
            found.append(-200)
    return found


@pytest.mark.parametrize("name", ["spm", "spm_legacy"])
@pytest.mark.parametrize("row", ["image_first", "spaces_around_answer", "one_letter", "no_line_behind_placeholder"])
def test_a_prompt_is_how_its_training_row_begins(name: str, row: str) -> None:
    own = asking(name)
    apart = PiecesApart(own)
    value = records()[row]["conversations"][0]["value"].replace("<image>", "").strip()
    inputs = apart.encode(apart.prompt(value, ["<image>"]), [PICTURE])
    ids = inputs["input_ids"][0].tolist()
    (case,) = (case for case in cases(name) if case["row"] == row and case["mode"] == "v1")
    found = collapsed(ids, own.processor.image_token_id)
    assert found == case["input_ids"][: len(found)]
    assert ids.count(own.processor.image_token_id) == 100
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape
    assert torch.equal(inputs["pixel_values"], own.encode("<image>", [PICTURE])["pixel_values"])


def test_several_pictures() -> None:
    own = asking("spm")
    apart = PiecesApart(own)
    ids = apart.encode("Is <image> like <image>?", [PICTURE, PICTURE])["input_ids"][0].tolist()
    assert ids.count(own.processor.image_token_id) == 200
    assert collapsed(ids, own.processor.image_token_id) == apart.tokenizer.apart("Is <image> like <image>?")


def test_other_families_have_no_ids_of_their_own() -> None:
    with pytest.raises(UserError, match="prompts of qwen2_5_vl are the processor's"):
        PiecesApart(SimpleNamespace(config=SimpleNamespace(model_type="qwen2_5_vl")))  # type: ignore[arg-type]


def test_an_answerer_hands_them_to_the_model() -> None:
    """Both pictures are shown twice: nothing of the processor's tokenization may be reused."""
    model, processor = duet.load(str(LLAVA / "weights_hf"))
    ours, theirs = (Answerer(model, processor, tokenization=name) for name in ("right", "original"))
    assert isinstance(theirs.asking, PiecesApart)
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "a.png")
        PICTURE.save(path)
        for question in ("What?", "  Why?"):
            text = ours.asking.prompt(question, ["<image>"])
            own, other = (answerer.encode(text, [path]).inputs["input_ids"][0].tolist() for answerer in (ours, theirs))
            assert collapsed(other, 511) == theirs.asking.tokenizer.apart(text)
            assert own.count(511) == other.count(511) == 576
