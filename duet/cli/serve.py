"""`duet serve MODEL`: an OpenAI-compatible server, safe by default."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.cli.compression import add_compression_arguments, check_budget, choose_method, find_budget, switches_of
from duet.cli.model import add_model_arguments, load_model
from duet.cli.values import positive, whole
from duet.errors import UserError
from duet.extras import need
from duet.registry import DEFAULT
from duet.serve.keys import VARIABLE, new_key, read_keys
from duet.serve.limits import MEGA, Limits
from duet.shipped import default_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from duet.budget import Budget
    from duet.serve.model import Served, Setting

SUMMARY = "serve a model over HTTP with OpenAI's API"
EXAMPLES = """examples:
  duet serve                                            # the small model, a key for this run is printed
  DUET_API_KEY=... duet serve llava-hf/llava-1.5-7b-hf --budget llava15_128
  duet serve Qwen/Qwen2.5-VL-7B-Instruct --budget qwen2_5_vl_320_safe --port 9000 --max-batch 16
  duet serve llava-hf/llava-1.5-7b-hf --budget llava15_192 --allow-budgets llava15_64,128,none
  duet serve llava-hf/llava-1.5-7b-hf --allow-domains images.example.com,upload.example.org

A client chooses the budget of a request with extra_body={"duet": {"budget": "llava15_64"}}; docs/serve.md has examples
for curl and the openai package, the metrics, and what is refused.
"""
#: Name of the allowed budget that keeps all visual tokens.
ALL = "none"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def names(text: str) -> list[str]:
    """Names separated by commas, at least one."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise ArgumentTypeError(f"{text!r} names nothing; leave the option out")
    return found


def domains(text: str) -> list[str]:
    """Host names without scheme, port and path: no address would ever match anything else."""
    found = names(text)
    for name in found:
        if set(name) & set("/:@?# "):
            raise ArgumentTypeError(f"{name!r} is no domain; give the host's name alone (example.org)")
    return found


def seconds(text: str) -> float:
    """A time above 0."""
    try:
        value = float(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 < value < 1e6:
        raise ArgumentTypeError(f"{text} is not a time above 0")
    return value


def port(text: str) -> int:
    """0 to 65535."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port: 0 (any that is free) to 65535")
    return int(text)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    limits = Limits()
    parser.add_argument(
        "path", nargs="?", metavar="MODEL", help="checkpoint folder or hub id (default: the small model)"
    )
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)"
    )
    server.add_argument("--port", type=port, default=8000, help="0 takes any that is free (default: %(default)s)")
    server.add_argument("--name", help="the model's name for clients (default: the hub id, or the folder's name)")
    server.add_argument("--api-key-file", type=Path, metavar="FILE", help=f"keys, one per line (default: {VARIABLE})")
    server.add_argument(
        "--allow-budgets", type=names, default=[], metavar="LIST",
        help=f"budgets that requests may choose: names, averages, {ALL} for all tokens",
    )  # fmt: skip
    server.add_argument(
        "--allow-domains", type=domains, default=[], metavar="LIST",
        help="hosts from which pictures and videos may be fetched by https (default: none, only data URLs)",
    )  # fmt: skip
    server.add_argument(
        "--grace", type=seconds, default=30, help="seconds for running requests at shutdown (default: 30)"
    )
    batching = parser.add_argument_group("batches")
    batching.add_argument("--max-batch", type=positive, default=8, help="most requests in a batch (default: 8)")
    batching.add_argument(
        "--max-batch-tokens", type=positive, default=32768, help="most tokens in a batch (default: 32768)"
    )
    batching.add_argument(
        "--window-ms", type=positive, default=10, help="milliseconds to wait for more requests (default: 10)"
    )
    batching.add_argument(
        "--keep-mib", type=whole, default=1024, metavar="N",
        help="MiB of pictures that were read, kept for further questions about them (default: 1024; 0 keeps none)",
    )  # fmt: skip
    caps = parser.add_argument_group("limits of a request", "Anything above is refused.")
    for flag, default, what in (
        ("body-mib", limits.body // MEGA, "MiB of the body"),
        ("media-mib", limits.medium // MEGA, "MiB of one picture or video"),
        ("media", limits.media, "pictures and videos"),
        ("megapixels", limits.pixels // 10**6, "megapixels of all pictures and sampled frames together"),
        ("side", limits.side, "pixels along a side of a picture or frame"),
        ("frames", limits.frames, "frames sampled from a video"),
        ("video-frames", limits.video, "frames in a video file"),
        ("text", limits.text, "characters"),
        ("new-tokens", limits.new_tokens, "tokens of an answer, also the default"),
        ("queue", limits.queue, "waiting requests; further ones get a 503"),
    ):
        caps.add_argument(
            f"--max-{flag}", type=positive, default=default, metavar="N", help=f"{what} (default: {default})"
        )
    caps.add_argument(
        "--max-wait", type=seconds, default=limits.wait, metavar="S", help="seconds in the queue (default: 60)"
    )
    caps.add_argument(
        "--timeout",
        type=seconds,
        default=limits.timeout,
        metavar="S",
        help="seconds for a whole request (default: 300)",
    )
    add_model_arguments(parser, named=False)
    add_compression_arguments(parser)


def run(args: Namespace) -> int:
    """Serve until a signal comes; returns the exit code.

    Raises:
        UserError: unusable arguments, if possible before the model is loaded.
    """
    from duet.method_table import find_method

    need("duet serve", "serve", "fastapi", "uvicorn", "prometheus_client")
    choose_method(args, str(default_model()) if args.path is None else args.path)
    check_budget(args, find_method(args.method))
    keys = read_keys(args.api_key_file)
    if not keys and args.host not in _LOOPBACK:
        raise UserError(
            f"--host {args.host} is open to others: set {VARIABLE} or --api-key-file (openssl rand -hex 32)"
        )
    own = None if keys else new_key()
    from duet.serve.server import bind, serve

    with bind(args.host, args.port) as sock:
        path = args.path or str(default_model())
        setup = _setup(args, path, keys or [str(own)])
        serve(setup, sock, own)
    return 0


def _setup(args: Namespace, path: str, keys: list[str]) -> Any:
    from duet.serve.app import Setup
    from duet.serve.gathering import Batching
    from duet.serve.keys import Keys

    limits = make_limits(args)
    return Setup(
        served=load(args, path),
        name=args.name or (Path(path).resolve().name if Path(path).is_dir() else path),
        keys=Keys(keys),
        limits=limits,
        batching=Batching(args.max_batch, args.max_batch_tokens, args.window_ms / 1e3, limits.waiting),
        domains=tuple(args.allow_domains),
        grace=args.grace,
    )


def make_limits(args: Namespace) -> Limits:
    """The limits of the options."""
    return Limits(
        body=args.max_body_mib * MEGA,
        medium=args.max_media_mib * MEGA,
        media=args.max_media,
        pixels=args.max_megapixels * 10**6,
        side=args.max_side,
        frames=args.max_frames,
        video=args.max_video_frames,
        text=args.max_text,
        new_tokens=args.max_new_tokens,
        queue=args.max_queue,
        wait=args.max_wait,
        timeout=args.timeout,
    )


def load(args: Namespace, path: str) -> Served:
    """Load the model, and answer a question with every budget, so an unusable one fails at start-up.

    Raises:
        UserError: a budget does not fit the model or the method.
    """
    from duet.serve.model import Served

    model, processor = load_model(args, path)
    switches = switches_of(args)
    served = Served(model, processor, settings(args, model.config), switches, args.keep_mib * MEGA)
    served.warm_up()
    return served


def settings(args: Namespace, config: Any) -> dict[str, Setting]:
    """The default budget and the allowed ones, by name; solved for each prompt, as in `duet ask`.

    Raises:
        UserError: an unknown name.
    """
    from duet.budget import Backbone, find_row, resolve_budget
    from duet.method_table import find_method
    from duet.serve.model import Setting

    method = find_method(args.method or DEFAULT)
    backbone = Backbone.from_config(config)

    def solver(name: str) -> Callable[[tuple[int, ...]], Budget]:
        given = float(name) if _is_number(name) else name

        def solve(sizes: tuple[int, ...]) -> Budget:
            prompt = backbone.with_units(sizes)
            if name == own:
                return find_budget(args, method, prompt)
            return resolve_budget(given, method.schedule, prompt, method=method.name, ratio_base=args.ratio_base)

        return lru_cache(1024)(solve)

    own = args.budget or (f"{args.average:g}" if args.average is not None else "default" if method.stages else ALL)
    found = {}
    for name in dict.fromkeys((own, *args.allow_budgets)):
        if name != ALL and not method.stages:
            raise UserError(f"--allow-budgets {name}: method {args.method} keeps all tokens")
        if name not in (own, ALL) and not _is_number(name):
            find_row(name)
        found[name] = Setting("none") if name == ALL else Setting(method.name, solver(name))
    return found


def _is_number(name: str) -> bool:
    return name.isascii() and name.replace(".", "", 1).isdecimal()
