"""Trains the CLIP-style tower of the small world with contrastive captions, before LLaVA's two stages.

Two contrasts per picture: every patch against the phrases of all possible things ("small red ring", "word sun",
"night"), and the CLS token against the captions of the other pictures in the batch (which thing is in which place).
The patch contrast reads the layer that LLaVA reads (-2), the caption contrast that layer and the last one, so that the
CLS attention, by which VisionZip ranks patches, is on the things and not on the clutter.

    python -m playground.mini.train_tower --output playground/mini/runs/tower --minutes 15

Pictures are generated on the fly (split "tower") and never repeat. Resumes from `OUTPUT/state.pt` when it exists.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlavaForConditionalGeneration

from .draw import draw, patch_labels
from .world import BACKGROUNDS, COLORS, PATCH, PICTURE, SHAPES, SIZES, WORDS, Scene, rng
from .worlds import WORLDS, World

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's normalisation, as CLIPImageProcessor has it
STD = (0.26862954, 0.26130258, 0.27577711)
SHAPE_PHRASES = tuple(" ".join(parts) for parts in product(SIZES, COLORS, SHAPES))
TEXT_PHRASES = tuple(f"word {word}" for word in WORDS) + tuple(f"number {digit}" for digit in range(10))
PHRASES = SHAPE_PHRASES + TEXT_PHRASES + tuple(BACKGROUNDS)
PHRASE_INDEX = {phrase: index for index, phrase in enumerate(PHRASES)}
MOST_THINGS = 9  # one in each place of the grid
VOCABULARY = {word: index for index, word in enumerate(sorted({word for phrase in PHRASES for word in phrase.split()}))}


def tower_config() -> CLIPVisionConfig:
    """A CLIP vision tower of about 0.6 M parameters: 5 layers of width 96 over 10x10 patches."""
    return CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=3,
        image_size=PICTURE,
        patch_size=PATCH,
        projection_dim=96,
    )


class CaptionEncoder(nn.Module):
    """Embeds phrases as bags of words, and captions as the mean of (phrase, place) pairs."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(len(VOCABULARY), width, mode="sum")
        self.phrase_head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.places = nn.Embedding(10, width)  # nine places, and one for the background
        self.pair_head = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        bags = [[VOCABULARY[word] for word in phrase.split()] for phrase in PHRASES]
        self.register_buffer("bag", torch.tensor([word for bag in bags for word in bag]), persistent=False)
        self.register_buffer("offsets", torch.tensor([0, *np.cumsum([len(b) for b in bags])[:-1]]), persistent=False)

    def phrases(self) -> Tensor:
        """Embeddings of all phrases, [P, D]."""
        return self.phrase_head(self.words(self.bag, self.offsets))

    def captions(self, phrases: Tensor, pairs: Tensor) -> Tensor:
        """Embeddings [B, D] of captions as `pairs` [B, M, 2] of phrase and place indices, -1 where there is none."""
        present = (pairs[..., :1] >= 0).float()
        index = pairs.clamp(min=0)
        embedded = self.pair_head(torch.cat([phrases[index[..., 0]], self.places(index[..., 1])], dim=-1))
        return (embedded * present).sum(1) / present.sum(1)


class ContrastiveTower(nn.Module):
    """Tower, caption encoder and the three projections into the shared space."""

    def __init__(self) -> None:
        super().__init__()
        config = tower_config()
        self.tower = CLIPVisionModel(config)
        self.captions = CaptionEncoder()
        self.patch_head = nn.Linear(config.hidden_size, 96)
        self.inner_head = nn.Linear(config.hidden_size, 96)
        self.last_head = nn.Linear(config.hidden_size, 96)
        self.scale = nn.Parameter(torch.tensor([2.3, 2.3]))  # log of the inverse temperatures

    def forward(self, pixels: Tensor, labels: Tensor, pairs: Tensor) -> dict[str, Tensor]:
        """Losses and accuracies for pixels [B, 3, 80, 80], patch phrase labels [B, 100] and caption pairs [B, M, 2]."""
        states = self.tower(pixels, output_hidden_states=True)
        inner = states.hidden_states[-2]
        phrases = self.captions.phrases()
        logits = (
            self.scale[0].exp() * F.normalize(self.patch_head(inner[:, 1:]), dim=-1) @ F.normalize(phrases, dim=-1).T
        )
        things = (labels >= 0) & (labels < len(PHRASES) - len(BACKGROUNDS))
        patches = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
        patches = patches.view_as(labels)
        patch_loss = patches[things].mean() + 0.3 * patches[~things & (labels >= 0)].mean()
        text = F.normalize(self.captions.captions(phrases, pairs), dim=-1)
        caption_loss, retrieved = pixels.new_zeros(()), pixels.new_zeros(())
        target = torch.arange(len(pixels))
        for head, cls in ((self.inner_head, inner[:, 0]), (self.last_head, states.pooler_output)):
            similarity = self.scale[1].exp() * F.normalize(head(cls), dim=-1) @ text.T
            caption_loss = caption_loss + F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)
            retrieved = (similarity.argmax(1) == target).float().mean()
        return {
            "loss": patch_loss + 0.25 * caption_loss,
            "patch_loss": patch_loss.detach(),
            "caption_loss": caption_loss.detach() / 4,
            "patch_accuracy": (logits.argmax(-1) == labels)[things].float().mean(),
            "retrieval": retrieved,
        }


def batch_of(scenes: list[Scene], picture: Callable[[Scene], np.ndarray] = draw) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [B, 3, 80, 80], patch phrase labels [B, 100] and caption pairs [B, 10, 2] of some scenes."""
    pixels = torch.from_numpy(np.stack([picture(scene) for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    labels = np.full((len(scenes), (PICTURE // PATCH) ** 2), -100)
    pairs = np.full((len(scenes), MOST_THINGS + 1, 2), -1)
    for row, scene in enumerate(scenes):
        lookup = np.array([PHRASE_INDEX[item.phrase] for item in scene.items] + [PHRASE_INDEX[scene.background]])
        where = patch_labels(scene)  # -1, the background, picks the last entry of `lookup`
        labels[row] = np.where(where == -100, -100, lookup[np.where(where == -100, 0, where)])
        pairs[row, : len(lookup)] = np.stack([lookup, [item.place for item in scene.items] + [9]], axis=1)
    return pixels.contiguous(), torch.from_numpy(labels), torch.from_numpy(pairs)


@torch.no_grad()
def evaluate(model: ContrastiveTower, seed: int, world: World) -> dict[str, float]:
    """Accuracy on 256 held-out pictures (split "tower-eval")."""
    scenes = [world.sample(rng(seed, "tower-eval", index)) for index in range(256)]
    model.eval()
    scores = model(*batch_of(scenes, world.draw))
    model.train()
    return {f"eval_{name}": round(float(value), 4) for name, value in scores.items()}


def train(
    output: Path, minutes: float, steps: int, batch: int, lr: float, seed: int, world: World, start: Path | None = None
) -> None:
    """Train for `steps` steps or `minutes`, whichever ends first; the schedule follows whichever is further on.

    `start` is a model's folder whose tower training continues from; the heads are new then, too.
    """
    torch.manual_seed(seed)
    model = ContrastiveTower()
    if start is not None:
        started_from = LlavaForConditionalGeneration.from_pretrained(start)
        model.tower.load_state_dict(started_from.model.vision_tower.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, betas=(0.9, 0.98), fused=True)
    step, spent, state_file = 0, 0.0, output / "state.pt"
    output.mkdir(parents=True, exist_ok=True)
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    started = time.monotonic() - spent
    while (progress := max(step / steps, (time.monotonic() - started) / 60 / minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * progress))
        scores = model(
            *batch_of([world.sample(rng(seed, "tower", step * batch + i)) for i in range(batch)], world.draw)
        )
        optimizer.zero_grad(set_to_none=True)
        scores["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            _log(output, {"step": step, "seconds": round(time.monotonic() - started, 1), **_floats(scores)})
        if step % 250 == 0:
            _log(output, {"step": step, **evaluate(model, seed, world)})
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save({**state, "spent": time.monotonic() - started}, state_file)
    _log(output, {"step": step, **evaluate(model, seed, world)})
    model.tower.save_pretrained(output)


def _floats(scores: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in scores.items()}


def _log(output: Path, record: dict[str, float]) -> None:
    with (output / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps(record) + "\n")


def main() -> None:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("playground/mini/runs/tower"))
    parser.add_argument("--minutes", type=float, default=15, help="stop after this much time (default: 15)")
    parser.add_argument("--steps", type=int, default=20000, help="stop after this many steps (default: 20000)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", choices=tuple(WORLDS), default="first", help="whose pictures (default: first)")
    parser.add_argument("--start", type=Path, help="a model of the small world, whose tower to continue from")
    given = parser.parse_args()
    limits = (given.minutes, given.steps, given.batch, given.lr, given.seed)
    train(given.output, *limits, WORLDS[given.world], given.start)


if __name__ == "__main__":
    main()
