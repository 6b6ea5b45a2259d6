"""`duet ask FILE "question"`: the answer, how many visual tokens it took, and how long."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from duet.cli.output import say, say_json
from duet.cli.question import Counts, Setup, add_question_arguments, prepare

if TYPE_CHECKING:
    from duet.inference import Answer

SUMMARY = "answer a question about pictures and videos"
EXAMPLES = """examples:
  duet ask playground/data/mini/eval/gqa/data/images/n00000003.png "What color is the ring?"
  duet ask bus.jpg "What number does the bus have?" --model llava-hf/llava-1.5-7b-hf --compare
  duet ask bus.jpg "What is this?" --model checkpoints/llava-v1.5-7b --method visionzip --budget llava15_64
  duet ask bus.jpg "What is this?" --model checkpoints/llava-v1.5-7b \\
      --dominant 170 --contextual 35 --layers 16,24 --ratios 0.5,0
  duet ask left.jpg right.jpg "<image> or <image>: where is a dog?" --model Qwen/Qwen2.5-VL-3B-Instruct --average 128
  duet ask clip.mp4 "What is the man doing?" --model LanguageBind/Video-LLaVA-7B-hf --budget videollava_960
  duet ask scan.png clip.mp4 "Is this the same room?" --model Qwen/Qwen2.5-VL-7B-Instruct --frames 16

A video ends in .mp4, .m4v, .mkv, .webm, .avi, .mov, .mpg or .mpeg, or is an animated GIF. Token counts are measured in
the run. Times are those of the first run; with --compare both models run once before they are timed.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_question_arguments(parser)
    parser.add_argument("--compare", action="store_true", help="also answer with all visual tokens")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: Namespace) -> int:
    """Answer and print; returns the exit code.

    Raises:
        UserError: an unusable file, name or number.
    """
    setup = prepare(args)
    # after the cheap checks: this loads torch
    from duet.engine.attach import detach

    traced = _answer(args, setup, traced=True)
    assert traced.trace is not None
    counts = setup.counts(traced.trace)
    answers = [_result(setup.method, counts, _answer(args, setup) if args.compare else traced)]
    if args.compare:
        detach(setup.model)
        _answer(args, setup)
        full = counts.tokens[0]
        answers.append(_result("none", Counts([full], [], full), _answer(args, setup)))
    if args.json:
        say_json({"model": setup.path, "files": [str(path) for path in args.media], "question": args.question,
                  "budget": asdict(setup.budget), "answers": answers})  # fmt: skip
    else:
        titles = (setup.title, "none")
        say("\n\n".join(_text(title, result) for title, result in zip(titles, answers, strict=False)))
    return 0


def _answer(args: Namespace, setup: Setup, traced: bool = False) -> Answer:
    from duet.inference import answer

    options = {"max_new_tokens": args.max_new_tokens, "traced": traced}
    return answer(setup.model, setup.processor, setup.question, **options)


def _result(method: str, counts: Counts, answer: Answer) -> dict[str, Any]:
    return {
        "method": method,
        "answer": answer.text,
        "visual_tokens": counts.tokens,
        "boundaries": counts.boundaries,
        "average": counts.average,
        "generated": answer.generated,
        "prefill_ms": answer.prefill_ms,
        "decode_ms": answer.decode_ms,
    }


def _text(title: str, result: dict[str, Any]) -> str:
    counts = " -> ".join(map(str, result["visual_tokens"]))
    return (
        f"{result['answer']}\n"
        f"[{title}] visual tokens {counts}, average {result['average']:.1f}; "
        f"prefill {result['prefill_ms']:.1f} ms, decode {result['decode_ms']:.1f} ms ({result['generated']} tokens)"
    )
