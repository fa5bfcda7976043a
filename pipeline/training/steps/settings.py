"""What of a config decides the weights of a network: a training continues only where none of it has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config import Config, dump_config
from ...errors import UserError
from ...run import file_digest

FREE = {
    "iterations",
    "device",
    "loader_workers",
    "loader_cache",
    "checkpoint_every",
    "keep_checkpoints",
    "validate_every",
    "validate_shape",
    "log_every",
    "picture_every",
}
"""Keys of a training section that may change between two runs of one training."""
NOTHING = "null"
"""A key that is not there and one that is empty are the same."""
NEWER = {
    "volumes.images": "false",
    "teacher.network.background": "false",
    "student.network.background": "false",
    "teacher.network.stem": "[1, 1, 1]",
    "student.network.stem": "[1, 1, 1]",
    "teacher.network.activation": '"elu"',
    "student.network.activation": '"elu"',
    "teacher.network.affinity_offsets": "[]",
    "student.network.affinity_offsets": "[]",
    "targets.balanced": "true",
    "teacher.training.average": "0.0",
    "student.training.average": "0.0",
    "student.offsets": "null",
    "student.distillation.node_comparison": '"raw"',
    "student.distillation.edges": '"all"',
    "student.distillation.least_depth": "0",
    "student.distillation.cross_section_weight": "0.0",
    "student.distillation.cross_section_target": '"labels"',
    "volumes.unlabelled": "{}",
}
"""Keys that came later, with the value that stands for what was before: then they are left out, so that trainings of
older versions continue."""


FILES = {"teacher.checkpoint", "teacher.module", "paraphraser.checkpoint"}
"""Settings that are files which a student learns from; a finished student does not need them any more."""
ARRAYS = "teacher.affinities."
"""Settings that are arrays which it learns from begin so, and end as the keys that name them."""


def training_settings(
    config: Config,
    role: str,
    teacher: Path | None,
    paraphraser: Path | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Dotted config paths and their values as JSON: all that decides the weights of a network.

    Args:
        config: the run's config.
        role: `teacher` or `student`.
        teacher: checkpoint of the teacher that the student learns from.
        paraphraser: file of the paraphrasers that stand between them.
        given: what tells a teacher that is no network of ours from others, by dotted paths.
    """
    document = dump_config(config)
    volumes = document["volumes"]
    unlabelled = volumes["unlabelled"] if role == "student" else []
    sources = {region["source"] for region in (*volumes["train"], *unlabelled)}
    parts: dict[str, Any] = {
        "seed": document["seed"],
        "augment": document["augment"],
        "targets": _targets_settings(config, role),
        "volumes.train": {str(index): region for index, region in enumerate(volumes["train"])},
        "volumes.sources": {name: volumes["sources"][name] for name in sorted(sources)},
        "volumes.images": volumes["images"],
        f"{role}.network": document[role]["network"],
        f"{role}.training": {key: value for key, value in document[role]["training"].items() if key not in FREE},
    }
    if role == "student":
        parts["student.offsets"] = document["student"]["offsets"]
        parts["volumes.unlabelled"] = {str(index): region for index, region in enumerate(unlabelled)}
        parts["student.distillation"] = _distillation_settings(document["student"]["distillation"], bool(unlabelled))
        for path, file in (("teacher.checkpoint", teacher), ("paraphraser.checkpoint", paraphraser)):
            if file is not None:
                parts[path] = file_digest(file)
        parts |= given or {}
    settings: dict[str, str] = {}
    for path, value in parts.items():
        _flatten(path, value, settings)
    return {path: value for path, value in settings.items() if NEWER.get(path) != value}


def refuse_changes(trained: dict[str, str], wanted: dict[str, str], checkpoint: Path) -> None:
    """Compare what a checkpoint was trained with and what the config asks for now.

    Raises:
        UserError: they differ; names the first difference and the ways out.
    """
    role = "student" if any(path.startswith("student.") for path in wanted) else "teacher"
    for path in sorted(trained.keys() | wanted.keys()):
        before, now = trained.get(path, NOTHING), wanted.get(path, NOTHING)
        is_file = path in FILES or (path.startswith(ARRAYS) and path.endswith(".paths"))
        if before == now or (is_file and path not in wanted):
            continue
        change = "is another file now" if is_file else f"was {before}, is {now}"
        use = ", or set teacher.checkpoint to it to use it as it is" if role == "teacher" else ""
        raise UserError(
            f"{change}, since {checkpoint} was trained; put it back, or train anew in another run_directory or after "
            f"deleting {checkpoint.parent}{use}",
            path,
        )


def _targets_settings(config: Config, role: str) -> dict[str, Any]:
    """Without what has no effect: descriptors that the other network learns."""
    targets: dict[str, Any] = dump_config(config)["targets"]
    learns = config.targets.descriptors_of(role) is not None
    kept = {key: value for key, value in (targets["descriptors"] or {}).items() if key != "learnt_by"}
    return {**targets, "descriptors": kept if learns else None}


def _distillation_settings(distillation: dict[str, Any] | None, unlabelled: bool) -> dict[str, Any] | None:
    """Without what has no effect: how unlabelled regions are used where there are none, and where a file lies."""
    if distillation is None:
        return None
    kept = {key: value for key, value in distillation.items() if unlabelled or key != "unlabelled"}
    flow = distillation["graph_flow"]
    if flow is not None and flow["paraphraser"] is not None:
        settings = {key: value for key, value in flow["paraphraser"].items() if key != "checkpoint"}
        kept["graph_flow"] = {**flow, "paraphraser": settings}
    return kept


def _flatten(path: str, value: Any, settings: dict[str, str]) -> None:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            _flatten(f"{path}.{key}", part, settings)
    else:
        settings[path] = json.dumps(value, sort_keys=True)
