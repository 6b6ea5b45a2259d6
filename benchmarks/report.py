"""Turn samples into rows, targets and a Markdown table.

A speed-up is the median over the rounds of (baseline / this) within a round: the configurations take turns, so other
load on the machine affects both. Times are medians over the rounds.
"""

from __future__ import annotations

from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.configurations import Configuration

MEGA = 1e6
#: Targets for DUET's prefill: minimum share of the FLOPs-ideal speed-up, maximum scoring and merging (share of the
#: uncompressed prefill), maximum peak memory (share of the uncompressed model's).
IDEAL_SHARE, OVERHEAD_SHARE, PEAK_SHARE = 0.85, 0.03, 1.0


class Operations(NamedTuple):
    """Name of a configuration -> operations of one row of the batch.

    Attributes:
        whole: with the whole square of the decoder's scores, as in `duet budget`.
        causal: with only its unmasked part, which is what sdpa computes.
    """

    whole: dict[str, int]
    causal: dict[str, int]


def heading(result: dict[str, Any], title: str, *facts: str) -> list[str]:
    """Title and machine of a result, for Markdown; ends with an empty line.

    Args:
        result: with `options` and `machine`.
        title: of the table.
        facts: about the measurement.
    """
    options, machine = result["options"], result["machine"]
    device = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} thread(s)"
    told = [*facts, *([f"batch {options['batch_size']}"] if "batch_size" in options else [])]
    return [
        f"# {title}, {options['dtype']}",
        "",
        f"{', '.join(told)}; {_clock(options)}{device}; load average {machine['load_average'][0]}, torch "
        f"{machine['torch']}, transformers {machine['transformers']}, commit {machine['commit'][:10]}.",
        "",
    ]


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median over the rounds of the ratios within a round."""
    return median(before / after for before, after in zip(slow, fast, strict=True))


def summarize(
    runs: Sequence[Configuration],
    samples: dict[str, list[dict[str, float]]],
    peaks: dict[str, int],
    flops: Operations,
    clock: str,
) -> list[dict[str, Any]]:
    """One row per configuration.

    Args:
        runs: the configurations that ran; the first is the baseline.
        samples: name of a configuration -> the measurements of each round.
        peaks: name -> bytes. flops: by both formulas.
        clock: the measurement to compute the speed-up from.
    """
    base = runs[0].name
    reference = [sample[clock] for sample in samples[base]]
    rows = []
    for run in runs:
        own = [sample[clock] for sample in samples[run.name]]
        speed_up = ratio(reference, own)
        ideal, causal = (count[base] / count[run.name] for count in flops)
        rows.append(
            {
                "method": run.method,
                "tokens": run.average,
                "budget": vars(run.budget) if run.wanted else None,
                **{key: median(sample[key] for sample in samples[run.name]) for key in samples[base][0]},
                "peak_bytes": peaks[run.name],
                "flops": flops.whole[run.name],
                "flops_causal": flops.causal[run.name],
                "speed_up": speed_up,
                "ideal_speed_up": ideal,
                "of_ideal": speed_up / ideal,
                "ideal_speed_up_causal": causal,
                "of_ideal_causal": speed_up / causal,
                "quartiles_ms": quantiles(own, n=4)[::2] if len(own) > 1 else own * 2,
                "samples_ms": own,
            }
        )
    return rows


def memory_rows(runs: Sequence[Configuration], peaks: dict[str, int]) -> list[dict[str, Any]]:
    """One row per configuration: its peak bytes, and their share of the baseline's."""
    base = peaks[runs[0].name]
    return [
        {"method": run.method, "tokens": run.average, "peak_bytes": peaks[run.name], "share": peaks[run.name] / base}
        for run in runs
    ]


def check_targets(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """For each of the three targets, whether every DUET row of a prefill table reaches it."""
    base, own = rows[0], [row for row in rows if row["method"].startswith("duet")]
    return {
        f"speed-up at least {IDEAL_SHARE:.0%} of FLOPs-ideal": all(row["of_ideal"] >= IDEAL_SHARE for row in own),
        f"scoring and merging at most {OVERHEAD_SHARE:.0%} of the uncompressed prefill": all(
            row["overhead_ms"] <= OVERHEAD_SHARE * base["prefill_ms"] for row in own
        ),
        "peak memory never above the uncompressed model": all(
            row["peak_bytes"] <= PEAK_SHARE * base["peak_bytes"] for row in own
        ),
    }


def render_markdown(result: dict[str, Any]) -> str:
    """The tables of a result, with a description of the machine."""
    machine, options = result["machine"], result["options"]
    device = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} thread(s)"
    lines = [
        f"# {options['shape']} on {options['device']}, {options['dtype']}",
        "",
        f"{device}; torch {machine['torch']}, transformers {machine['transformers']}; commit "
        f"{machine['commit'][:12]}{' with uncommitted changes' if machine['uncommitted_changes'] else ''}; "
        f"{_clock(options) if result['prefill'] or result['training'] else ''}"
        f"batch {options['batch_size']}, {options['text']} text tokens; "
        f"load average {machine['load_average'][0]} before, {result['load_average_after'][0]} after.",
    ]
    if result["prefill"]:
        intro = "Prefill: pixels to first logits. Peak memory: on top of the weights."
        lines += ["", intro, "", *_prefill_table(result["prefill"])]
    if result["training"]:
        update = f"the update by {options['optimizer']}" if options.get("optimizer", "none") != "none" else "no update"
        intro = f"Training step ({options['train']}): forward, backward and {update}; the tower is frozen."
        lines += ["", intro, "", *_training_table(result["training"])]
    if result["memory"]:
        lines += ["", "Peak memory of the prefill, on top of the weights.", "", *_memory_table(result["memory"])]
    if result["targets"]:
        lines += ["", *(f"- {target}: {'yes' if met else 'no'}" for target, met in result["targets"].items())]
    return "\n".join(lines) + "\n"


def _clock(options: dict[str, Any]) -> str:
    clock = "CPU time of the process" if options["clock"] == "process" else "wall clock"
    return f"{clock}, {options['repeats']} rounds, "


def _prefill_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    base = rows[0]["prefill_ms"]
    head = ["method", "tokens", "prefill ms", "tower ms", "scoring + merging ms (of full prefill)", "speed-up"]
    head += ["FLOPs-ideal", "reached", "reached, causal", "decode ms/token", "peak MB", "KV MB"]
    return _table(
        head,
        (
            [
                *_name(row),
                f"{row['prefill_ms']:.1f}",
                f"{row['tower_ms']:.1f}",
                f"{row['overhead_ms']:.2f} ({row['overhead_ms'] / base:.2%})",
                *_speed(row),
                f"{row['of_ideal_causal']:.0%}",
                f"{row['decode_ms']:.1f}",
                f"{row['peak_bytes'] / MEGA:.1f}",
                f"{row['kv_bytes'] / MEGA:.1f}",
            ]
            for row in rows
        ),
    )


def _training_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = ["method", "tokens", "step ms", "update ms", "time saved", "operations saved", "speed-up", "FLOPs-ideal"]
    head += ["reached", "peak MB"]
    return _table(
        head,
        (
            [
                *_name(row),
                f"{row['step_ms']:.1f}",
                f"{row['update_ms']:.1f}",
                f"{1 - 1 / row['speed_up']:.0%}",
                f"{1 - 1 / row['ideal_speed_up']:.0%}",
                *_speed(row),
                f"{row['peak_bytes'] / MEGA:.1f}",
            ]
            for row in rows
        ),
    )


def _memory_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    cells = ([*_name(row), f"{row['peak_bytes'] / MEGA:.1f}", f"{row['share']:.2f}x"] for row in rows)
    return _table(["method", "tokens", "peak MB", "of the uncompressed"], cells)


def _name(row: dict[str, Any]) -> list[str]:
    return [row["method"], f"{row['tokens']:.4g}"]


def _speed(row: dict[str, Any]) -> list[str]:
    return [f"{row['speed_up']:.2f}x", f"{row['ideal_speed_up']:.2f}x", f"{row['of_ideal']:.0%}"]


def _table(head: list[str], rows: Any) -> list[str]:
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *rows]
    lines[1][1] = "---:"
    return [f"| {' | '.join(cells)} |" for cells in lines]
