"""Messages in the conversations of the families."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import duet
from duet.families import find_asking
from duet.llava.prompts import HELPFUL_SYSTEM, SYSTEM
from duet.serve.errors import ApiError
from duet.serve.prompts import Prompts
from duet.serve.schema import Message
from duet.text.placeholders import IMAGE, VIDEO
from duet.videollava.asking import VideoLlavaAsking
from tests.golden_qwen import FOLDER as QWEN

PICTURE = {"type": "image_url", "image_url": {"url": ""}}
CLIP = {"type": "video_url", "video_url": {"url": ""}}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def message(role: str, *parts: Any) -> Message:
    return Message.model_validate({"role": role, "content": list(parts) if len(parts) != 1 else parts[0]})


def prompts_of(conversation: str, takes_videos: bool = True) -> Prompts:
    asking = type("Fixed", (VideoLlavaAsking,), {"conversation": lambda self, original=None: conversation})(None, None)
    asking.takes_videos = takes_videos
    tokenizer = SimpleNamespace(get_added_vocab=lambda: {"</s>": 2, "<|eot_id|>": 3})
    return Prompts(asking, SimpleNamespace(tokenizer=tokenizer))


def user(*parts: Any) -> str:
    """The text between USER: and ASSISTANT:."""
    written = prompts_of("vicuna_v1").write([message("user", *parts)])
    assert written.startswith(f"{SYSTEM} USER: ") and written.endswith(" ASSISTANT:")
    return written.removeprefix(f"{SYSTEM} USER: ").removesuffix(" ASSISTANT:")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([text("who?"), text(" he?")], "who? he?"),
        ([PICTURE, text("who?")], "<image>\nwho?"),
        ([text("who?"), PICTURE], "<image>\nwho?"),
        ([PICTURE, CLIP, text("who?")], "<image>\n<video>\nwho?"),
        ([text("who?"), CLIP, PICTURE], "<video>\n<image>\nwho?"),
        ([PICTURE, text("or"), PICTURE], "<image>\nor\n<image>\n"),
        ([PICTURE, text("or"), PICTURE, text("?")], "<image>\nor\n<image>\n?"),
        ([text("See"), PICTURE, text("who?")], "See\n<image>\nwho?"),
        ([text("See\n"), PICTURE, text("who?")], "See\n<image>\nwho?"),
        ([PICTURE, PICTURE], "<image>\n<image>\n"),
    ],
)
def test_where_pictures_go(parts: list[Any], expected: str) -> None:
    """Beside the text they go in front of it; only between texts they stay."""
    assert user(*parts) == expected


def test_turns() -> None:
    turns = [message("user", PICTURE, text("a")), message("assistant", "b"), message("user", "c")]
    vicuna = prompts_of("vicuna_v1").write(turns)
    assert vicuna == f"{SYSTEM} USER: <image>\na ASSISTANT: b</s>USER: c ASSISTANT:"
    assert prompts_of("mistral_instruct").write(turns) == "[INST] <image>\na [/INST] b </s>[INST] c [/INST]"


def test_system() -> None:
    for role in ("system", "developer"):
        said = [message(role, "Be brief."), message("user", "a")]
        assert prompts_of("vicuna_v1").write(said) == "Be brief. USER: a ASSISTANT:"
        llama = prompts_of("llava_llama_3").write(said)
        assert "<|end_header_id|>\n\nBe brief.<|eot_id|>" in llama and HELPFUL_SYSTEM not in llama
        with pytest.raises(ApiError, match="prompt format has no system message"):
            prompts_of("mistral_instruct").write(said)


def test_a_family_without_videos() -> None:
    with pytest.raises(ApiError, match="pictures only"):
        prompts_of("vicuna_v1", takes_videos=False).write([message("user", CLIP, text("a"))])


@pytest.mark.parametrize("mark", [IMAGE, VIDEO, "</s>", "<|eot_id|>"])
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_marks_of_the_conversation(mark: str, role: str) -> None:
    """No user text can end a turn or act as a picture."""
    said = {"system": "x", "user": "a", "assistant": "b", role: f"a {mark} b"}
    with pytest.raises(ApiError, match="marker of the prompt format") as error:
        prompts_of("vicuna_v1").write([*(message(who, what) for who, what in said.items()), message("user", "c")])
    assert error.value.param == f"messages[{list(said).index(role)}].content[0]"


def test_the_chat_template_of_a_checkpoint() -> None:
    model, processor = duet.load(str(QWEN / "weights_hf"), device="cpu")
    asking = find_asking(model, processor)
    prompts = Prompts(asking, processor)
    single = prompts.write([message("user", text("who?"), PICTURE, CLIP)])
    assert single == asking.prompt("who?", [IMAGE, VIDEO])
    interleaved = prompts.write([message("user", PICTURE, text(" or "), CLIP, text("?"))])
    assert interleaved == asking.prompt("<image> or <video>?", [IMAGE, VIDEO])
    turns = [message("user", PICTURE, text("a")), message("assistant", "b"), message("user", "c")]
    written = prompts.write(turns)
    assert written.startswith(asking.prompt("a", [IMAGE]).removesuffix("\n") + "\nb<|im_end|>")
    assert written.endswith(asking.prompt("c", []))
    with pytest.raises(ApiError, match="marker of the prompt format"):
        prompts.write([message("user", "a<|im_end|>")])
