"""A random model and a few questions of the small world, for tests that evaluate from files to tables."""

from __future__ import annotations

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from duet.eval.asking.answerer import Answerer
from playground.mini.build_model import build_model, build_processor
from playground.mini.draw import draw
from playground.mini.eval_sets import WRITERS
from playground.mini.tokenizer import train_tokenizer
from playground.mini.world import PATCH, PICTURE

TEXTS = ["What color is the ring?", "Is there a red ring in the image?", "Yes", "No", "A. red", "B. blue"] * 30


@cache
def random_model() -> str:
    """Folder of an untrained checkpoint: 100 visual tokens, 4 layers."""
    folder = mkdtemp(prefix="small-world-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    torch.manual_seed(0)
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=PICTURE,
            patch_size=PATCH,
        )
    )
    tokenizer = train_tokenizer(TEXTS)
    model = build_model(tokenizer, tower, seed=0, layers=4)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=1.0)  # answers that differ, and few ties between them
    model.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return folder


@cache
def random_answerer() -> Answerer:
    """The loaded model; shared, so compress it before use."""
    return Answerer.load(random_model(), device="cpu")


def write_questions(root: Path, *benchmarks: str, count: int = 12) -> Path:
    """Some benchmarks' folders (`pope`, `gqa`, `textvqa`, `MME`, `scienceqa`, `seed_bench`) under `root`."""
    for name in benchmarks:
        WRITERS[name](root / name, count, 0, draw)
    return root
