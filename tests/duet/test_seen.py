"""`duet.look`: answers about read pictures are those of asking each question alone, on a checkpoint of each family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import duet
from duet.engine.attachment import is_attached
from duet.errors import UserError
from duet.families import find_asking
from duet.inference import Shown, ask
from tests import golden_qwen, golden_video, qwen3_checkpoint
from tests.duet.test_inference import film, noise
from tests.llava_checkpoints import HF
from tests.llava_next_checkpoints import save_hf

FOLDERS: dict[str, Any] = {
    "llava": lambda _: HF,
    "llava_next": lambda tmp: save_hf(tmp / "model"),
    "video_llava": lambda _: golden_video.HF,
    "qwen": lambda _: golden_qwen.FOLDER / "weights_hf",
    "qwen3": lambda _: qwen3_checkpoint.saved(),
}
BUDGET = duet.Budget(5, 2, layers=(0.5, 0.75), ratios=(0.5, 0.0))
QUESTIONS = ["What is it?", "Is there a red ring in the picture, or a blue one?"]


@pytest.fixture(scope="module", params=FOLDERS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, list[Any]]:
    folder: Path = FOLDERS[request.param](tmp_path_factory.mktemp("seen"))
    model, processor = duet.load(str(folder), method="duet", budget=BUDGET, device="cpu")
    return model, processor, [noise(0), film(4)] if find_asking(model, processor).takes_videos else [noise(0)]


def test_text_alone_makes_what_the_processor_makes(loaded: tuple[Any, Any, list[Any]]) -> None:
    model, processor, media = loaded
    asking = find_asking(model, processor)
    shown = Shown(asking, processor, model.config, media)
    history = [("What is this?", "A ring.")]
    texts = [shown.prompt(one) for one in QUESTIONS] + [shown.prompt(QUESTIONS[0], history)]
    assert texts[0] == asking.prompt(QUESTIONS[0], ["<image>", "<video>"][: len(media)])
    for text in texts:
        found, wanted = shown.encode(text), asking.encode(text, media)
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(wanted[name])), name
    assert len(shown._heads) == 1


def test_questions_turns_and_batches(loaded: tuple[Any, Any, list[Any]]) -> None:
    model, processor, media = loaded
    wanted = [ask(model, processor, media, question, max_new_tokens=4) for question in QUESTIONS]
    towers: list[int] = []
    name = next(name for name in ("vision_tower", "image_tower", "visual") if hasattr(model.model, name))
    handle = getattr(model.model, name).register_forward_hook(lambda *_: towers.append(1))
    with duet.look(model, media, processor) as seen:
        found = [seen.ask(question, max_new_tokens=4) for question in QUESTIONS]
        together = seen.ask(QUESTIONS, max_new_tokens=4)
        later = seen.ask(QUESTIONS[1], history=[(QUESTIONS[0], "A ring.")], max_new_tokens=4)
        assert seen.bytes > 0 and "layers" in seen.shares
    handle.remove()
    assert len(towers) <= len(media)
    for one, other, third in zip(found, together, wanted, strict=True):
        assert one.text == other.text == third.text
        assert one.generated == other.generated == third.generated
        assert torch.equal(one.input_ids, third.input_ids)
    inputs = find_asking(model, processor).encode(
        Shown(find_asking(model, processor), processor, model.config, media).prompt(
            QUESTIONS[1], [(QUESTIONS[0], "A ring.")]
        ),
        media,
    )
    new = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert later.text == processor.tokenizer.decode(new, skip_special_tokens=True).strip()


@torch.no_grad()
def test_a_processors_output_and_logits(loaded: tuple[Any, Any, list[Any]]) -> None:
    model, processor, media = loaded
    shown = Shown(find_asking(model, processor), processor, model.config, media)
    inputs = [shown.encode(shown.prompt(question)) for question in QUESTIONS]
    words = {name: value for name, value in inputs[1].items() if not name.startswith("pixel")}
    with duet.look(model, inputs[0]) as seen:
        torch.testing.assert_close(seen.forward(words).logits, model(**inputs[1]).logits, atol=3e-4, rtol=0)
        with pytest.raises(UserError, match="needs pictures and a processor"):
            seen.ask("What?")


def test_a_stock_model_keeps_all_tokens_and_is_stock_again(loaded: tuple[Any, Any, list[Any]]) -> None:
    model, processor, media = loaded
    duet.detach(model)
    wanted = ask(model, processor, media, QUESTIONS[0], max_new_tokens=3).text
    with duet.look(model, media, processor) as seen:
        assert seen.ask(QUESTIONS[0], max_new_tokens=3).text == wanted
    assert not is_attached(model)
    duet.attach(model, "duet", BUDGET)


def test_mistakes(loaded: tuple[Any, Any, list[Any]]) -> None:
    model, processor, media = loaded
    with pytest.raises(UserError, match="needs the processor"), duet.look(model, media):
        pass
    with pytest.raises(UserError, match="at least one picture"), duet.look(model, [], processor):
        pass
    with pytest.raises(UserError, match="more than the limit of 10"), duet.look(model, media, processor, limit=10):
        pass
    with duet.look(model, media, processor) as seen:
        assert seen.ask([]) == []
    with pytest.raises(UserError, match="is over"):
        seen.ask("What?")
