"""Generation settings of lmms-eval's tasks (`gen_kwargs`) as arguments of `generate`, and where an answer stops."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from duet.errors import UserError, suggest

#: Longest answer of a task that says nothing.
NEW_TOKENS = 1024
#: Handed to `generate` unchanged.
SAME = (
    "length_penalty",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_beams",
    "repetition_penalty",
    "top_k",
    "top_p",
    "typical_p",
)
#: Other names for the longest answer.
LONGEST = ("max_new_tokens", "max_gen_toks", "max_tokens")
KNOWN = (*SAME, *LONGEST, "do_sample", "temperature", "until")
#: Settings that act on sampling only; greedy decoding would warn about them.
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p")


@dataclass(frozen=True)
class Generation:
    """How to generate.

    Attributes:
        arguments: of `generate`.
        stops: the answer ends before the first of these texts.
    """

    arguments: dict[str, Any]
    stops: tuple[str, ...]

    def cut(self, text: str) -> str:
        """The answer up to the first stop text, without outer whitespace."""
        found = [place for place in (text.find(stop) for stop in self.stops) if place >= 0]
        return text[: min(found, default=len(text))].strip()


def read_generation(given: Mapping[str, Any], ignored: Collection[str] = ()) -> Generation:
    """Settings of a task.

    As in transformers, nothing is sampled with `do_sample: false`, whatever the temperature; a temperature of 0 means
    the same, and one above 0 samples unless `do_sample` says otherwise.

    Args:
        given: a task's `generation_kwargs`.
        ignored: names to go on without.

    Raises:
        UserError: a setting that has no counterpart here, or a value that makes no sense.
    """
    wanted = {name: value for name, value in given.items() if name not in ignored and value is not None}
    for name in wanted:
        if name not in KNOWN:
            raise UserError(
                f"generation_kwargs: {name} is not supported; {suggest(name, KNOWN)}; "
                f"to go on without it, add ignore={name} to --model_args"
            )
    lengths = {name: wanted[name] for name in LONGEST if name in wanted}
    if len(set(lengths.values())) > 1:
        raise UserError(f"generation_kwargs: {lengths} contradict each other")
    longest = next(iter(lengths.values()), NEW_TOKENS)
    if not isinstance(longest, int) or longest < 1:
        raise UserError(f"generation_kwargs: {next(iter(lengths))} is {longest!r}; it must be a number of tokens")
    temperature = wanted.get("temperature", 0)
    samples = bool(wanted.get("do_sample", temperature > 0)) and temperature != 0
    if wanted.get("do_sample") and "temperature" not in wanted:
        samples, temperature = True, 1.0
    arguments: dict[str, Any] = {"num_beams": 1, **{name: wanted[name] for name in SAME if name in wanted}}
    if samples:
        arguments |= {"temperature": float(temperature), **{name: arguments.get(name) for name in SAMPLING[1:]}}
    else:
        arguments |= dict.fromkeys(SAMPLING)
    return Generation({"max_new_tokens": longest, "do_sample": samples, **arguments}, _stops(wanted.get("until")))


def _stops(until: Any) -> tuple[str, ...]:
    texts = [until] if isinstance(until, str) else list(until or ())
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"generation_kwargs: until is {until!r}; give a text or a list of texts")
    return tuple(text for text in texts if text)
