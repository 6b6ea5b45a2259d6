"""`find_schedule`: from a model and samples to a shape, with everything that was measured on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from duet.budget import Backbone, Budget
from duet.budget.counts import MEASURES
from duet.budget.schedules import FLAT
from duet.budget.shapes import fit_shape
from duet.data.media import open_medium
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.families import find_asking
from duet.inference import encode, placed
from duet.method_table import find_method
from duet.registry import attach
from duet.schedule.candidates import Model, candidates, distinct
from duet.schedule.choose import Judge, Trial, typical
from duet.schedule.curves import LEAST_CEILING, LONGEST, Curves, ask, entries, few_tokens, measure_curves
from duet.schedule.passes import Meter

if TYPE_CHECKING:
    from duet.schedule.samples import Sample

#: Candidates that are measured whole.
BEST = 5


@dataclass(frozen=True)
class Prompt:
    """A sample after the processor.

    Attributes:
        stratum: its kind of task.
        inputs: processor output on the model's device, batch dimension 1.
        visual: visual tokens in it; pictures: pictures, crops or frames.
    """

    stratum: str
    inputs: Mapping[str, Any]
    visual: int
    pictures: int


@dataclass(frozen=True)
class Found:
    """What was measured, and the choice.

    Attributes:
        curves, trials: measurements; the flat shape is the first trial.
        chosen: one of the trials.
        backbone: sizes, with a usual prompt.
        considered: number of shapes that the curves were asked about.
        prefills: cost of a sample, in full prefills, of curves and trials; decoding of answers not counted.
        same: free answers under the chosen shape that are the full model's, and of how many.
        dropped: strata that were left out, with the reason.
    """

    curves: Curves
    trials: list[Trial]
    chosen: Trial
    backbone: Backbone
    considered: int
    prefills: float
    same: tuple[int, int]
    dropped: dict[str, str]


def read_prompts(model: Any, processor: Any, samples: Sequence[Sample]) -> list[Prompt]:
    """The samples in the family's prompts.

    Raises:
        UserError: a picture or video that cannot be read, or a question that does not match its pictures.
    """
    asking, found = find_asking(model, processor), []
    for sample in samples:
        media = [open_medium(file, asking.frames) for file in sample.files]
        question = encode(model, processor, media, sample.question)
        visual = sum(region.patches for region in question.regions)
        found.append(Prompt(sample.stratum, placed(question.inputs, model), visual, len(question.regions)))
    return found


@torch.inference_mode()
def find_schedule(
    model: Any,
    prompts: Sequence[Prompt],
    average: float,
    *,
    method: str = "duet",
    measure: str = MEASURES[0],
    told: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Found:
    """Measure a model and choose the shape of a budget for it. The method stays attached.

    Args:
        model: from `duet.load`, in eval mode.
        prompts: questions about pictures and videos.
        average: visual tokens per layer.
        method: whose stages choose tokens.
        measure: what the average counts, see `Budget.average`.
        told: gets lines of progress.
        options: of `duet.attach`: tokenizer, companion, switches.

    Raises:
        UserError: an average or method that no shape fits, or samples whose answers do not need the picture.
    """
    own = find_method(method).schedule
    if own is None:
        raise UserError(f"method {method} keeps all tokens, so there is nothing to schedule; give another one")
    sizes = [prompt.visual for prompt in prompts]
    backbone = typical(Backbone.from_config(model.config), sizes, [prompt.pictures for prompt in prompts])
    if not 0 < average < backbone.full:
        raise UserError(f"an average of {average:g} visual tokens; a prompt of the samples has {backbone.full}")
    few = Budget()
    if 1 in own.stages:
        flat = fit_shape(own, FLAT, backbone, method)
        few = Budget.solve(few_tokens(average, backbone.full), backbone, schedule=flat)
    attach(model, method, Budget.solve(average, backbone, schedule=own), **options)
    compression, meter = attached(model).compression, Meter(backbone.decoder)
    asked = ask(model, compression, [(prompt.stratum, prompt.inputs) for prompt in prompts], told)
    curves = measure_curves(model, compression, few, asked, meter, told)
    dropped = {
        stratum: f"answers change by {ceiling:.4f} nats per token without a picture, less than {LEAST_CEILING}"
        for stratum, ceiling in curves.blind.items()
        if stratum not in curves.strata
    }
    if not curves.strata:
        raise UserError(f"no stratum of the samples needs a picture: {'; '.join(dropped.values())}")
    judge = Judge(model, compression, asked, curves, backbone, own, method, measure, few, meter, told)
    foretelling = Model.of(curves, judge.flat_losses(average), backbone.full)
    before = compression.pruner is not None and compression.pruner.layer == "previous"
    ranked = candidates(foretelling, average, backbone, own, method, entries(curves.depth), measure, before)
    trials, chosen = judge.final(average, distinct(ranked, BEST))
    same = judge.agreement(chosen, LONGEST)
    return Found(curves, trials, chosen, backbone, len(ranked), meter.prefills, same, dropped)
