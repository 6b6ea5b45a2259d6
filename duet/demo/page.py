"""The page: layout and events. gradio, one process, none of our files are reachable."""

from __future__ import annotations

import functools
import logging
import os
from abc import ABCMeta
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr

from duet.budget import Backbone
from duet.demo.costs import Prompt
from duet.demo.examples import Example
from duet.demo.markup import Shown, answers_html, costs_html, head_html, kept_html, words_html
from duet.demo.model import FAILED, Demo, Pane
from duet.demo.panels import kept_panels, word_panels
from duet.demo.uploads import open_upload
from duet.demo.words import voted, votes, word_maps
from duet.errors import UserError
from duet.inference import Question

log = logging.getLogger("duet.demo")

#: Methods besides all tokens.
MOST_METHODS = 3
#: Shown before there is a picture, if its size matters: visual tokens, and tokens of text.
USUAL_TOKENS, USUAL_TEXT = 1280, 48
#: Seconds after which uploaded files are deleted, and between checks.
KEPT_FILES = (3600, 600)


def build(demo: Demo, methods: Sequence[str], share: float, examples: Sequence[Example] = ()) -> gr.Blocks:
    """The page of a model.

    Args:
        demo: the model.
        methods: chosen at the beginning.
        share: of the visual tokens that is left on average, at the beginning.
        examples: pictures and questions to choose from; the first is there at the beginning.
    """
    page = _Page(demo, methods, share, examples)
    page.blocks.queue(max_size=demo.limits.queue, default_concurrency_limit=1, api_open=False)
    return page.blocks


def launch_options(demo: Demo) -> dict[str, Any]:
    """Arguments of `Blocks.launch`: the page shares, lists, keeps and exposes only what it needs."""
    return {
        "share": False,
        "allowed_paths": [],
        "max_file_size": demo.limits.medium,
        "show_error": False,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "strict_cors": True,
        "quiet": True,
        "theme": gr.themes.Default(primary_hue="blue", neutral_hue="slate", font="system-ui", font_mono="ui-monospace"),
        "css": files("duet.demo").joinpath("style.css").read_text(encoding="utf-8"),
    }


class _Uploaded:
    """Inputs whose files only `duet.demo.uploads` opens: gradio's own readers have no limits, and fetch URLs."""

    def preprocess(self, payload: Any) -> str | None:
        """The path of the file; gradio has checked that it was uploaded."""
        return None if payload is None else payload.path

    async def async_move_resource_to_block_cache(self, url_or_file_path: Any) -> str | None:
        """The path of the file; URLs are refused."""
        if urlsplit(str(url_or_file_path)).scheme.lower() in ("http", "https"):
            raise gr.Error("upload a file: addresses are not fetched", print_exception=False)
        return await super().async_move_resource_to_block_cache(url_or_file_path)  # type: ignore[misc]


def _uploading(kind: Any) -> Any:
    """`gr.Image` or `gr.Video` with the methods of `_Uploaded`.

    A class and not an instance is changed, because gradio makes new instances for each visitor. Its metaclass would
    write a file beside this one.
    """
    return ABCMeta.__new__(type(kind), kind.__name__, (_Uploaded, kind), {"__module__": __name__})


PictureInput, VideoInput = _uploading(gr.Image), _uploading(gr.Video)


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Report a visitor's mistake; for any other error only that it failed."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> Iterator[Any]:
        try:
            yield from function(*args)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except gr.Error:
            raise
        except Exception:
            log.exception("an event of the page failed")
            raise gr.Error(FAILED, print_exception=False) from None

    return wrapped


class _Page:
    """Components, events and their handlers."""

    def __init__(self, demo: Demo, methods: Sequence[str], share: float, examples: Sequence[Example]) -> None:
        self.demo, self.examples = demo, list(examples)
        first = self._usual() if not self.examples else demo.measure(demo.encode(*self.examples[0]))
        full = demo.full(first)
        average = max(1, round(share * full))
        with gr.Blocks(title="DUET-VLM", analytics_enabled=False, fill_width=True, delete_cache=KEPT_FILES) as blocks:
            self.blocks = blocks
            gr.HTML(head_html(demo.name, demo.family))
            self.prompt = gr.State(first)
            with gr.Row():
                with gr.Column(scale=1, min_width=320, elem_id="controls"):
                    self._inputs()
                    self.methods = gr.Dropdown(
                        demo.methods, value=list(methods), multiselect=True, max_choices=MOST_METHODS,
                        label="methods besides all tokens", elem_id="methods",
                    )  # fmt: skip
                    self.average = gr.Slider(
                        1, full, average, step=1, label=_label(full), elem_id="average", buttons=[]
                    )
                    with gr.Row():
                        self.ask = gr.Button("Ask", variant="primary", min_width=90, elem_id="ask")
                        self.stop = gr.Button("Stop", min_width=90, elem_id="stop")
                    self._examples()
                with gr.Column(scale=3, min_width=560):
                    self.costs = gr.HTML(costs_html(demo.costs(methods, average, first)), elem_id="costs")
                    self.answers = gr.HTML(elem_id="answers")
                    self.kept = gr.HTML(elem_id="kept")
                    self.words = gr.HTML(elem_id="words")
            self._events()

    def _inputs(self) -> None:
        example = self.examples[0] if self.examples else None
        self.picture = PictureInput(
            example and example.picture, format="png", label="picture", sources=["upload", "clipboard"], height=260,
            buttons=[], elem_id="picture", elem_classes="duet-picture",
        )  # fmt: skip
        takes = self.demo.asking.takes_videos
        self.video = VideoInput(label="or video", sources=["upload"], height=260, visible=takes, elem_id="video")
        self.question = gr.Textbox(
            example and example.question, label="question", lines=2, max_lines=4, submit_btn=False, elem_id="question",
            max_length=self.demo.limits.text, placeholder="What is in the picture?",
        )  # fmt: skip

    def _examples(self) -> None:
        if self.examples:
            gr.Examples(
                [list(example) for example in self.examples], [self.picture, self.question], elem_id="examples",
                cache_examples=False, label="examples, drawn by playground/mini",
            )  # fmt: skip

    def _events(self) -> None:
        hidden: dict[str, Any] = {"api_visibility": "private"}
        inputs = [self.picture, self.video, self.question]
        live = [self.methods, self.average, self.prompt]
        quick = {**hidden, "queue": False, "show_progress": "hidden", "trigger_mode": "always_last"}
        gr.on([self.methods.input, self.average.input], _told(self._show_costs), live, self.costs, **quick)
        gr.on(
            [self.picture.change, self.video.change, self.question.blur],
            _told(self._measure), [*inputs, *live], [self.prompt, self.average, self.costs],
            **{**quick, "queue": True}, concurrency_limit=2,
        )  # fmt: skip
        self.picture.upload(lambda: None, None, self.video, **quick)
        self.video.upload(lambda: None, None, self.picture, **quick)
        outputs = [self.prompt, self.average, self.costs, self.answers, self.kept, self.words]
        asked = gr.on(
            [self.ask.click, self.question.submit], _told(self._ask), [*inputs, *live], outputs,
            **hidden, show_progress="hidden", trigger_mode="once",
        )  # fmt: skip
        self.stop.click(None, None, None, cancels=[asked], **hidden)

    def _usual(self) -> Prompt:
        backbone: Backbone = self.demo.backbone
        return Prompt((USUAL_TOKENS,) if backbone.patches is None else backbone.units, USUAL_TEXT)

    def _show_costs(self, methods: list[str], average: float, prompt: Prompt) -> Iterator[str]:
        yield costs_html(self.demo.costs(methods, average, prompt))

    def _encode(self, picture: str | None, video: str | None, question: str) -> Question:
        path = picture or video
        if path is None:
            raise UserError("upload a picture" + (" or a video" if self.demo.asking.takes_videos else ""))
        medium = open_upload(path, video=picture is None, frames=self.demo.asking.frames, limits=self.demo.limits)
        return self.demo.encode(medium, question)

    def _measure(
        self, picture: str | None, video: str | None, question: str, methods: list[str], average: float, before: Prompt
    ) -> Iterator[tuple[Any, ...]]:
        """Update the slider and the costs for the picture."""
        if picture is None and video is None:
            yield before, gr.skip(), gr.skip()
            return
        yield self._fit(self._encode(picture, video, question or "?"), methods, average, before)[1:]

    def _fit(self, question: Question, methods: list[str], average: float, before: Prompt) -> tuple[Any, ...]:
        """Keep the average's share of the tokens for a picture of another size."""
        if len(methods) > MOST_METHODS:
            raise UserError(f"{len(methods)} methods were chosen; compare at most {MOST_METHODS} at a time")
        prompt = self.demo.measure(question)
        full, was = self.demo.full(prompt), self.demo.full(before)
        average = min(max(1, round(average * full / was)), full)
        slider = gr.skip() if full == was else gr.update(value=average, maximum=full, label=_label(full))
        costs = self.demo.costs(methods, average, prompt)
        return costs, prompt, slider, costs_html(costs)

    def _ask(
        self, picture: str | None, video: str | None, question: str, methods: list[str], average: float, before: Prompt
    ) -> Iterator[tuple[Any, ...]]:
        made = self._encode(picture, video, question)
        costs, *fitted = self._fit(made, methods, average, before)
        yield *fitted, answers_html([Pane(cost) for cost in costs]), "", ""
        stay = [gr.skip()] * 3
        shown: dict[int, Shown] = {}
        for panes in self.demo.answer(made, costs):
            before_them = len(shown)
            for number, pane in enumerate(panes):
                if number not in shown and pane.answer is not None and pane.answer.trace is not None:
                    rows, words = kept_panels(made, pane.answer), voted(self.demo, pane.answer)
                    shown[number] = Shown(pane.cost.method, number, rows, words, bool(votes(pane.answer)))
            fresh = len(shown) > before_them
            yield *stay, answers_html(panes), kept_html(list(shown.values())) if fresh else gr.skip(), gr.skip()
        maps = word_maps(self.demo, made, [pane.answer for pane in panes if pane.answer and pane.answer.trace])
        if maps:
            yield *stay, gr.skip(), gr.skip(), words_html(word_panels(made, maps), maps[0].layer)


def _label(full: int) -> str:
    return f"visual tokens per layer, on average, of {full}"
