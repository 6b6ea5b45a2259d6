"""What a process of a distributed test runs: small trainings, one after the other, told by a JSON file.

    python -m torch.distributed.run --nproc_per_node 2 -m tests.rank_worker jobs.json

Each job trains one tiny model of a family with `DuetTrainer` and writes `losses` to `OUT/losses.json`, and the model.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.utils.data import Dataset
from transformers import AutoModelForImageTextToText, TrainerCallback

from duet.registry import compress
from duet.train.arguments import TrainingArguments
from duet.train.elastic import ElasticBudget, read_choices
from duet.train.ranks import start_communication
from duet.train.sharding import kept_whole
from duet.train.standins import StandIns
from duet.train.teacher import SELF, Teacher
from duet.train.trainer import DuetTrainer, bare
from tests.families import FAMILIES, Family

ROOT = Path(__file__).parents[1]


class Rows(Dataset):
    """Rows of a family by number, in this order."""

    def __init__(self, family: Family, order: list[int]) -> None:
        self.family = family
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Any:
        return self.family.rows[self.order[index]]

    def media(self, index: int) -> set[str]:
        """Kinds of media of a row."""
        batch = self.family.collate([self[index]])
        return {"video" if "video" in name else "image" for name in batch if name.startswith("pixel_values")}

    def shortest(self, kind: str) -> Any:
        """The shortest row of a kind of media."""
        return min((self[at] for at in range(len(self)) if kind in self.media(at)), key=lambda row: len(row.ids))


class StopAfter(TrainerCallback):
    """Ends a training early, without telling the schedule."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


def arguments(job: dict[str, Any]) -> TrainingArguments:
    fixed = {"use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "report_to": "none", "seed": 1}
    given = {**fixed, "save_strategy": "no", "learning_rate": 1e-2, "lr_scheduler_type": "constant", **job["training"]}
    start_communication(given)
    return TrainingArguments(output_dir=job["out"], **given)


def teacher_of(model: Any, args: TrainingArguments) -> Teacher | None:
    """As `duet.train.teacher.make_teacher` does it for a recipe."""
    if args.teacher is None:
        return None
    with kept_whole(args):
        other = args.teacher != SELF and AutoModelForImageTextToText.from_pretrained(args.teacher, dtype=torch.float32)
    return Teacher(model, args, other or None)


def train(job: dict[str, Any]) -> None:
    family = FAMILIES[job["family"]]
    args = arguments(job)
    model = AutoModelForImageTextToText.from_pretrained(job["model"], dtype=torch.float32)
    for name, value in model.named_parameters():
        value.requires_grad_(not any(name.startswith(prefix) for prefix in job.get("freeze", ())))
    if job.get("lora"):
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(2)  # adapters are drawn; loading in parts has used other random numbers
        model = get_peft_model(model, LoraConfig(**job["lora"]))
    elastic = None
    if job.get("budgets"):
        make = partial(compress, model, job["method"])
        elastic = ElasticBudget(model, read_choices(job["budgets"]), make, seed=5)
    elif job.get("method"):
        family.attach(model if not job.get("lora") else model.get_base_model(), job["method"])
    dataset = Rows(family, job["order"])
    collate = partial(family.collate, side="right", labels=True)
    trainer = DuetTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        data_collator=collate,
        stand_ins=StandIns(dataset.shortest, collate, 0),
        teacher=teacher_of(bare(model), args),
    )
    if elastic is not None:
        trainer.add_callback(elastic)
    if job.get("stop_after"):
        trainer.add_callback(StopAfter(job["stop_after"]))
    trainer.train(resume_from_checkpoint=trainer.continue_from() if job.get("resume") else None)
    trainer.save_model(job["out"])
    if trainer.is_world_process_zero():
        logged = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        Path(job["out"], "losses.json").write_text(json.dumps({"losses": logged, **trainer.tally.everyone}))
    for state in (AcceleratorState, GradientState):
        state._reset_state()
    PartialState._reset_state()


def main() -> None:
    for job in json.loads(Path(sys.argv[1]).read_text()):
        train(job)


if __name__ == "__main__":
    main()
