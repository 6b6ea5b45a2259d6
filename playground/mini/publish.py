"""Copies a finished run into `checkpoints/`, with the log of all its phases and its provenance.

    python -m playground.mini.publish playground/mini/checkpoints/llava-mini tower pretrain finetune final

Takes model and processor files from the last phase's folder under `--runs`; writes `metrics.jsonl` (all phases, thinned
to `--limit` bytes: accuracies are kept, losses are thinned evenly) and `training.json` (data hash, versions, commit).
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

RUNS = Path("playground/mini/runs")
DATA = Path("playground/data/mini")
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
#: Files of some runs only: pixel settings under LLaVA's or Video-LLaVA's name, and the compression of the training.
OPTIONAL = ("processor_config.json", "preprocessor_config.json", "duet_config.json")


def read_metrics(folder: Path, phase: str) -> list[dict[str, object]]:
    """The lines of one phase, each marked with its name; a step that a resumed run logged twice counts once."""
    seen: dict[tuple[object, ...], dict[str, object]] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        seen[(record["step"], *sorted(record))] = {"phase": phase, **record}
    return list(seen.values())


def thinned(records: list[dict[str, object]], limit: int) -> list[str]:
    """The records as JSON lines of at most `limit` bytes: every k-th loss, with the smallest k that fits."""
    for step in range(1, len(records) + 2):
        kept, losses = [], 0
        for record in records:
            if "loss" not in record:
                kept.append(record)
                continue
            if losses % step == 0:
                kept.append(record)
            losses += 1
        lines = [json.dumps(record) for record in kept]
        if sum(len(line) + 1 for line in lines) <= limit:
            return lines
    raise ValueError(f"the accuracies alone are larger than {limit} bytes; raise --limit")


def provenance(data: Path) -> dict[str, object]:
    """Data hashes, library versions, machine and commit."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "data_sha256": {
            part.parent.name: part.read_text().strip() for part in sorted(data.glob("train/data_hash.txt"))
        },
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy", "pillow")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "commit": commit,
    }


def main() -> None:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("phases", nargs="+", help="folders under --runs, in the order of training")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--limit", type=int, default=150_000, help="bytes of metrics.jsonl (default: 150000)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    last = arguments.runs / arguments.phases[-1]
    for name in (*FILES, *OPTIONAL):
        if (last / name).exists() or name in FILES:
            shutil.copyfile(last / name, arguments.output / name)
    records = [record for phase in arguments.phases for record in read_metrics(arguments.runs / phase, phase)]
    (arguments.output / "metrics.jsonl").write_text("\n".join(thinned(records, arguments.limit)) + "\n")
    (arguments.output / "training.json").write_text(json.dumps(provenance(arguments.data), indent=2) + "\n")


if __name__ == "__main__":
    main()
