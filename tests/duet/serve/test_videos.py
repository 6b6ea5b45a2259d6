"""Videos for a family that takes them, over a port; and all that is refused."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import duet
from duet.budget import Budget
from duet.data.video import read_clip
from duet.inference import ask
from duet.serve.errors import ApiError
from duet.serve.limits import Limits
from duet.serve.media import Pixels
from duet.serve.video import open_video
from tests.duet.serve.server import NAME, data_url, running
from tests.golden_qwen import FOLDER as QWEN
from tests.golden_video import HF as VIDEO_LLAVA

av = pytest.importorskip("av", reason="PyAV is not installed, which reads videos")

WIDTH, HEIGHT, FRAMES = 96, 64, 24


def video(form: str, frames: int = FRAMES, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    content = io.BytesIO()
    with av.open(content, "w", format=form) as container:
        stream = container.add_stream("vp8" if form == "webm" else "mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        random = np.random.default_rng(0)
        for _ in range(frames):
            pixels = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return content.getvalue()


def animation() -> bytes:
    content = io.BytesIO()
    pictures = [Image.new("RGB", (WIDTH, HEIGHT), (10 * n, 0, 0)) for n in range(12)]
    pictures[0].save(content, "GIF", save_all=True, append_images=pictures[1:], duration=100)
    return content.getvalue()


FAMILIES = {
    "videollava": (VIDEO_LLAVA, Budget(20, 4, layers=(1, 2), ratios=(0.5, 0))),
    "qwen2_5_vl": (QWEN / "weights_hf", Budget(2, 1, layers=(1,), ratios=(0.5,))),
}


@pytest.mark.parametrize(("checkpoint", "budget"), FAMILIES.values(), ids=FAMILIES)
def test_a_video_and_a_picture(checkpoint: Path, budget: Budget, tmp_path: Path) -> None:
    """The answer is that of `duet ask` to the same files, in every batch."""
    from duet.serve.model import Served, Setting

    content, picture = video("mp4"), Image.linear_gradient("L").resize((90, 60)).convert("RGB")
    (tmp_path / "clip.mp4").write_bytes(content)
    model, processor = duet.load(str(checkpoint), "duet", budget, device="cpu")
    served = Served(*duet.load(str(checkpoint), device="cpu"), {"own": Setting("duet", lambda sizes: budget)})
    clip = read_clip(tmp_path / "clip.mp4", served.asking.frames, "av")
    expected = [ask(model, processor, media, "who?", max_new_tokens=6) for media in ([clip, picture], [picture])]
    films = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{base64.b64encode(content).decode()}"}}
    stills = {"type": "image_url", "image_url": {"url": data_url(picture)}}
    with running(served) as server:
        for parts, answer in zip(([films, stills], [stills]), expected, strict=True):
            said = [{"role": "user", "content": [*parts, {"type": "text", "text": "who?"}]}]
            given = server.client().chat.completions.create(model=NAME, messages=said, max_tokens=6)
            assert given.choices[0].message.content == answer.text
            assert given.usage.completion_tokens == answer.generated
            assert given.usage.prompt_tokens == len(answer.input_ids)
            assert 0 < given.usage.duet["kept"][0] < given.usage.duet["visual_tokens"]


@pytest.mark.parametrize("form", ["mp4", "mov", "matroska", "webm", "avi"])
def test_formats(form: str) -> None:
    clip = open_video(video(form), lambda seconds: round(4 * seconds), Pixels(Limits()), Limits(), "here")
    assert clip.frames.shape == (8, HEIGHT, WIDTH, 3) and clip.total == FRAMES


def test_an_animation() -> None:
    clip = open_video(animation(), lambda seconds: 4, Pixels(Limits()), Limits(), "here")
    assert clip.frames.shape == (4, HEIGHT, WIDTH, 3) and clip.total == 12


def test_the_rule_of_the_model_is_cut_off() -> None:
    clip = open_video(video("mp4"), lambda seconds: 50, Pixels(Limits()), Limits(frames=6), "here")
    assert len(clip.frames) == 6


def test_pixels_of_sampled_frames_count() -> None:
    pixels = Pixels(Limits(pixels=10 * WIDTH * HEIGHT))
    open_video(video("mp4"), lambda seconds: 6, pixels, Limits(), "here")
    assert pixels.left == 4 * WIDTH * HEIGHT
    with pytest.raises(ApiError, match="megapixels"):
        open_video(video("mp4"), lambda seconds: 6, pixels, Limits(), "here")


PLAYLISTS = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "concat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://127.0.0.1/</BaseURL></MPD>',
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}
#: Behind the mark of a format that is taken.
MASKED = {f"{name} as {form}": mark + content for name, content in PLAYLISTS.items()
          for form, mark in (("mp4", b"\0\0\0\x18ftypisom\0\0\0\0isom\n"), ("mkv", b"\x1a\x45\xdf\xa3\n"))}  # fmt: skip
WHOLE = video("mp4")
BAD = {
    **PLAYLISTS,
    **MASKED,
    "nothing": b"",
    "a picture": base64.b64decode(data_url(Image.new("RGB", (8, 8))).split(",")[1]),
    "half a video": WHOLE[: len(WHOLE) // 2],
    "the head of a video": WHOLE[:40],
    "the wrong mark": b"RIFF\0\0\0\0AVI " + WHOLE,
}


@pytest.mark.parametrize("what", BAD)
def test_videos_that_are_refused(what: str) -> None:
    with pytest.raises(ApiError) as error:
        open_video(BAD[what], lambda seconds: 4, Pixels(Limits()), Limits(), "here")
    assert error.value.status == 400 and error.value.code == "invalid_video" and error.value.param == "here"
    assert "tmp" not in error.value.message and "passwd" not in error.value.message


@pytest.mark.parametrize("limits", [Limits(video=10), Limits(decode=0), Limits(pixels=WIDTH * HEIGHT), Limits(side=80)])
def test_videos_that_are_too_large(limits: Limits) -> None:
    with pytest.raises(ApiError) as error:
        open_video(WHOLE, lambda seconds: 4, Pixels(limits), limits, "here")
    assert error.value.status == 400


def test_nothing_stays_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    open_video(WHOLE, lambda seconds: 4, Pixels(Limits()), Limits(), "here")
    with pytest.raises(ApiError):
        open_video(WHOLE[:500], lambda seconds: 4, Pixels(Limits()), Limits(), "here")
    assert not list(tmp_path.iterdir())


def test_without_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duet.serve.video.find_spec", lambda name: None)
    with pytest.raises(ApiError, match="cannot read videos") as error:
        open_video(WHOLE, lambda seconds: 4, Pixels(Limits()), Limits(), "here")
    assert error.value.status == 501
