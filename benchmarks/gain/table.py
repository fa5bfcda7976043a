"""The table of all finished cells."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from pipeline.run import read_json

from .datasets import DATASETS
from .variants import TEACHERS, VARIANTS

Result = dict[str, Any]
Rows = dict[str, list[Result]]


def gap_closure(teacher: float, alone: float, distilled: float) -> float | None:
    """Share of the gap that distillation closes; None where the student alone is as good as its teacher.

    Args:
        teacher, alone, distilled: scores, all of the same direction.
    """
    return None if alone == teacher else (alone - distilled) / (alone - teacher)


def by_dataset(results: list[Result]) -> dict[str, Rows]:
    """Results by data set and variant, in the order of the table."""
    found: dict[str, Rows] = defaultdict(lambda: defaultdict(list))
    for result in results:
        found[result["dataset"]][result["variant"]].append(result)
    return {
        dataset: {variant: found[dataset][variant] for variant in VARIANTS if found[dataset][variant]}
        for dataset in DATASETS
        if dataset in found
    }


def mean_score(dataset: str, results: list[Result]) -> float:
    """Mean over seeds of the score that counts for a data set."""
    answer: float = mean(result["scores"][DATASETS[dataset].score] for result in results)
    return answer


def closure_of(dataset: str, rows: Rows, variant: str) -> float | None:
    """Share of the gap that a variant closes, between means over the seeds that it has in common with the student
    alone; None where that cannot be said: a cell is missing, or there is no gap.
    """
    if "teacher" not in rows or "alone" not in rows or variant in (*TEACHERS, "alone"):
        return None
    seeds = {result["seed"] for result in rows[variant]} & {result["seed"] for result in rows["alone"]}
    if not seeds:
        return None
    alone, distilled = ([r for r in rows[name] if r["seed"] in seeds] for name in ("alone", variant))
    scores = (mean_score(dataset, row) for row in (rows["teacher"], alone, distilled))
    teacher_score, alone_score, distilled_score = scores
    better = alone_score < teacher_score if DATASETS[dataset].larger_is_better else alone_score > teacher_score
    return gap_closure(teacher_score, alone_score, distilled_score) if better else None


def time_ratio(out: Path, dataset: str) -> float | None:
    """Prediction time of the student over that of the teacher, median of pairs; None if it was not measured."""
    pairs = read_json(out / dataset / "timing.json").get("seconds", [])
    return median(student / teacher for teacher, student in pairs) if pairs else None


def parameter_ratio(rows: Rows) -> float | None:
    """Parameters of the student over those of the teacher."""
    if "teacher" not in rows or "alone" not in rows:
        return None
    return float(rows["alone"][0]["parameters"] / rows["teacher"][0]["parameters"])


def ratios(out: Path, results: list[Result]) -> dict[str, Any]:
    """Per data set: the gap closure of every variant, and the ratios of parameters and of prediction time."""
    return {
        dataset: {
            "gap_closure": {variant: closure_of(dataset, rows, variant) for variant in rows},
            "parameter_ratio": parameter_ratio(rows),
            "time_ratio": time_ratio(out, dataset),
        }
        for dataset, rows in by_dataset(results).items()
    }


def as_markdown(out: Path, results: list[Result]) -> str:
    """One table per data set; only cells that ran."""
    return "\n".join(_table(out, dataset, rows) for dataset, rows in by_dataset(results).items())


def _table(out: Path, dataset: str, rows: Rows) -> str:
    score = DATASETS[dataset].score
    parts = [] if DATASETS[dataset].images else ["voi_split", "voi_merge"]
    others = [] if DATASETS[dataset].images else ["adapted_rand_error", "area"]
    single = [] if DATASETS[dataset].images else [f"{score}, one watershed"]
    header = ["variant", "seeds", "iterations", "minutes", *parts, score, "gap closed", *others, *single]
    lines = [f"\n**{dataset}**\n", row(header), row(["---"] * len(header))]
    for variant, results in rows.items():
        closed = closure_of(dataset, rows, variant)
        lines.append(
            row(
                [
                    variant,
                    ", ".join(str(result["seed"]) for result in results),
                    str(results[0]["iterations"]),
                    f"{mean(result['training_seconds'] for result in results) / 60:.0f}",
                    *(spread([result["scores"][name] for result in results]) for name in (*parts, score)),
                    "" if closed is None else f"{closed:.0%}",
                    *(
                        spread([result["scores"][name] for result in results if name in result["scores"]])
                        for name in others
                    ),
                    *(spread([result["best"][score] for result in results]) for _ in single),
                ]
            )
        )
    lines.append(f"\nStudent over teacher: {_facts(out, dataset, rows)}.")
    return "\n".join(lines)


def _facts(out: Path, dataset: str, rows: Rows) -> str:
    parameters, seconds = parameter_ratio(rows), time_ratio(out, dataset)
    return ", ".join(
        f"{name} {'not measured' if ratio is None else f'{ratio:.2%}'}"
        for name, ratio in (("parameters", parameters), ("prediction time", seconds))
    )


def spread(scores: list[float]) -> str:
    """Mean, and standard deviation where there are several; nothing of none, as cells of earlier versions have it."""
    if not scores:
        return ""
    return f"{mean(scores):.3f}" + (f" ± {stdev(scores):.3f}" if len(scores) > 1 else "")


def row(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
