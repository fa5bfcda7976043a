"""Teachers that give affinities without embeddings: the terms that look at affinities, and exported modules."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from funlib.geometry import Coordinate
from torch import nn
from training_state import curves

from pipeline.config import AdversarialConfig, DistillationConfig, LogitsConfig, Offset, TorchscriptTeacherConfig
from pipeline.distillation import UNKNOWN, EmbeddedPatch, cosine_to_affinity, padded_affinities
from pipeline.errors import UserError
from pipeline.networks import build_network
from pipeline.run import Run
from pipeline.training import describe_training, train_student, train_teacher
from pipeline.training.objective.affinity_distiller import AffinityDistiller
from pipeline.training.objective.distiller import Distiller
from pipeline.training.objective.given_teachers import ScriptedTeacher, StoredTeacher
from pipeline.training.objective.views import View
from pipeline.volumes import Box

MakeRun = Callable[..., Run]
NEIGHBOURS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
OFFSETS = (*NEIGHBOURS, (0, -4, 0), (0, 0, 3))
SHAPE = (3, 12, 14)


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, *SHAPE, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher


def all_of(shape: tuple[int, int, int]) -> Box:
    return Box.of_shape(Coordinate(shape))


@pytest.mark.parametrize("images", [False, True], ids=["volume", "images"])
@pytest.mark.parametrize("opposite", [False, True], ids=["as they are", "from the partner back"])
def test_given_affinities_teach_as_the_network_that_they_are_of(images: bool, opposite: bool) -> None:
    """Affinity graph, logits and critic, with gradients; the channels may be those of the opposite offsets."""
    offsets = tuple(offset for offset in OFFSETS if not images or offset[0] == 0)
    config = DistillationConfig(logits=LogitsConfig(), adversarial=AdversarialConfig(critic_widths=(4,)))
    student, teacher = embeddings()

    class Fixed(nn.Module):
        """Gives the teacher's embedding whatever it sees."""

        def __init__(self) -> None:
            super().__init__()
            network = build_network("section_unet", sections=1, widths=(4, 8))
            self.dimensions, self.least_length, self.config, self.taps = 3, 0.0, network.config, ()
            self.affinity_offsets: tuple[Offset, ...] = ()

        def forward(self, raw: torch.Tensor) -> torch.Tensor:
            """(b, d, z, y, x)."""
            return teacher

    part = all_of(SHAPE)
    by_network = Distiller(config, offsets, View(Fixed(), part), View(Fixed(), part), None, seed=0, images=images)  # type: ignore[arg-type]
    channels = tuple((-z, -y, -x) for z, y, x in offsets) if opposite else offsets
    given = cosine_to_affinity(padded_affinities(EmbeddedPatch(teacher), channels)[0])
    torch.manual_seed(1)
    by_disk = AffinityDistiller(config, offsets, part, StoredTeacher(part, channels), seed=0, images=images)
    by_disk.load_state_dict({name: value for name, value in by_network.state_dict().items() if "predictions" in name})
    results: list[Any] = []
    batch = {"raw": torch.zeros(2, 1, *SHAPE), "labels": torch.zeros(2, *SHAPE, dtype=torch.long), "taught": given}
    for distiller in (by_network, by_disk):
        student.grad = None
        total, terms = distiller(EmbeddedPatch(student), {}, batch, 5)
        total.backward()
        assert student.grad is not None
        results.append((total.detach(), terms, student.grad.clone()))
    (total, terms, gradient), (same, also, equal) = results
    assert {"affinity", "logits", "adversarial"} <= also.keys() <= terms.keys()
    torch.testing.assert_close(same, total, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(equal, gradient, rtol=1e-3, atol=1e-6)


def test_unknown_affinities_teach_nothing() -> None:
    """Whatever the student says there changes neither loss nor gradient; all unknown is no loss, and has a graph."""
    config = DistillationConfig(logits=LogitsConfig())
    student, teacher = embeddings()
    part = all_of(SHAPE)
    distiller = AffinityDistiller(config, NEIGHBOURS, part, StoredTeacher(part, NEIGHBOURS), seed=0)
    given = cosine_to_affinity(padded_affinities(EmbeddedPatch(teacher), NEIGHBOURS)[0])
    given[:, :, :, 6:] = UNKNOWN
    totals = []
    for change in (0.0, 1.0):
        changed = student.detach().clone()
        changed[:, :, :, 6:] += change
        changed.requires_grad_()
        total, _ = distiller(EmbeddedPatch(changed), {}, {"taught": given}, 0)
        total.backward()
        assert changed.grad is not None
        assert float(changed.grad[:, :, :, 6:].abs().max()) == 0 and float(changed.grad.abs().max()) > 0
        totals.append(float(total.detach()))
    assert totals[0] == totals[1] > 0
    nothing, _ = distiller(EmbeddedPatch(student), {}, {"taught": torch.full_like(given, UNKNOWN)}, 0)
    assert float(nothing.detach()) == 0 and nothing.requires_grad


class Neighbours(nn.Module):
    """Valid along all axes: how alike a voxel and its neighbours are, and a channel of no interest before them."""

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """(b, 1, z, y, x) to (b, 4, z - 2, y - 4, x - 4)."""
        inner = raw[:, :, 1:-1, 2:-2, 2:-2]
        before = (raw[:, :, :-2, 2:-2, 2:-2], raw[:, :, 1:-1, 1:-3, 2:-2], raw[:, :, 1:-1, 2:-2, 1:-3])
        return torch.cat([inner * 0 + 7] + [1 - (inner - other).abs() / 510 for other in before], dim=1)


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.pt"
    torch.jit.script(Neighbours()).save(str(path))
    return path


def scripted(module: Path, **changes: object) -> dict[str, object]:
    return {
        "kind": "torchscript",
        "module": str(module),
        "input_shape": [5, 20, 20],
        "output_shape": [3, 16, 16],
        "offsets": [list(offset) for offset in NEIGHBOURS],
        "channels": [1, 2, 3],
        "intensities": [0.0, 255.0],
        **changes,
    }


def test_an_exported_module_teaches_tile_by_tile_what_it_gives_of_the_whole(module: Path) -> None:
    """The patch is no multiple of the tile, so that tiles overlap; what is exported comes back as it was."""
    raw = torch.rand(2, 1, 7, 50, 33) * 2 - 1
    config = TorchscriptTeacherConfig.model_validate_json(json.dumps(scripted(module)))
    teacher = ScriptedTeacher(config, module, Coordinate(raw.shape[2:]), torch.device("cpu"))
    whole = Neighbours()((raw + 1) * 127.5)[:, 1:]
    assert teacher.part == Box(Coordinate(1, 2, 2), Coordinate(6, 48, 31))
    torch.testing.assert_close(teacher({"raw": raw}).values, whole)
    logits = config.model_copy(update={"output": "logits"})
    told = ScriptedTeacher(logits, module, Coordinate(raw.shape[2:]), torch.device("cpu"))({"raw": raw})
    torch.testing.assert_close(told.values, whole.sigmoid())


def test_a_student_learns_from_an_exported_module(make_run: MakeRun, module: Path) -> None:
    teaching = f"teacher={json.dumps(scripted(module))}"
    compared = f"student.distillation.offsets={json.dumps([list(offset) for offset in NEIGHBOURS])}"
    alone = "student.distillation.supervised_weight=0.0"
    run = make_run(teaching, compared, alone, "student.training.iterations=30")
    assert describe_training(run, "student").startswith("student: section_unet")
    path = train_student(run)
    told = [line["affinity"] for line in curves(run, "student") if "affinity" in line]
    assert len(told) == 30 and sum(told[-8:]) < 0.8 * sum(told[:8])
    module.unlink()
    assert train_student(make_run(teaching, compared, alone, "student.training.iterations=30")) == path
    with pytest.raises(UserError, match=r"^teacher.module: there is no file"):
        train_student(make_run(teaching, compared, alone, "student.training.iterations=50"))
    torch.jit.script(nn.Identity()).save(str(module))
    with pytest.raises(UserError, match=r"^teacher.module: is another file now"):
        train_student(make_run(teaching, compared, alone, "student.training.iterations=50"))


MISTAKES: dict[str, Any] = {
    "input_shape": (
        {"input_shape": [1, 20, 20], "output_shape": [1, 16, 16]},
        "teacher.output_shape: the module gives",
    ),
    "output_shape": ({"output_shape": [3, 14, 14]}, r"teacher.output_shape: the module gives \(3, 16, 16\) voxels"),
    "channels": ({"channels": [1, 2, 4]}, "teacher.channels: the module gives 4 channels"),
    "patch": (
        {"input_shape": [9, 20, 20], "output_shape": [7, 16, 16]},
        "student.training.patch_shape: the teacher takes",
    ),
    "offsets": (
        {"offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -2]]},
        r"teacher.offsets: no channel tells of \[0, 0, -1\]",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_module_that_is_not_what_the_config_says_is_refused(make_run: MakeRun, module: Path, mistake: str) -> None:
    changes, message = MISTAKES[mistake]
    compared = f"student.distillation.offsets={json.dumps([list(offset) for offset in NEIGHBOURS])}"
    run = make_run(f"teacher={json.dumps(scripted(module, **changes))}", compared)
    with pytest.raises(UserError, match=message):
        train_student(run)
    assert not run.network_directory("student").exists()


class Raising(nn.Module):
    """Takes nothing at all."""

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        if raw.dim() > 0:
            raise ValueError("takes nothing")
        return raw


class Times(nn.Module):
    """Three channels that are raw, so many times."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return (raw * self.factor).repeat(1, 3, 1, 1, 1)


@pytest.mark.parametrize(
    ("stand_in", "message"),
    [
        (Raising(), r"^teacher.input_shape: it takes no raw of \(1, 1, 3, 8, 8\): .*takes nothing"),
        (Times(4.0), r"^teacher.output: the module gives -4 to 4, but affinities are 0 to 1; are they logits\?"),
        (Times(math.nan), r"^teacher.module: it gives nan to nan of raw"),
    ],
    ids=["raises", "logits", "no numbers"],
)
def test_a_module_that_gives_no_affinities_is_one_line(tmp_path: Path, stand_in: nn.Module, message: str) -> None:
    torch.jit.script(stand_in).save(str(tmp_path / "theirs.pt"))
    same = {"input_shape": [3, 8, 8], "output_shape": [3, 8, 8], "channels": None, "intensities": [-1.0, 1.0]}
    module = tmp_path / "theirs.pt"
    config = TorchscriptTeacherConfig.model_validate_json(json.dumps(scripted(module, **same)))
    raw = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 1, 3, 8, 8)
    with pytest.raises(UserError, match=message):
        ScriptedTeacher(config, module, Coordinate(3, 8, 8), torch.device("cpu"))({"raw": raw})
    if isinstance(stand_in, Times) and math.isfinite(stand_in.factor):
        logits = config.model_copy(update={"output": "logits"})
        told = ScriptedTeacher(logits, module, Coordinate(3, 8, 8), torch.device("cpu"))({"raw": raw})
        assert 0 < told.values.min() < told.values.max() < 1


def test_black_and_white_are_two(module: Path) -> None:
    with pytest.raises(ValueError, match="intensities names two different values"):
        TorchscriptTeacherConfig.model_validate_json(json.dumps(scripted(module, intensities=[1.0, 1.0])))


def test_what_is_no_module_is_refused_and_no_such_teacher_is_trained(make_run: MakeRun, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no module")
    compared = f"student.distillation.offsets={json.dumps([list(offset) for offset in NEIGHBOURS])}"
    run = make_run(f"teacher={json.dumps(scripted(broken))}", compared)
    with pytest.raises(UserError, match=r"^teacher.module: .* cannot be read as a TorchScript module"):
        train_student(run)
    with pytest.raises(UserError, match=r"^teacher.kind: a teacher of the kind torchscript is not trained"):
        train_teacher(run)
