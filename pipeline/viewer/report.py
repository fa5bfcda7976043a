"""`report.html`: one self-contained page with everything a run knows about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch

from ..command_names import command_line, shell_line
from ..config import NetworkConfig, dump_config
from ..config.base import plain_number
from ..engine.tracking.driver_lock import keeps_others_out
from ..evaluation import SCORE_TITLES, common_scores, score_text
from ..networks import build_network
from ..pages import html_environment
from ..run import Run, package_versions, read_summary, replaced_file
from ..units import duration, memory_size, short_number
from .curves import read_curves
from .layers import best_threshold, existing_layers, open_raw, validates_segmented
from .pictures import Picture, embedded
from .planes import panels_of, planes_of
from .plots import curves_png, picture_png, sweep_png
from .report_segments import chosen_content

ROLES = ("teacher", "student")
CAPTIONS = {
    "raw": "raw",
    "affinities": "affinities (z red, y green, x blue; dark: boundary)",
    "fragments": "fragments",
    "labels": "labels",
}
VOLUME_TILES = ("voi_sum", "voi_split", "voi_merge", "adapted_rand_error")
IMAGE_TILES = ("panoptic_quality", "f1", "aggregated_jaccard", "dice")
"""Scores at the head of the page, the one that decides first."""


@dataclass(frozen=True)
class PlanePictures:
    """The pictures of one plane, with its heading."""

    title: str
    pictures: list[Picture]


@keeps_others_out
def write_report(run: Run) -> Path:
    """Write `report.html` into the run directory, from whatever of the run exists.

    Without labels there are no scores, without training no curves, without volumes no pictures. Only the sections that
    are shown are read.

    Returns:
        The path of the page.

    Raises:
        UserError: the page cannot be written, or a chunk that it shows cannot be read.
    """
    return write_report_to(run, run.directory / "report.html")


def write_report_to(run: Run, path: Path) -> Path:
    """The same to any other file: of a run whose directory is somebody else's, for example. The run is only read."""
    page = _template().render(**report_content(run))
    with replaced_file(path) as file:
        file.write(page.encode(errors="replace"))
    return path


def report_content(run: Run) -> dict[str, Any]:
    """What the template shows, by name."""
    summary = read_summary(run)
    scores = summary.get("scores") or {}
    best = best_threshold(run)
    tested = best is not None and (summary.get("regions") or {}).get("reported_on") == "volumes.test"
    return {
        "title": run.directory.name,
        "directory": str(run.directory),
        "view_command": command_line("07_view.py", run.directory / "config.json"),
        "tensorboard_command": shell_line("tensorboard", "--logdir", run.directory),
        "volume": _volume_facts(run),
        "best": best,
        "tiles": _tiles(run, summary.get("best") if tested else scores.get(best) if best else None),
        "tested": tested,
        "scores": dict(sorted(scores.items(), key=lambda item: float(item[0]))),
        "scored": scores[best].get("scored") if best in scores else None,
        "columns": {name: SCORE_TITLES[name] for name in common_scores(scores.values())},
        "images": run.config.volumes.images,
        "sweep": embedded("threshold sweep", sweep_png(scores, best)) if len(scores) > 1 else None,
        "region": "validation region" if validates_segmented(run) else "segmented region",
        "labelled": open_raw(run) is not None and run.has_labels(run.config.volumes.segment.source),
        "planes": _plane_pictures(run),
        **chosen_content(run),
        "curves": _training_pictures(run),
        "networks": network_sizes(run),
        "checkpoint": run.config.predict.checkpoint,
        "stages": summary.get("stages") or {},
        "versions": summary.get("versions") or package_versions(),
        "config_hash": run.config_hash,
        "config": json.dumps({**dump_config(run.config), "run_directory": "."}, indent=2),
    }


def _tiles(run: Run, scores: Mapping[str, float] | None) -> dict[str, float]:
    """The scores at the head of the page by what they are called there."""
    tiles = IMAGE_TILES if run.config.volumes.images else VOLUME_TILES
    titles = {**SCORE_TITLES, "panoptic_quality": "panoptic quality", "voi_sum": "VOI sum, bits"}
    return {titles[name]: scores[name] for name in tiles if name in scores} if scores else {}


def network_sizes(run: Run) -> list[dict[str, Any]]:
    """Name and number of parameters of teacher and student, as far as the config has them."""
    configs: dict[str, NetworkConfig] = {"student": run.config.student.network}
    if run.config.network_teacher is not None:
        configs["teacher"] = run.config.network_teacher.network
    sizes = {role: _parameter_count(config) for role, config in configs.items()}
    largest = max(sizes.values())
    return [
        {"role": role, "name": configs[role].name, "parameters": sizes[role], "share": sizes[role] / largest}
        for role in ROLES
        if role in configs
    ]


def _parameter_count(config: NetworkConfig) -> int:
    """Parameters of a network, counted without allocating the weights."""
    with torch.device("meta"):
        return build_network(config).parameter_count()


def _volume_facts(run: Run) -> dict[str, Any] | None:
    raw = open_raw(run)
    if raw is None:
        return None
    return {
        "shape": list(raw.shape),
        "voxel_size": [plain_number(size) for size in raw.voxel_size],
        "voxels": raw.box.size,
        "dtype": str(raw.dtype),
    }


def _plane_pictures(run: Run) -> list[PlanePictures]:
    """The shown planes, each with the pictures of all layers."""
    if open_raw(run) is None:
        return []
    layers = existing_layers(run)
    shown = []
    for plane in planes_of(run, layers[0].volume):
        axis = "zyx"[plane.normal]
        pictures = [
            embedded(CAPTIONS.get(panel.name, panel.name), picture_png(panel.image))
            for panel in panels_of(run, plane, layers)
        ]
        shown.append(PlanePictures(f"{plane.name} plane at {axis} = {plane.position}", pictures))
    return shown


def _training_pictures(run: Run) -> dict[str, Picture]:
    pictures = {}
    for role in ROLES:
        curves = read_curves(run.network_directory(role) / "curves.jsonl")
        if curves is not None and len(curves.iterations):
            pictures[role] = embedded(f"{role} training curves", curves_png(curves))
    return pictures


def _template() -> jinja2.Template:
    environment = html_environment("pipeline.viewer")
    environment.filters |= {
        "count": short_number,
        "duration": duration,
        "memory": memory_size,
        "score": score_text,
        "stage": _stage_row,
    }
    return environment.get_template("report.html")


def _stage_row(stage: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a stage; None where its summary lacks one."""
    columns = ("blocks_done", "blocks_skipped", "blocks_failed", "seconds", "voxels_per_second", "peak_worker_memory")
    return {name: stage.get(name) for name in columns}
