"""`duet demo MODEL`: a web page that compares all visual tokens with several methods."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from duet.cli.compression import DEFAULT_SHARE
from duet.cli.model import add_model_arguments, load_model
from duet.cli.serve import names, port
from duet.cli.values import amount, positive
from duet.errors import UserError
from duet.extras import need
from duet.files import one_line
from duet.method_table import find_method
from duet.serve.limits import MEGA
from duet.shipped import default_model

if TYPE_CHECKING:
    from duet.demo.model import Demo

SUMMARY = "compare methods in the browser"
EXAMPLES = """examples:
  duet demo                                             # the small model, with examples; nothing is downloaded
  duet demo llava-hf/llava-1.5-7b-hf --methods duet,visionzip,pyramiddrop
  duet demo Qwen/Qwen2.5-VL-7B-Instruct --share 0.11 --port 9000
  DUET_DEMO_LOGIN=ada:... duet demo llava-hf/llava-1.5-7b-hf --host 0.0.0.0

docs/demo.md describes the page, and how to put it on a Space.
"""
#: Environment variable for `name:password`.
VARIABLE = "DUET_DEMO_LOGIN"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "path", nargs="?", metavar="MODEL", help="checkpoint folder or hub id (default: the small model)"
    )
    page = parser.add_argument_group("page")
    page.add_argument(
        "--methods",
        type=names,
        default=["duet", "visionzip"],
        metavar="LIST",
        help="methods chosen at first (default: duet,visionzip)",
    )
    page.add_argument(
        "--share", type=share, default=DEFAULT_SHARE, help="share of the visual tokens at first (default: 2/9)"
    )
    page.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)"
    )
    page.add_argument("--port", type=port, default=7860, help="0 takes any that is free (default: %(default)s)")
    page.add_argument("--login-file", type=Path, metavar="FILE", help=f"name:password (default: {VARIABLE})")
    caps = parser.add_argument_group("limits", "Anything above is refused.")
    for flag, default, what in (
        ("media-mib", 16, "MiB of a picture or video"),
        ("megapixels", 32, "megapixels of a picture, or of all sampled frames"),
        ("frames", 64, "frames sampled from a video"),
        ("new-tokens", 256, "tokens of an answer; longer ones are cut off"),
        ("queue", 16, "waiting visitors"),
        ("seconds", 120, "seconds for one question"),
    ):
        caps.add_argument(
            f"--max-{flag}", type=positive, default=default, metavar="N", help=f"{what} (default: {default})"
        )
    add_model_arguments(parser, named=False)


def share(text: str) -> float:
    """A share above 0 and up to 1."""
    number = amount(text)
    if not 0 < number <= 1:
        raise ArgumentTypeError(f"{text} is not a share: above 0, up to 1")
    return float(number)


def run(args: Namespace) -> int:
    """Show the page until a signal comes; returns the exit code.

    Raises:
        UserError: unusable arguments, if possible before the model is loaded.
    """
    need("duet demo", "demo", "gradio", "fastapi", "matplotlib")
    from duet.serve.server import bind

    login = read_login(args.login_file)
    if login is None and args.host not in _LOOPBACK:
        raise UserError(f"--host {args.host} is open to others: set {VARIABLE} or --login-file to name:password")
    for name in args.methods:
        find_method(name)
    bind(args.host, args.port).close()  # report a taken port before the model is loaded
    demo = make_demo(args)
    # after the cheap checks: this loads gradio
    from duet.demo.examples import small_world
    from duet.demo.page import build, launch_options

    page = build(demo, args.methods, args.share, small_world() if args.path is None else ())
    options = {**launch_options(demo), "server_name": args.host, "server_port": args.port or None, "auth": login}
    url = page.launch(**options, prevent_thread_lock=True)[1]
    sys.stderr.write(f"{demo.name} at {url}\n")
    page.block_thread()
    return 0


def make_demo(args: Namespace) -> Demo:
    """The model, tried once with all tokens and with each method.

    Raises:
        UserError: it cannot be loaded, or a method does not run on it.
    """
    from duet.demo.model import Demo, check_methods, title_of
    from duet.demo.uploads import LIMITS

    path = str(default_model()) if args.path is None else args.path
    limits = replace(
        LIMITS,
        medium=args.max_media_mib * MEGA,
        pixels=args.max_megapixels * 10**6,
        frames=args.max_frames,
        new_tokens=args.max_new_tokens,
        queue=args.max_queue,
        timeout=args.max_seconds,
    )
    demo = Demo(*load_model(args, path), title_of(path), limits)
    demo.warm_up(check_methods(demo, args.methods))
    return demo


def read_login(file: Path | None) -> tuple[str, str] | None:
    """Name and password from a file or the environment; None if there is neither.

    Raises:
        UserError: the file cannot be read, or is not a login.
    """
    source = VARIABLE if file is None else f"--login-file {file}"
    try:
        text = os.environ.get(VARIABLE, "") if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source}: cannot be read: {one_line(error)}") from None
    if file is None and not text.strip():
        return None
    name, colon, password = text.strip().partition(":")
    if not (name and colon and password) or "\n" in password:
        raise UserError(f"{source} is not a login: write one line, name:password")
    return name, password
