"""`duet ask IMAGE "question"`: the answer, how many visual tokens it took, and how long."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from duet.cli.options import Setup, add_question_arguments, prepare
from duet.cli.output import say, say_json

if TYPE_CHECKING:
    from duet.inference import Answer

SUMMARY = "answer a question about one or several pictures"
EXAMPLES = """examples:
  duet ask playground/data/mini/eval/gqa/data/images/n00000003.png "What color is the ring?"
  duet ask bus.jpg "What number does the bus have?" --model llava-hf/llava-1.5-7b-hf --compare
  duet ask bus.jpg "What is this?" --model checkpoints/llava-v1.5-7b --method visionzip --budget llava15_64
  duet ask bus.jpg "What is this?" --dominant 170 --contextual 35 --layers 16,24 --ratios 0.5,0
  duet ask left.jpg right.jpg "<image> or <image>: where is a dog?" --average 128 --json

Times are those of a first run; with --compare both sides run once before they are timed.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add_question_arguments(parser)
    parser.add_argument("--compare", action="store_true", help="answer with all visual tokens, too")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: Namespace) -> int:
    """Answer and print; returns the exit code.

    Raises:
        UserError: a file, name or number that does not fit.
    """
    setup = prepare(args)
    # behind the cheap checks: these load torch
    from duet.data.pictures import open_picture
    from duet.engine.attach import detach

    pictures = [open_picture(path) for path in args.images]
    results = [_result(args, setup, pictures, setup.method, setup.counts, setup.boundaries)]
    if args.compare:
        detach(setup.model)
        results.append(_result(args, setup, pictures, "none", setup.counts[:1], []))
    if args.json:
        say_json({"model": setup.path, "images": [str(path) for path in args.images], "question": args.question,
                  "budget": asdict(setup.budget), "answers": results})  # fmt: skip
    else:
        say("\n\n".join(_text(result) for result in results))
    return 0


def _result(
    args: Namespace, setup: Setup, pictures: list[Any], method: str, counts: list[int], boundaries: list[int]
) -> dict[str, Any]:
    from duet.budget import Budget
    from duet.inference import ask

    if args.compare:
        ask(setup.model, setup.processor, pictures, args.question, max_new_tokens=2)
    answer: Answer = ask(setup.model, setup.processor, pictures, args.question, max_new_tokens=args.max_new_tokens)
    budget = setup.budget if boundaries else Budget()
    return {
        "method": method,
        "answer": answer.text,
        "visual_tokens": counts,
        "boundaries": boundaries,
        "average": budget.average(setup.backbone),
        "generated": answer.generated,
        "prefill_ms": answer.prefill_ms,
        "decode_ms": answer.decode_ms,
    }


def _text(result: dict[str, Any]) -> str:
    counts = " -> ".join(map(str, result["visual_tokens"]))
    return (
        f"{result['answer']}\n"
        f"[{result['method']}] visual tokens {counts}, average {result['average']:.1f}; "
        f"prefill {result['prefill_ms']:.1f} ms, decode {result['decode_ms']:.1f} ms ({result['generated']} tokens)"
    )
