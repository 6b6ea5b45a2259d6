"""A vLLM server with the plug-in on a local port, and the same prompts through `duet`."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

NEW = 8
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_WORKER_MULTIPROC_METHOD": "fork",
    "VLLM_NO_USAGE_STATS": "1",
}
ARGUMENTS = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "8"]


class Zygote:
    """The process that forks servers, see `zygote.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "zygote.log").open("w"),
            text=True,
        )

    def ask(self, **request: Any) -> str:
        """Send a request, return the answer's line."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.strip().isdigit() or line.strip() == "stopped":
                return line.strip()
        raise RuntimeError((self.folder / "zygote.log").read_text()[-3000:])

    @contextmanager
    def server(self, model: Path, environment: dict[str, str], *arguments: str) -> Iterator[Server]:
        """A running server; its log is raised if it ends."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = self.folder / f"server-{port}.log"
        given = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port), *ARGUMENTS, *arguments]
        child = int(self.ask(environment=environment, arguments=given, log=str(log)))
        try:
            server = Server(f"http://127.0.0.1:{port}", str(model))
            server.wait(child, log)
            yield server
        finally:
            self.ask(stop=child)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Server:
    """Asks a server over HTTP."""

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url, model

    def wait(self, child: int, log: Path, seconds: float = 600) -> None:
        """Wait until it answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                state = Path(f"/proc/{child}/stat")
                if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                    break
                time.sleep(0.2)
        raise RuntimeError(log.read_text()[-40_000:])

    def tokens(self, pictures: list[Image.Image], question: str) -> tuple[list[int], list[int]]:
        """Prompt and new tokens of a question, greedily."""
        parts = [{"type": "image_url", "image_url": {"url": _as_url(picture)}} for picture in pictures]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}],
            "temperature": 0,
            "max_tokens": NEW,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from error
        return found["prompt_token_ids"], found["choices"][0]["token_ids"]


def _as_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def with_duet(model: Any, processor: Any, pictures: list[Image.Image], question: str) -> tuple[list[int], list[int]]:
    """The same with an attached model: prompt without compression, and new tokens."""
    content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[text], images=pictures, return_tensors="pt", add_special_tokens=False)
    model.generation_config.eos_token_id = None
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, num_beams=1)
    length = inputs["input_ids"].shape[1]
    return output[0, :length].tolist(), output[0, length:].tolist()
