"""Every mistake in a config is one line: the dotted path as the user wrote it, what is wrong, what would be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config, parse_config
from pipeline.config.__main__ import main
from pipeline.errors import UserError


def document() -> dict[str, Any]:
    """A valid config with every kind of section."""
    return {
        "run_directory": "runs/x",
        "volumes": {
            "sources": {"a": {"kind": "phantom"}, "file": {"kind": "file", "path": "x.h5"}},
            "train": [{"source": "a", "z_share": [0.0, 0.5]}],
            "segment": {"source": "a"},
        },
        "teacher": {"network": {"name": "mala"}},
        "student": {"network": {"name": "mala_tiny"}},
    }


REMOVED = "<removed>"

MISTAKES = [
    # unknown keys, with the nearest one or all of them
    ("predict.blocksize", [1, 2, 3], "predict.blocksize: unknown key; did you mean 'block_size'?"),
    ("volumes.validat", {}, "volumes.validat: unknown key; did you mean 'validate'?"),
    (
        "volumes.sources.file.voxelsize",
        [1, 1, 1],
        "volumes.sources.file.voxelsize: unknown key; did you mean 'voxel_size'?",
    ),
    ("rag.zzz", 1, "rag.zzz: unknown key; this section knows url"),
    (
        "student.network.sections",
        3,
        "student.network.sections: unknown key; this section knows name, embedding_channels, background, "
        "affinity_offsets, widths, decoder_widths, downsampling",
    ),
    ("teacher.training.iteration", 5, "teacher.training.iteration: unknown key; did you mean 'iterations'?"),
    # required keys
    ("run_directory", REMOVED, "run_directory: this key is required"),
    ("volumes.segment", REMOVED, "volumes.segment: this key is required"),
    ("volumes.sources.file.path", REMOVED, "volumes.sources.file.path: this key is required"),
    (
        "student.network.name",
        REMOVED,
        "student.network.name: this key is required: one of mala, mala_tiny, residual_unet, section_unet",
    ),
    # one of several sections
    (
        "student.network.name",
        "unet",
        'student.network.name: unknown network "unet", expected one of mala, mala_tiny, residual_unet, section_unet',
    ),
    (
        "volumes.sources.a.kind",
        "fil",
        'volumes.sources.a.kind: unknown kind "fil", expected one of file, phantom, public',
    ),
    # wrong types; nothing is converted
    ("seed", "7", 'seed: expected whole number ≥ 0, < 2147483648, got "7"'),
    ("seed", 7.0, "seed: expected whole number ≥ 0, < 2147483648, got 7.0"),
    ("augment.transpose_yx", 1, "augment.transpose_yx: expected true or false, got 1"),
    ("run_directory", "", 'run_directory: expected text (not empty), got ""'),
    ("teacher", 5, "teacher: expected an object {...} or null, got 5"),
    ("augment.elastic", True, "augment.elastic: expected an object {...} or null, got true"),
    ("volumes.train", 3, "volumes.train: expected list of sections, got 3"),
    ("volumes.train", ["a"], 'volumes.train.0: expected an object {...}, got "a"'),
    ("volumes.sources", [], "volumes.sources: expected object of named sections, got []"),
    ("student.training.gradient_clip", "off", 'student.training.gradient_clip: expected number > 0 or null, got "off"'),
    # vectors
    (
        "predict.block_size",
        [32, 256],
        'predict.block_size: expected [z, y, x] in voxels (3 whole numbers ≥ 1) or "auto", got [32, 256]',
    ),
    (
        "predict.block_size",
        [1, 2, 3, 4],
        'predict.block_size: expected [z, y, x] in voxels (3 whole numbers ≥ 1) or "auto", got [1, 2, 3, 4]',
    ),
    (
        "predict.block_size",
        32,
        'predict.block_size: expected [z, y, x] in voxels (3 whole numbers ≥ 1) or "auto", got 32',
    ),
    ("predict.block_size", [0, 8, 8], "predict.block_size.0: expected whole number > 0, got 0"),
    (
        "predict.offsets",
        [[-1, 0, 0], [0, -1]],
        "predict.offsets.1: expected [z, y, x] in voxels (3 whole numbers), got [0, -1]",
    ),
    ("augment.jitter", 1, "augment.jitter: unknown key; this section knows"),
    (
        "volumes.sources.file.voxel_size",
        [8, 8],
        "volumes.sources.file.voxel_size: expected [z, y, x] in nanometres (3 numbers > 0, fractions allowed) or null,"
        " got [8, 8]",
    ),
    (
        "teacher.network",
        {"name": "section_unet", "widths": [8]},
        "teacher.network.widths: expected list of whole numbers > 0 (at least 2), got [8]",
    ),
    # values out of range, and unions
    ("view.port", 99999, "view.port: expected whole number from 0 to 65535, got 99999"),
    ("cluster.executor", "locl", 'cluster.executor: expected "serial" or "local" or "slurm", got "locl"'),
    (
        "segment.thresholds",
        "bset",
        'segment.thresholds: expected list of numbers from 0 to 1 (not empty) or "best", got "bset"',
    ),
    ("segment.thresholds", [0.5, 2], "segment.thresholds.1: expected number from 0 to 1, got 2"),
    (
        "segment.thresholds",
        [],
        'segment.thresholds: expected list of numbers from 0 to 1 (not empty) or "best", got []',
    ),
    # sections that contradict themselves or each other
    ("volumes.segment.source", "b", "volumes: segment names the source 'b', which is not in sources (a, file)"),
    (
        "volumes.train",
        [{"source": "a", "z_share": [0.5, 0.5]}],
        "volumes.train.0: z_share must go from a smaller to a larger share",
    ),
    (
        "volumes.train",
        [{"source": "a", "begin": [4, 0, 0], "end": [4, 9, 9]}],
        "volumes.train.0: every component of end must be larger than that of begin",
    ),
    (
        "teacher",
        None,
        "config: student.distillation needs a teacher section; set it to null to train the student alone",
    ),
    (
        "student.offsets",
        [[0, 0, -1], [0, 0, -3]],
        "config: student.offsets names [0, 0, -3], which is not in targets.offsets",
    ),
    ("predict.offsets", [[0, 0, -1]], "config: predict.offsets must start with [-1,0,0], [0,-1,0], [0,0,-1]"),
    ("cluster.slurm.stages.predit", {"gpus": 1}, "cluster.slurm.stages.predit: unknown name; did you mean 'predict'?"),
    ("volumes.sources.a/b", {"kind": "phantom"}, "volumes.sources.a/b: a name may have letters, digits, - and _ only"),
]


@pytest.mark.parametrize(("key", "value", "line"), MISTAKES, ids=[f"{key}={value}"[:60] for key, value, _ in MISTAKES])
def test_a_mistake_is_one_clear_line(key: str, value: Any, line: str) -> None:
    config = document()
    *parents, last = key.split(".")
    section = config
    for parent in parents:
        section = section.setdefault(parent, {})
    if value is REMOVED:
        del section[last]
    else:
        section[last] = value
    with pytest.raises(UserError) as error:
        parse_config(config)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_the_valid_document_is_valid() -> None:
    assert parse_config(document())


def test_further_mistakes_are_counted_and_a_union_counts_once() -> None:
    config = document() | {"segment": {"thresholds": "x"}, "seed": -1, "foo": 1}
    with pytest.raises(UserError, match=r"\(and 2 more\)$"):
        parse_config(config)


def test_a_long_value_is_not_quoted_in_full() -> None:
    with pytest.raises(UserError) as error:
        parse_config(document() | {"seed": list(range(10_000))})
    assert len(str(error.value)) < 150


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"{", "line 1, column 2"),
        (b"", "line 1, column 1"),
        (b"[1]", "a config is a JSON object"),
        (b'{"seed": 1,\n "seed": 2}', "the key 'seed' appears twice in one section"),
        (b'{"seed": NaN}', "NaN is no JSON number"),
        (b"\xff\xfe{", "cannot be read as a config: it is no UTF-8 text"),
    ],
)
def test_a_file_that_is_no_config_is_named_with_the_reason(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: {line}")
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such config file"):
        load_config(tmp_path / "none.json")
    with pytest.raises(UserError, match="Is a directory"):
        load_config(tmp_path)


def test_check_prints_the_line_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document()))
    assert main(["check", str(path)]) == 0
    assert "valid" in capsys.readouterr().out
    assert main(["check", str(path), "--set", "sed=1"]) == 2
    assert capsys.readouterr().err == "error: sed: unknown key; did you mean 'seed'?\n"


def test_check_warns_where_fragments_reach_across_sections_of_anisotropic_voxels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document()))

    def warnings(*overrides: str) -> list[str]:
        assert main(["check", str(path), *(f"--set={override}" for override in overrides)]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: voxels")]

    size = "volumes.sources.a.voxel_size"
    (line,) = warnings(f"{size}=[40,4,4]")
    assert "40 x 4 x 4 nm" in line
    assert "fragments.in_plane true" in line
    assert not warnings(f"{size}=[40,4,4]", "fragments.in_plane=true")
    assert not warnings(f"{size}=[10,8,8]")


def test_check_warns_where_affinities_of_an_embedding_meet_faces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document()))

    def warned(*overrides: str) -> bool:
        assert main(["check", str(path), *(f"--set={override}" for override in overrides)]) == 0
        return "cosines of its embedding" in capsys.readouterr().out

    plain = "student.network.affinity_offsets=[[-1,0,0],[0,-1,0],[0,0,-1]]"
    assert warned()
    assert not warned("fragments.face_threshold=0")
    assert not warned("student.network.background=true")  # short embeddings say it
    assert not warned(plain)
    assert warned(plain.replace("[-1,0,0],", ""))
    long = "predict.offsets=[[-1,0,0],[0,-1,0],[0,0,-1],[0,-4,0]]"
    assert not warned("fragments.method=mutex_watershed", long)
