"""Answers, numbers and patches -> HTML for the page. Text from visitors and models is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from duet.demo.charts import colour, share_bar, steps_chart
from duet.demo.costs import ALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duet.demo.costs import Cost
    from duet.demo.model import Pane
    from duet.demo.panels import Panel

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def quantity(value: float, unit: str) -> str:
    """`8.47e12` -> `8.47 TFLOP`."""
    size, prefix = next(((size, prefix) for size, prefix in _PREFIXES if value >= size), (1, ""))
    return f"{value / size:.3g} {prefix}{unit}"


def head_html(model: str, family: str) -> str:
    """Title of the page."""
    about = (
        "Ask a model with all of its visual tokens and with a few of them. The table says what a budget costs before "
        "anything runs; below the answers is what was kept, and why."
    )
    title = f"<h1>DUET-VLM <small>{escape(model)}, {escape(family)}</small></h1>"
    return f'<header class="duet duet-head">{title}<p>{about}</p></header>'


def name_of(method: str) -> str:
    """Name on the page."""
    return "all tokens" if method == ALL else method


def costs_html(costs: Sequence[Cost]) -> str:
    """Tokens per layer as a chart, with a table of tokens, FLOPs and cache."""
    whole = costs[0]
    head = "<tr><th></th><th>visual tokens</th><th>FLOPs to the first token</th><th>KV cache</th></tr>"
    rows = "".join(_cost_row(number, cost, whole) for number, cost in enumerate(costs))
    return (
        f'<div class="duet"><h2>what it costs</h2><div class="duet-costs"><figure>{steps_chart(costs)}</figure>'
        f"<table><thead>{head}</thead><tbody>{rows}</tbody></table></div></div>"
    )


def _cost_row(number: int, cost: Cost, whole: Cost) -> str:
    title = f'<th><span class="dot" style="background:{colour(number)}"></span>{escape(name_of(cost.method))}</th>'
    if cost.budget is None:
        return f'<tr>{title}<td colspan="3" class="problem">{escape(cost.problem)}</td></tr>'
    cells = (
        (cost.average, whole.average, f"{cost.average:.4g}"),
        (cost.flops, whole.flops, quantity(cost.flops, "FLOP")),
        (cost.kv_bytes, whole.kv_bytes, quantity(cost.kv_bytes, "B")),
    )
    return f"<tr>{title}{''.join(f'<td>{share_bar(number, *cell)}</td>' for cell in cells)}</tr>"


def answers_html(panes: Sequence[Pane]) -> str:
    """A card for each method, in a row."""
    cards = "".join(_card(number, pane, panes[0]) for number, pane in enumerate(panes))
    return _section("answers", "duet-answers", cards)


def _card(number: int, pane: Pane, whole: Pane) -> str:
    if pane.state == "failed":
        body = f'<p class="problem">{escape(pane.problem)}</p>'
    else:
        text = escape(pane.text) or ("(nothing)" if pane.state == "done" else "")
        cursor = '<span class="cursor"></span>' if pane.state == "running" else ""
        body = f'<p class="answer">{text}{cursor}</p>'
    return (
        f'<section class="card {pane.state}" style="--accent:{colour(number)}">'
        f"<h3>{escape(name_of(pane.cost.method))}{_verdict(number, pane, whole)}</h3>{body}{_numbers(pane)}</section>"
    )


def _verdict(number: int, pane: Pane, whole: Pane) -> str:
    if number == 0 or pane.answer is None or whole.answer is None:
        return ""
    same = pane.text == whole.text
    return f'<span class="verdict {"same" if same else "other"}">{"same answer" if same else "different answer"}</span>'


def _numbers(pane: Pane) -> str:
    if pane.answer is None:
        return '<p class="numbers">&nbsp;</p>'
    answer = pane.answer
    counts = "" if answer.trace is None else " → ".join(map(str, kept_counts(pane)))
    tokens = counts or f"{pane.cost.layers[0]}"
    return (
        f'<p class="numbers"><b>{tokens}</b> visual tokens<br>first token after {answer.prefill_ms:.0f} ms, '
        f"{answer.generated} tokens in {answer.prefill_ms + answer.decode_ms:.0f} ms</p>"
    )


def kept_counts(pane: Pane) -> list[int]:
    """Visual tokens of the prompt, then after each reduction."""
    assert pane.answer is not None and pane.answer.trace is not None
    trace = pane.answer.trace
    left = trace.counts()
    return [trace.full[0], *(left[boundary] for boundary in trace.reduced)]


@dataclass(frozen=True)
class Shown:
    """The displayed parts of a method's answer.

    Attributes:
        method: its name.
        number: of its pane.
        rows: of panels, one per picture or video.
        words: of the question, and whether each voted.
        votes: whether any token of the text voted.
    """

    method: str
    number: int
    rows: Sequence[Sequence[Panel]]
    words: Sequence[tuple[str, bool]] = ()
    votes: bool = False


def kept_html(shown: Sequence[Shown]) -> str:
    """What each method kept."""
    legend = "Clear: kept. Tinted: merged into a token; the dot marks its anchor patch. Grey: dropped."
    methods = "".join(_method(one) for one in shown)
    return _section("what each stage keeps", "duet-kept", f"<p>{legend}</p>{methods}")


def words_html(rows: Sequence[Sequence[Panel]], layer: int) -> str:
    """Attention of the voting words."""
    about = (
        f"Attention of each word in layer {layer}, the first that ranks, with all tokens. Percent: the share of "
        "it on the picture. Each map has its own scale, from white to dark red."
    )
    return _section("where the voting words look", "duet-kept", f"<p>{about}</p>{_rows(rows, 'small')}")


def _rows(rows: Sequence[Sequence[Panel]], kind: str = "") -> str:
    found = []
    for row in rows:
        wide = " wide" if row[0].wide else ""
        found.append(f'<div class="row {kind}{wide}">{"".join(map(_panel, row))}</div>')
    return "".join(found)


def _section(title: str, kind: str, content: str) -> str:
    return f'<div class="duet"><h2>{escape(title)}</h2><div class="{kind}">{content}</div></div>'


def _method(shown: Shown) -> str:
    if any(voted for _, voted in shown.words):
        words = f'<p class="question">{_words(shown.words)}</p>'
    else:
        only = ", only the last token of the prompt, which is none of its words" if shown.votes else ""
        words = f"<p>No word of the question votes{only}.</p>"
    title = f"<h3>{escape(name_of(shown.method))}</h3>"
    return f'<section style="--accent:{colour(shown.number)}">{title}{words}{_rows(shown.rows)}</section>'


def _panel(panel: Panel) -> str:
    return (
        f'<figure class="panel"><figcaption><b>{escape(panel.title)}</b><br>{escape(panel.about)}</figcaption>'
        f"{panel.svg}</figure>"
    )


def _words(words: Sequence[tuple[str, bool]]) -> str:
    """The question, with the voting words marked."""
    return "".join(
        f"{word[: len(word) - len(word.lstrip())]}<mark>{escape(word.strip())}</mark>" if votes else escape(word)
        for word, votes in words
    )
