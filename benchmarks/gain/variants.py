"""The variants of the benchmark: which terms of distillation each has, and what else it changes in a config."""

from __future__ import annotations

from typing import Any

TEACHERS = ("teacher", "teacher_embedding")
"""Variants that train a teacher."""

TERMS = ("node", "edge", "affinity", "inter_edge", "inter_affinity")

ABLATION_WEIGHTS = {"node": 0.0005, "edge": 0.01, "inter_edge": 0.05, "inter_affinity": 0.1}
"""Weights of the terms that the configs leave out, where a variant has them: so small that their parts of the loss are
a tenth of the affinity graph's or less; the affinity graph has the config's weight."""

EMBEDDING_CHANNELS = 16
"""Of networks that have plain affinities only, where a variant compares embeddings."""

VARIANTS: dict[str, tuple[str, ...]] = {
    "teacher": (),
    "teacher_embedding": (),
    "alone": (),
    "alone_near": (),
    **{TERMS[count - 1]: TERMS[:count] for count in range(1, len(TERMS))},
    "full": TERMS,
    "recipe": (),
    "recipe_embedding": (),
    "touching": TERMS[:3],
    "cross_section": (),
    "learning_teacher": (),
    "described": (),
    "recipe_unlabelled": (),
    "flow": (),
    "flow_unlabelled": (),
    "flow_logits_unlabelled": (),
    "flow_full_unlabelled": (),
    "full_unlabelled": TERMS,
    "full_unlabelled_watershed": TERMS,
    "full_unlabelled_components": TERMS,
}
"""The distillation terms of each variant: one more from row to row. `teacher_embedding` teaches those that compare
embeddings, where the config's teacher has none: its affinities are the cosines of an embedding. `recipe` is the
config as it is, `recipe_embedding` the same from the teacher with embeddings; `flow` is graph flow in its place,
`flow_logits` with logits, `flow_full` with these and a critic, as published; `unlabelled` ones also see raw without
labels, and the last two have instances there, from the teacher's affinities
(`student.distillation.unlabelled.instances`). `touching` has the terms of `affinity`, as a segmentation needs them in
place of the published form; `cross_section`, `learning_teacher` and `described` add one thing to the config, see
`SETTINGS`."""

SETTINGS: dict[str, dict[str, Any]] = {
    "touching": {
        "student.distillation.edges": "touching",
        "student.distillation.node_comparison": "directions",
        "student.distillation.least_depth": 8,
        "student.distillation.node_weight": 0.05,
        "student.distillation.edge_weight": 0.05,
    },
    "cross_section": {"student.distillation.cross_section_weight": 0.5},
    "learning_teacher": {"student.distillation.teacher_learning_rate": 0.0005},
    "described": {"targets.descriptors": {"learnt_by": "student"}},
}
"""What else a variant changes in the config. Descriptors are the student's: its teacher is that of all variants."""

EMBEDDING = ("cross_section", "recipe_embedding")
"""Variants of the config whose networks have embeddings; the latter is the control of terms that compare them."""

ABLATION = ("teacher", "alone", "alone_near", *TERMS[:-1], "full", "recipe")
"""The variants that tell what the terms of graph relation distillation do."""

INSTANCES = ("full_unlabelled", "full_unlabelled_watershed", "full_unlabelled_components")
"""The variants that tell what instances are good for where nothing is labelled."""

SEMI_SUPERVISED = (
    "teacher",
    "alone",
    "recipe",
    "recipe_unlabelled",
    "flow",
    "flow_unlabelled",
    "flow_logits_unlabelled",
    "flow_full_unlabelled",
    *INSTANCES,
)
"""The variants that tell what raw without labels is good for."""
