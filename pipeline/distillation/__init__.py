"""Losses: supervision of voxel embeddings by affinities, and graph relation distillation from teacher to student."""

from .affinities import AffinityGraphLoss, cosine_to_affinity, embedding_affinities
from .graph_relation import GraphRelationDistillation
from .instances import InstanceGraphLoss, instance_nodes
from .inter_image import InterImageGraphLoss
from .layers import LayerFeatures
from .memory import MemoryBank, MemoryEntry
from .patch import EmbeddedPatch
from .supervised import SupervisedAffinityLoss

__all__ = [
    "AffinityGraphLoss",
    "EmbeddedPatch",
    "GraphRelationDistillation",
    "InstanceGraphLoss",
    "InterImageGraphLoss",
    "LayerFeatures",
    "MemoryBank",
    "MemoryEntry",
    "SupervisedAffinityLoss",
    "cosine_to_affinity",
    "embedding_affinities",
    "instance_nodes",
]
