"""Trains the small world's Video-LLaVA on clips, from llava-mini's tower, projector and language model.

    python -m playground.mini.train_video --output playground/mini/runs/video --steps 450

Frames of 40x40 in 8x8 patches: 25 patches and CLS, eight frames, 208 tokens per clip. The towers' position table is
the top left quarter of llava-mini's. The tokenizer gets one more token, `<video>`. Every row is a clip with four
questions in Video-LLaVA's conversation; clips are made as they are needed (split "clips") and never repeat. Everything
is trained but the picture tower. Resumes from `OUTPUT/state.pt`; logs accuracy on held-out clips now and then.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AddedToken,
    AutoTokenizer,
    CLIPVisionConfig,
    LlavaForConditionalGeneration,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from duet.data.encode import IGNORED, Encoded, encode
from duet.llava.prompts import TEMPLATES, conversation_text
from duet.text.placeholders import IMAGE, VIDEO
from duet.videollava.processing import VideoLlavaProcessorPil

from . import clips
from .clips import FRAME, STATES, Clip, draw_clip, sample_clip
from .train_tower import MEAN, STD
from .video_sets import BENCHMARKS, held_out_clips
from .world import PATCH, rng

START = Path("playground/mini/checkpoints/llava-mini")
SIDE = FRAME // PATCH
TOKENS = STATES * (SIDE**2 + 1)
TURNS = 4


def build(start: Path, seed: int) -> tuple[Any, VideoLlavaProcessorPil]:
    """Model and processor before the training."""
    torch.manual_seed(seed)
    source = LlavaForConditionalGeneration.from_pretrained(start)
    tokenizer = AutoTokenizer.from_pretrained(start, padding_side="left")
    tokenizer.add_tokens([AddedToken(VIDEO, special=True, normalized=False)])
    source.resize_token_embeddings(len(tokenizer))
    vision = CLIPVisionConfig(**{**source.config.vision_config.to_dict(), "image_size": FRAME})
    config = VideoLlavaConfig(
        vision_config=vision,
        text_config=source.config.text_config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        video_token_index=tokenizer.convert_tokens_to_ids(VIDEO),
        image_seq_length=SIDE**2,
        video_seq_length=TOKENS,
    )
    model = VideoLlavaForConditionalGeneration(config)
    tower = source.model.vision_tower.state_dict()
    name = next(name for name in tower if name.endswith("position_embedding.weight"))
    old = int(len(tower[name][1:]) ** 0.5)
    corner = tower[name][1:].view(old, old, -1)[:SIDE, :SIDE].flatten(0, 1)
    tower[name] = torch.cat([tower[name][:1], corner])
    kept = {key: value for key, value in tower.items() if "position_ids" not in key}
    for own in (model.model.video_tower, model.model.image_tower):
        own.load_state_dict(kept, strict=False)
    model.model.multi_modal_projector.load_state_dict(source.model.multi_modal_projector.state_dict())
    model.model.language_model.load_state_dict(source.model.language_model.state_dict())
    model.lm_head.load_state_dict(source.lm_head.state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    side = {"height": FRAME, "width": FRAME}
    pixels = CLIPImageProcessorPil(size={"shortest_edge": FRAME}, crop_size=side)
    return model, VideoLlavaProcessorPil(tokenizer, pixels, SIDE**2, SIDE**2 + 1)


def pixels_of(states: np.ndarray) -> Tensor:
    """uint8 `[..., 40, 40, 3]` -> float `[..., 3, 40, 40]`, as CLIP's processor normalises."""
    values = torch.from_numpy(states).movedim(-1, -3).float() / 255
    return (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def encoded(turns: list[tuple[str, str]], tokenizer: Any) -> Encoded:
    """Token ids and labels of a conversation about one clip; the answers are learned."""
    spoken = [(f"{VIDEO * TOKENS}\n{turns[0][0]}", turns[0][1]), *turns[1:]]
    return encode(TEMPLATES["llava_v1"](spoken), tokenizer)


def questions_of(clip: Clip, random: np.random.Generator) -> list[tuple[str, str]]:
    """`TURNS` different questions about a clip with their answers."""
    found: dict[str, str] = {}
    while len(found) < TURNS:
        question = clips.ALL[int(random.integers(len(clips.ALL)))](clip, random)
        if question is not None:
            found[question.text] = question.answer
    return list(found.items())


def batch_of(seed: int, step: int, size: int, tokenizer: Any) -> dict[str, Tensor]:
    """The rows of one step, padded on the right."""
    rows, states = [], []
    for index in range(step * size, (step + 1) * size):
        random = rng(seed, "clips", index)
        clip = sample_clip(random)
        states.append(draw_clip(clip))
        rows.append(encoded(questions_of(clip, random), tokenizer))
    longest = max(len(row.input_ids) for row in rows)
    ids = torch.full((size, longest), tokenizer.pad_token_id)
    labels, mask = torch.full((size, longest), IGNORED), torch.zeros((size, longest), dtype=torch.long)
    for place, row in enumerate(rows):
        end = len(row.input_ids)
        ids[place, :end], labels[place, :end], mask[place, :end] = (
            torch.tensor(row.input_ids),
            torch.tensor(row.labels),
            1,
        )
    pixels = pixels_of(np.stack(states))
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "pixel_values_videos": pixels}


@torch.no_grad()
def evaluate(model: Any, processor: VideoLlavaProcessorPil, seed: int, count: int = 48) -> dict[str, float]:
    """Share of exact answers to held-out questions of the split "watch", by benchmark."""
    model.eval()
    scores = {}
    for name in BENCHMARKS:
        held = held_out_clips(name, count, seed, "watch")
        prompts = [conversation_text("llava_v1", f"{VIDEO}\n{question.text}") for _, question in held]
        inputs = processor(text=prompts, videos=[list(draw_clip(clip)) for clip, _ in held], padding=True)
        said = model.generate(**inputs, max_new_tokens=8, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        answers = processor.batch_decode(said, skip_special_tokens=True)
        right = [answer.strip() == question.answer for answer, (_, question) in zip(answers, held, strict=True)]
        scores[f"accuracy/{name}"] = round(sum(right) / len(right), 4)
    model.train()
    return scores


def train(output: Path, start: Path, steps: int, size: int, lr: float, seed: int) -> None:
    """Train, or continue; the learning rate falls linearly after 50 steps."""
    model, processor = build(start, seed)
    model.model.image_tower.requires_grad_(False)
    model.train()
    learned = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=lr, weight_decay=0.05, betas=(0.9, 0.98))
    state_file, first = output / "state.pt", 0
    output.mkdir(parents=True, exist_ok=True)
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    started = time.monotonic()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 50, 1 - step / steps)
        loss = model(**batch_of(seed, step, size, processor.tokenizer)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        done = step + 1
        if done % 20 == 0:
            spent = round((time.monotonic() - started) / (done - first), 3)
            _log(output, {"step": done, "loss": round(float(loss), 4), "step_seconds": spent})
        if done % 200 == 0 or done == steps:
            _log(output, {"step": done, **evaluate(model, processor, seed)})
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done}, state_file)
    model.save_pretrained(output)
    processor.save_pretrained(output)


def _log(output: Path, record: dict[str, float]) -> None:
    with (output / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps(record) + "\n")


def main() -> None:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("playground/mini/runs/video"))
    parser.add_argument("--start", type=Path, default=START, help=f"a LLaVA of the small world (default: {START})")
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train(given.output, given.start, given.steps, given.batch, given.lr, given.seed)


if __name__ == "__main__":
    main()
