"""`duet judge`: GPT-assisted accuracy of a video benchmark or of own questions, from any OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.cli.output import say
from duet.cli.score import PLACE, place_of, write
from duet.cli.values import at_least, positive, whole
from duet.errors import UserError
from duet.extras import need
from duet.files import check_output_file, check_output_folder

if TYPE_CHECKING:
    from duet.eval.judge.cache import ReplyCache
    from duet.eval.judge.cases import Cases
    from duet.eval.judge.result import JudgeScore
    from duet.eval.judge.run import Outcome

SUMMARY = "have a chat model judge the answers to a video benchmark or to questions of your own"
EXAMPLES = """examples:
  duet judge msvd --data ./playground/data/eval --predictions merge.jsonl --judge-model gpt-3.5-turbo --dry-run
  duet judge msvd --data ./playground/data/eval --predictions merge.jsonl \\
      --judge-url https://api.openai.com/v1 --judge-model gpt-3.5-turbo --json msvd.json
  duet judge tgif --data ./playground/data/eval --predictions merge.jsonl \\
      --judge-url http://localhost:8000/v1 --judge-model Qwen/Qwen2.5-7B-Instruct --temperature 0
  duet judge mine.jsonl --predictions outputs/mine/mine/predictions.jsonl --judge-model gpt-3.5-turbo --dry-run

The key is read from DUET_JUDGE_KEY, else OPENAI_API_KEY; a local server needs none. Replies are kept in --cache, by
question, answer, prediction, model, prompt and temperature: repeating the command only asks for what is missing.

exit codes: 0 every question judged, 3 some are not (missing, unreadable, failed, left out), 2 nothing judged or
unusable input"""
COMPLETE, PARTIAL = 0, 3


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("task", metavar="TASK", help="tgif, msvd, msrvtt or a question file (.jsonl)")
    add("--data", type=Path, metavar="DIR", help=PLACE)
    origin = "answers of Video-LLaVA (merge.jsonl) or samples of lmms-eval"
    add("--predictions", required=True, type=Path, metavar="FILE", help=origin)
    add("--judge-url", metavar="URL", help="OpenAI-compatible URL, usually ending in /v1")
    add("--judge-model", required=True, metavar="NAME", help="model to ask there")
    warmth = "send this temperature (default: none, like the official script)"
    add("--temperature", type=at_least(0), metavar="T", help=warmth)
    add("--concurrency", type=positive, default=8, metavar="N", help="calls at the same time (%(default)s)")
    again = "further attempts of a call that fails (%(default)s)"
    add("--retries", type=whole, default=5, metavar="N", help=again)
    unread = "further calls for an unreadable reply, over all runs (%(default)s)"
    add("--reasks", type=whole, default=3, metavar="N", help=unread)
    patience = "seconds to wait for an answer (%(default)g)"
    add("--timeout", type=at_least(0.001), default=60.0, metavar="S", help=patience)
    kept = "replies, one JSON line each (default: next to the predictions, ending in .judge.jsonl)"
    add("--cache", type=Path, metavar="FILE", help=kept)
    add("--limit", type=positive, metavar="N", help="judge at most N questions, drawn by --seed")
    add(
        "--seed",
        type=whole,
        default=0,
        metavar="S",
        help="another seed draws others for --limit (%(default)s)",
    )
    add("--dry-run", action="store_true", help="print calls, tokens and price; send nothing")
    add("--price-in", type=at_least(0), metavar="USD", help="per million prompt tokens, for --dry-run")
    add("--price-out", type=at_least(0), metavar="USD", help="per million reply tokens, for --dry-run")
    add("--json", type=Path, metavar="OUT", help="write the result with full precision")
    add("--per-row", type=Path, metavar="FILE", help="write reply and verdict of every row")


def run(args: Namespace) -> int:
    """Judge, print, write; returns the exit code.

    Raises:
        UserError: unusable input, or no verdict from the endpoint.
    """
    from duet.eval.judge.cache import ReplyCache
    from duet.eval.judge.cases import read_cases
    from duet.eval.judge.result import sum_up

    size = (args.limit, args.seed)
    cases = read_cases(args.task, place_of(args), args.predictions, args.judge_model, args.temperature, *size)
    cache = ReplyCache(args.cache or args.predictions.with_suffix(".judge.jsonl"))
    if args.dry_run:
        return _dry_run(args, cases, cache)
    need("duet judge", "judge", "httpx2")
    if not args.judge_url:
        raise UserError("--judge-url is missing: the judge's address, e.g. https://api.openai.com/v1")
    for out in (args.json, args.per_row):
        if out is not None:
            check_output_file(check_output_folder(out.parent) / out.name)
    outcomes, facts = _ask(args, cases, cache)
    score = sum_up(cases, outcomes)
    if not score.counts["judged"]:
        reason = facts["stopped"] or next((row.reason for row in outcomes if row.reason), "no reply could be read")
        raise UserError(f"not one row was judged: {reason}")
    _save(args, score, outcomes, facts)
    say("\n".join(_text(score, facts)))
    return COMPLETE if score.complete else PARTIAL


def _ask(args: Namespace, cases: Cases, cache: ReplyCache) -> tuple[list[Outcome], dict[str, Any]]:
    """One outcome per row, and facts about the judge for the result."""
    from duet.eval.judge.address import read_key
    from duet.eval.judge.client import ChatClient
    from duet.eval.judge.protocol import PROMPT_SHA256
    from duet.eval.judge.run import judge

    # the root logger stays at WARNING: at INFO the HTTP library would write a line per call
    logging.basicConfig(format="%(message)s")
    logging.getLogger("duet").setLevel(logging.INFO)
    with cache, ChatClient(args.judge_url, read_key(), args.concurrency, args.retries, args.timeout) as client:
        outcomes, stopped = judge(cases.rows, client, cache, args.reasks)
    about = {"model": args.judge_model, "url": client.url, "prompt_sha256": PROMPT_SHA256}
    settings = {
        "temperature": args.temperature,
        "limit": args.limit,
        "seed": args.seed,
        "reasks": args.reasks,
        "cache": str(cache.path),
    }
    usage = {name: getattr(client, name) for name in ("calls", "retried", "prompt_tokens", "completion_tokens")}
    return outcomes, {"judge": about | settings, "usage": usage, "stopped": stopped}


def _dry_run(args: Namespace, cases: Cases, cache: ReplyCache) -> int:
    """Print the planned calls."""
    from duet.eval.judge.plan import REPLY_TOKENS, make_plan
    from duet.eval.judge.run import open_cases

    plan = make_plan(case.request for case in open_cases(cases.rows, cache, args.reasks).values() if case.request)
    asked = sum(case.request is not None for case in cases.rows)
    facts: dict[str, Any] = {"task": cases.task, "dry_run": True, "rows": len(cases.rows) + cases.skipped}
    facts |= {"missing": len(cases.rows) - asked, "skipped": cases.skipped, "cached": asked - plan.calls}
    facts |= {"calls": plan.calls, "prompt_tokens": plan.prompt_tokens, "completion_tokens": plan.completion_tokens}
    price = None
    if args.price_in is not None and args.price_out is not None:
        price = facts["cost_usd"] = plan.cost(args.price_in, args.price_out)
    say(f"{cases.task}: {plan.calls} calls to {args.judge_model} (dry run, nothing is sent)")
    rows = ("rows", "missing", "skipped", "cached")
    say("  " + ", ".join(f"{name} {facts[name]}" for name in rows) + " (cached: in the cache, or equal to another row)")
    say(f"  about {plan.prompt_tokens} prompt tokens (4 bytes a token), {plan.completion_tokens} reply tokens "
        f"({REPLY_TOKENS} a reply); re-asks and retries not counted")  # fmt: skip
    say("  price: give --price-in and --price-out" if price is None else f"  about {price:.2f} USD")
    if args.json:
        write(args.json, json.dumps(facts, indent=2) + "\n")
    return COMPLETE


def _save(args: Namespace, score: JudgeScore, outcomes: list[Outcome], facts: dict[str, Any]) -> None:
    from duet.eval.judge.result import as_json, row_facts

    if args.json:
        write(args.json, json.dumps(as_json(score) | facts, indent=2) + "\n")
    if args.per_row:
        write(args.per_row, "".join(json.dumps(row_facts(outcome)) + "\n" for outcome in outcomes))


def _text(score: JudgeScore, facts: dict[str, Any]) -> Iterator[str]:
    """The result in the form that is printed."""
    from duet.eval.judge.result import notes

    about, usage = facts["judge"], facts["usage"]
    mark = "" if score.complete else "  PARTIAL"
    yield f"{score.task} {score.headline} {score.metrics[score.headline]:.2f} by {about['model']}{mark}"
    yield from (f"  {name:<18} {value:10.4f}" for name, value in score.metrics.items())
    yield "  " + ", ".join(f"{name} {number}" for name, number in (score.counts | score.tallies).items())
    yield "  " + ", ".join(f"{name} {number}" for name, number in usage.items())
    yield f"  judge {about['url']}, prompt {about['prompt_sha256'][:12]}, replies in {about['cache']}"
    if facts["stopped"]:
        yield f"  given up: {facts['stopped']}; the same command continues from here"
    yield from (f"  note: {note}" for note in notes(score))
