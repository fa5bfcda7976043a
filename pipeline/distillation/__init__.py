"""Losses: supervision of voxel embeddings by affinities, and distillation from teacher to student by graph relations,
graph flow, predictions, and a critic.
"""

from .adversarial import AdversarialLoss, gradient_penalty
from .affinities import AffinityGraphLoss, cosine_to_affinity, embedding_affinities, padded_affinities
from .critic import Critic
from .cross_section import PREVIOUS_SECTION, CrossSectionLoss
from .given import UNKNOWN, GivenAffinities, channel_of
from .graph_flow import GraphFlowLoss
from .graph_relation import GraphRelationDistillation
from .instances import InstanceGraphLoss, instance_nodes
from .inter_image import InterImageGraphLoss
from .layer_features import LayerFeatures
from .logits import LogitsLoss
from .memory import MemoryBank, MemoryEntry
from .paraphraser import Paraphraser
from .patch import EmbeddedPatch
from .precision import SMALLEST_NORM
from .supervised import SupervisedAffinityLoss
from .targets import affinity_targets, erode_boundaries

__all__ = [
    "PREVIOUS_SECTION",
    "SMALLEST_NORM",
    "UNKNOWN",
    "AdversarialLoss",
    "AffinityGraphLoss",
    "Critic",
    "CrossSectionLoss",
    "EmbeddedPatch",
    "GivenAffinities",
    "GraphFlowLoss",
    "GraphRelationDistillation",
    "InstanceGraphLoss",
    "InterImageGraphLoss",
    "LayerFeatures",
    "LogitsLoss",
    "MemoryBank",
    "MemoryEntry",
    "Paraphraser",
    "SupervisedAffinityLoss",
    "affinity_targets",
    "channel_of",
    "cosine_to_affinity",
    "embedding_affinities",
    "erode_boundaries",
    "gradient_penalty",
    "instance_nodes",
    "padded_affinities",
]
