"""What a cell of the benchmark is: data set, variant and seed, and the config that these three decide."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config import Config, dump_config, load_config
from pipeline.run import Run, read_json, write_json

from .datasets import DATASETS, ROOT, labelled_volumes, unlabelled_volumes
from .variants import ABLATION_WEIGHTS, EMBEDDING, EMBEDDING_CHANNELS, SETTINGS, TEACHERS, VARIANTS

FLOW_CONFIG = ROOT / "configs" / "fib25_graph_flow.json"
"""Holds the weights of graph flow, for all data sets."""
CRITIC = {"weight": 0.02, "critic_learning_rate": 0.0001, "critic_steps": 1, "penalty": 10.0}
"""Adversarial distillation, where a variant has it."""
TEACHER_SEED = 0
"""One teacher serves the students of all seeds."""
QUICK = {
    f"{role}.training.{key}": value
    for role in ("teacher", "student")
    for key, value in {"iterations": 15, "validate_every": 15, "warm_up": 5}.items()
}
QUICK_PARAPHRASER = 10
"""Iterations."""


@dataclass(frozen=True)
class Plan:
    """Which cells there are, and the settings that all of them share.

    Attributes:
        out: folder of all cells.
        overrides: `key=value` for every cell; of distillation, for those that have any.
        quick: a few iterations only.
    """

    out: Path
    overrides: tuple[str, ...] = ()
    quick: bool = False

    def cell(self, dataset: str, variant: str, seed: int) -> Cell:
        """The cell of a data set, a variant and a seed."""
        return Cell(self, dataset, variant, seed)

    def teacher(self, dataset: str) -> Cell:
        """The teacher of a data set."""
        return self.cell(dataset, "teacher", TEACHER_SEED)


@dataclass(frozen=True)
class Cell:
    """One network of the table: trained, run over the validation region, and scored there."""

    plan: Plan
    dataset: str
    variant: str
    seed: int

    @property
    def directory(self) -> Path:
        """The run directory of the cell."""
        return self.plan.out / self.dataset / self.variant / f"seed{self.seed}"

    @property
    def result(self) -> Path:
        """What is left of it in the table."""
        return self.directory / "cell.json"

    @property
    def role(self) -> str:
        """Which network of the config it trains."""
        return "teacher" if self.variant in TEACHERS else "student"

    @property
    def compares_embeddings(self) -> bool:
        """Whether a term of it does."""
        return bool(VARIANTS[self.variant]) or self.variant in EMBEDDING

    @property
    def teacher(self) -> Cell:
        """Which teaches it."""
        embeds = self.channels_of("teacher") > 0 or not self.compares_embeddings
        return self.plan.cell(self.dataset, TEACHERS[0 if embeds else 1], TEACHER_SEED)

    def channels_of(self, role: str) -> int:
        """Channels of the embedding that the config gives a network."""
        network = json.loads(self.config_file.read_text())[role]["network"]
        return int(network.get("embedding_channels", EMBEDDING_CHANNELS))

    @property
    def config_file(self) -> Path:
        """The config file of the data set."""
        return ROOT / "configs" / DATASETS[self.dataset].config

    @property
    def unused_section(self) -> str:
        """The config section of the network that has no part in the cell."""
        if self.role == "teacher":
            return "student"
        return "teacher" if self.variant in ("alone", "alone_near") else ""

    def overrides(self) -> list[str]:
        """What the cell changes in the config, as `key=value`."""
        given = list(self.plan.overrides)
        region = json.loads(self.config_file.read_text())["volumes"]["validate"]
        changes: dict[str, Any] = {
            "run_directory": str(self.directory.resolve()),
            "seed": self.seed,
            "volumes.segment": region,
            **(QUICK if self.plan.quick else {}),
        }
        if self.role == "teacher":
            changes["predict.network"] = "teacher"
        elif self.variant in ("alone", "alone_near"):
            changes["student.distillation"] = None
            given = [override for override in given if not override.startswith("student.distillation")]
            if self.variant == "alone":
                changes["student.offsets"] = None
        else:
            changes["teacher.checkpoint"] = str(self.teacher.checkpoint.resolve())
            changes |= self.term_weights() | SETTINGS.get(self.variant, {})
            changes |= self.flow_terms()
        if "_unlabelled" in self.variant:
            changes |= unlabelled_volumes(self.dataset)
            instances = self.variant.partition("_unlabelled")[2].removeprefix("_")
            changes |= {"student.distillation.unlabelled.instances": instances} if instances else {}
        changes |= self.embeddings() | labelled_volumes(self.dataset)
        return [f"{key}={json.dumps(value)}" for key, value in changes.items()] + given

    def term_weights(self) -> dict[str, float]:
        """The weights of terms that the variant changes in the config."""
        present = VARIANTS[self.variant]
        weights = {term: weight if term in present else 0.0 for term, weight in ABLATION_WEIGHTS.items()}
        if "affinity" not in present:
            weights["affinity"] = 0.0
        return {f"student.distillation.{term}_weight": weight for term, weight in weights.items()} if present else {}

    def embeddings(self) -> dict[str, Any]:
        """What the variant changes in the config so that there are embeddings to compare."""
        changes: dict[str, Any] = {}
        if self.compares_embeddings and not self.channels_of("student"):
            changes["student.network.embedding_channels"] = EMBEDDING_CHANNELS
        if TEACHERS[1] in (self.variant, self.teacher.variant):
            changes["teacher.network.embedding_channels"] = EMBEDDING_CHANNELS
            changes["teacher.network.affinity_offsets"] = []
        return changes

    def flow_terms(self) -> dict[str, Any]:
        """What the variant changes in the config to have graph flow in the place of graph relations."""
        if not self.variant.startswith("flow"):
            return {}
        published = json.loads(FLOW_CONFIG.read_text())["student"]["distillation"]
        if self.variant.startswith("flow_full"):
            published["adversarial"] = CRITIC
        elif not self.variant.startswith("flow_logits"):
            del published["logits"]
        if self.plan.quick:
            published["graph_flow"]["paraphraser"]["iterations"] = QUICK_PARAPHRASER
        return {"student.distillation": published}

    @cached_property
    def run(self) -> Run:
        """The run, with its effective config."""
        return Run(load_config(self.config_file, self.overrides()))

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint of its network; the folder while there is none."""
        folder = self.directory / self.role
        return max(folder.glob("checkpoint_*.pt"), default=folder)

    def is_finished(self) -> bool:
        """Whether its result is there and was made with the present settings.

        Raises:
            SystemExit: it was made with other settings; names one.
        """
        stored = read_json(self.result)
        if not stored:
            return False
        change = first_change(stored["settings"], self.run.config, self.unused_section)
        if change is not None:
            raise SystemExit(f"{self.directory} was made with another {change}; use another --out, or delete it")
        return True

    def save(self, **facts: Any) -> None:
        """Store its result, with the settings that its run wrote down when it began."""
        identity = {"dataset": self.dataset, "variant": self.variant, "seed": self.seed}
        settings = flat_settings(read_json(self.directory / "config.json"))
        write_json(self.result, {**identity, **facts, "settings": settings})


PLACES = ("run_directory", "teacher.checkpoint")
"""Settings that say where things lie, which may differ from machine to machine."""
WITHOUT_INFLUENCE = ("teacher.training.loader_workers", "student.training.loader_workers")
"""Settings that no result depends on: batches are the same from any number of processes."""


def flat_settings(document: dict[str, Any]) -> dict[str, Any]:
    """Dotted config paths and their values, but for those that may differ between equal results."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        inner = flat_settings(value) if isinstance(value, dict) and value else {}
        flat |= {f"{key}.{path}": part for path, part in inner.items()} if inner else {key: value}
    return {path: value for path, value in flat.items() if path not in PLACES + WITHOUT_INFLUENCE}


def first_change(stored: dict[str, Any], config: Config, unused_section: str) -> str | None:
    """The first setting that differs from a stored one, outside a section. A key that came with a later version counts
    only where it is not at its default.
    """
    stored = flat_settings(stored)
    present = flat_settings(dump_config(config))
    chosen = flat_settings(config.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    for path in sorted(stored.keys() | present.keys()):
        if path.split(".")[0] == unused_section:
            continue
        if path in stored and path in present and stored[path] != present[path]:
            return path
        if path not in stored and path in chosen:
            return path
    return None


def chooses_offsets(dataset: str) -> bool:
    """Whether the data set's config has the labels teach the student fewer offsets than the teacher."""
    student = json.loads((ROOT / "configs" / DATASETS[dataset].config).read_text())["student"]
    return student.get("offsets") is not None


def planned_cells(plan: Plan, datasets: Sequence[str], variants: Sequence[str], seeds: Iterable[int]) -> list[Cell]:
    """The chosen cells, teachers first, then seed by seed; other cells that the table needs are added: the teachers
    always, and the student alone.
    """
    students = [variant for variant in VARIANTS if variant in {*variants, "alone"} - set(TEACHERS)]
    if set(variants) <= set(TEACHERS):
        students = []
    cells = [
        plan.cell(dataset, variant, seed)
        for seed in seeds
        for dataset in datasets
        for variant in students
        if variant != "alone_near" or chooses_offsets(dataset)
    ]
    teachers = [plan.teacher(dataset) for dataset in datasets]
    if TEACHERS[1] in variants:
        teachers += [plan.cell(dataset, TEACHERS[1], TEACHER_SEED) for dataset in datasets]
    return list(dict.fromkeys([*teachers, *(cell.teacher for cell in cells)])) + cells


def finished_results(out: Path) -> list[dict[str, Any]]:
    """The results of all finished cells below a folder."""
    return [read_json(path) for path in sorted(out.glob("*/*/seed*/cell.json"))]
