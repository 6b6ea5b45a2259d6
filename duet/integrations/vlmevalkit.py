"""VLMEvalKit's benchmarks on a model behind `duet serve` or vLLM: adds the server to its models, runs its `run.py`.

    duet serve llava-hf/llava-1.5-7b-hf --method duet --budget llava15_128
    python -m duet.integrations.vlmevalkit http://127.0.0.1:8000 --data MMBench_DEV_EN --api-nproc 8

All further arguments are VLMEvalKit's own. The key is DUET_API_KEY; DUET_NEW_TOKENS is the longest answer (512). From a
checkout of VLMEvalKit, start it in that folder. The model's name in results is `duet`.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from functools import partial
from importlib.util import find_spec
from typing import Any
from urllib.request import Request, urlopen


def server_settings(url: str) -> dict[str, Any]:
    """Arguments of VLMEvalKit's `OpenAIWrapper` for a server; asks it for the name of its model."""
    key = os.environ.get("DUET_API_KEY", "")
    request = Request(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"} if key else {})
    with urlopen(request, timeout=60) as answer:
        name = json.load(answer)["data"][0]["id"]
    longest = int(os.environ.get("DUET_NEW_TOKENS", 512))
    return {
        "model": name,
        "api_base": f"{url}/v1/chat/completions",
        "key": key,
        "max_tokens": longest,
        "img_detail": "high",
    }


def main(words: list[str]) -> None:
    """`URL --data NAME ...`."""
    from vlmeval.api import OpenAIWrapper
    from vlmeval.config import supported_VLM

    class Server(OpenAIWrapper):
        def generate_inner(self, inputs: Any, **options: Any) -> Any:
            # it would be sent as a parameter of the request, which a server refuses
            options.pop("dataset", None)
            return super().generate_inner(inputs, **options)

    supported_VLM["duet"] = partial(Server, **server_settings(words[0].rstrip("/")))
    sys.argv = ["run.py", "--model", "duet", *words[1:]]
    if find_spec("vlmeval.run"):
        runpy.run_module("vlmeval.run", run_name="__main__")
    else:
        runpy.run_path("run.py", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
