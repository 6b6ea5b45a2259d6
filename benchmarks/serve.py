"""Measure a server: requests per second and time to the first token for some clients, with and without DUET.

    python benchmarks/serve.py                                  # the small model of playground/mini
    python benchmarks/serve.py --shape llava15-cpu --average 128
    python benchmarks/serve.py --shape llava15-7b --device cuda --dtype bfloat16 --clients 1,4,16,64

The server runs in a process of its own and has both budgets, `none` and `duet`, which take turns. Every client asks
its next question when it has the answer to the last one: a picture, a short question, an answer of a fixed number of
tokens, sampled with a seed and streamed. Times are those of the client. Writes JSON with all samples, and a table.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import multiprocessing
import os
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

# A script's own folder is on the path, the root of the repository is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import DTYPES, RESULTS, counts
from benchmarks.families import PICTURE, build_model
from benchmarks.machine import describe_machine
from benchmarks.shapes import SHAPES
from duet.errors import UserError
from playground.mini.draw import draw
from playground.mini.world import rng, sample_scene

if TYPE_CHECKING:
    from collections.abc import Sequence

MINI = Path(__file__).parents[1] / "playground" / "mini" / "checkpoints" / "llava-mini"
BUDGETS = ("none", "duet")
#: Load average of a machine that does nothing else.
IDLE = 0.5
#: Seconds for a request.
PATIENCE = 3600.0
NAME, KEY = "model", "benchmark"
QUESTION = "What color is the ring in this image, and what is written at the bottom of it?"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print the table; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.shape != "mini" and SHAPES[options.shape].family != "llava15":
        parser.error("--shape: choose mini or one of LLaVA-1.5")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_server, args=(options, theirs), daemon=True)
    process.start()
    try:
        url = ours.recv()
        if not isinstance(url, str):
            raise UserError(f"the server did not start: {url}")
        result = measure(url, options, process.pid)
    except UserError as error:
        parser.error(str(error))
    finally:
        process.terminate()
        process.join()
    output = options.output or RESULTS / f"serve-{options.shape}-{options.dtype}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    output.with_suffix(".md").write_text(render(result), encoding="utf-8")
    sys.stdout.write(render(result))
    return 0


def run_server(options: Namespace, pipe: Any) -> None:
    """In a process of its own: load or build the model, say where it is served, serve."""
    from duet.serve.app import Setup
    from duet.serve.gathering import Batching
    from duet.serve.keys import Keys
    from duet.serve.limits import Limits
    from duet.serve.server import bind, make_server

    torch.set_num_threads(options.threads)
    try:
        served = make_served(options)
    except Exception as error:
        pipe.send(error)
        raise
    with bind("127.0.0.1", 0) as sock:
        batching = Batching(options.max_batch, window=options.window_ms / 1e3)
        # a busy machine is measured, not told to come again
        limits = Limits(wait=PATIENCE, timeout=PATIENCE)
        server = make_server(Setup(served, NAME, Keys([KEY]), limits, batching))
        pipe.send(f"http://127.0.0.1:{sock.getsockname()[1]}/v1")
        server.run(sockets=[sock])


def make_served(options: Namespace) -> Any:
    """The model with both budgets, tried once."""
    import duet
    from duet.budget import Backbone, Budget
    from duet.serve.model import Served, Setting

    if options.shape == "mini":
        model, processor = duet.load(str(MINI), device=options.device, dtype=options.dtype)
    else:
        model, processor = build_shape(options)
    # answers of the wanted length, whatever the weights say
    model.generation_config.eos_token_id = None
    backbone = Backbone.from_config(model.config)
    budget = Budget.solve(options.average or backbone.full * 2 / 9, backbone)
    served = Served(model, processor, {"none": Setting("none"), "duet": Setting("duet", lambda sizes: budget)})
    served.warm_up()
    return served


def build_shape(options: Namespace) -> tuple[Any, Any]:
    """A model with random weights and the vocabulary of the small world, and its processor."""
    from dataclasses import replace

    from transformers import AutoTokenizer, CLIPImageProcessorPil, LlavaProcessor

    tokenizer = AutoTokenizer.from_pretrained(MINI)
    shape = replace(SHAPES[options.shape], vocabulary=len(tokenizer))
    model = build_model(shape, torch.device(options.device), DTYPES[options.dtype])
    image = tokenizer.convert_tokens_to_ids("<image>")
    model.config.image_token_id = image
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    side = {"height": PICTURE, "width": PICTURE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": PICTURE}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=model.config.vision_config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return model, processor


def measure(url: str, options: Namespace, pid: int | None) -> dict[str, Any]:
    """All numbers of a server that runs as a process of this number, with the options and the machine."""
    machine = describe_machine(torch.device(options.device))
    samples: dict[tuple[str, int], list[dict[str, Any]]] = {}
    seconds: dict[tuple[str, int], list[tuple[float, float | None]]] = {}
    for turn in range(options.rounds + 1):
        for clients in options.clients:
            for budget in BUDGETS:
                count = max(options.requests, options.per_client * clients) if turn else 1
                begin, spent = time.perf_counter(), cpu_seconds(pid)
                found = asyncio.run(ask(url, budget, clients, count, options.tokens))
                if turn:  # the first turn warms up
                    cpu = None if spent is None else (cpu_seconds(pid) or 0) - spent
                    seconds.setdefault((budget, clients), []).append((time.perf_counter() - begin, cpu))
                    samples.setdefault((budget, clients), []).extend(found)
    rows = [summarize(*key, found, seconds[key]) for key, found in samples.items()]
    return {
        "options": {name: value for name, value in vars(options).items() if name != "output"},
        "machine": {**machine, "threads": options.threads},
        "rows": rows,
        "load_average_after": [round(load, 2) for load in os.getloadavg()],
    }


async def ask(url: str, budget: str, clients: int, count: int, tokens: int) -> list[dict[str, Any]]:
    """`count` questions, `clients` at a time; of each its times and usage."""
    from openai import AsyncOpenAI

    todo = iter(range(count))
    found: list[dict[str, Any]] = []
    async with AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=PATIENCE) as client:

        async def one_client() -> None:
            for number in todo:
                said = [{"role": "user", "content": parts(number)}]
                begin = time.perf_counter()
                stream = await client.chat.completions.create(
                    model=NAME,
                    messages=said,
                    max_tokens=tokens,
                    temperature=1,
                    seed=number,
                    stream=True,
                    stream_options={"include_usage": True},
                    extra_body={"duet": {"budget": budget}},
                )
                times, usage = [], None
                async for chunk in stream:
                    times.append(1e3 * (time.perf_counter() - begin))
                    usage = chunk.usage or usage
                used = {"tokens": usage.completion_tokens, **usage.duet}
                found.append({"first_ms": times[0], "whole_ms": times[-1], **used})

        await asyncio.gather(*(one_client() for _ in range(clients)))
    return found


@cache
def parts(number: int) -> list[dict[str, Any]]:
    """A picture of the small world and the question."""
    content = io.BytesIO()
    Image.fromarray(draw(sample_scene(rng(0, "serve", number)))).resize((PICTURE, PICTURE)).save(content, "JPEG")
    url = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]


def cpu_seconds(pid: int | None) -> float | None:
    """Time that the threads of a process have had on a CPU; None where the system does not say so (it is Linux's)."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return None
    user, system = stat.read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def summarize(
    budget: str, clients: int, found: list[dict[str, Any]], turns: list[tuple[float, float | None]]
) -> dict[str, Any]:
    """One row of the table; of every turn the seconds, and those of the server's CPU."""
    first, whole = (sorted(sample[name] for sample in found) for name in ("first_ms", "whole_ms"))
    seconds, spent = [turn[0] for turn in turns], [turn[1] for turn in turns if turn[1] is not None]
    return {
        "budget": budget,
        "clients": clients,
        "average": found[0]["average"],
        "visual_tokens": found[0]["visual_tokens"],
        "requests": len(found),
        "requests_per_s": len(found) / sum(seconds),
        "cpu_ms": 1e3 * sum(spent) / len(found) if spent else None,
        "tokens_per_s": sum(sample["tokens"] for sample in found) / sum(seconds),
        "first_ms": median(first),
        "first_p95_ms": first[min(int(0.95 * len(first)), len(first) - 1)],
        "whole_ms": median(whole),
        "samples": [{"first_ms": s["first_ms"], "whole_ms": s["whole_ms"]} for s in found],
        "seconds": seconds,
        "cpu_seconds": spent,
    }


def render(result: dict[str, Any]) -> str:
    """The table of a result, with what it was measured on."""
    machine, options, rows = result["machine"], result["options"], result["rows"]
    device = machine.get("gpu", f"{machine['cpu']}, {machine['threads']} thread(s) of {machine['cores']} cores")
    base = {row["clients"]: row for row in rows if row["budget"] == "none"}
    shared = ", shared with other programs" if machine["load_average"][0] > IDLE else ""
    lines = [
        f"# A server of {options['shape']} on {options['device']}, {options['dtype']}",
        "",
        f"{device}{shared}; torch {machine['torch']}, transformers {machine['transformers']}; "
        f"commit {machine['commit'][:12]}{' with uncommitted changes' if machine['uncommitted_changes'] else ''}; "
        f"{options['rounds']} rounds after one to warm up; answers of {options['tokens']} tokens; batches of up to "
        f"{options['max_batch']}, window {options['window_ms']} ms; load average {machine['load_average'][0]} before, "
        f"{result['load_average_after'][0]} after. "
        "Clients and server share the machine. CPU ms: of the server for a request; other programs don't touch it.",
        "",
        "| budget | visual tokens per layer | clients | requests | requests/s | gain | first token ms (p95) | gain | "
        "whole answer ms | CPU ms | gain |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        full = base[row["clients"]]
        cpu = f"{row['cpu_ms']:.0f} | {full['cpu_ms'] / row['cpu_ms']:.2f}x" if row["cpu_ms"] else "- | -"
        cells = [
            row["budget"],
            f"{row['average']:g} of {row['visual_tokens']}",
            str(row["clients"]),
            str(row["requests"]),
            f"{row['requests_per_s']:.2f}",
            f"{row['requests_per_s'] / full['requests_per_s']:.2f}x",
            f"{row['first_ms']:.0f} ({row['first_p95_ms']:.0f})",
            f"{full['first_ms'] / row['first_ms']:.2f}x",
            f"{row['whole_ms']:.0f}",
            cpu,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("mini", *SHAPES), default="mini", help="model (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: ROCm too (%(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights (%(default)s)")
    parser.add_argument("--average", type=float, default=0.0, help="visual tokens per layer of DUET (two ninths)")
    parser.add_argument("--clients", type=counts, default=[1, 4, 16], help="at a time, comma-separated (1,4,16)")
    parser.add_argument("--requests", type=int, default=16, help="of a turn, at least (%(default)s)")
    parser.add_argument("--per-client", type=int, default=2, help="requests of each client, at least (%(default)s)")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="that are measured (%(default)s)")
    parser.add_argument("--max-batch", type=int, default=8, help="as of duet serve (%(default)s)")
    parser.add_argument("--window-ms", type=int, default=10, help="as of duet serve (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the model on a CPU (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file (benchmarks/results/serve-SHAPE-DTYPE.json)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
