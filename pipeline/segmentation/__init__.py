"""Segmentation algorithms, numpy in and numpy out: no files, no blocks, no databases."""

from .certainty import certainty_of
from .components import connected_components, drop_small, join_pairs, relabel, unique_ids
from .descriptors import descriptor_channels, descriptor_reach, local_shape_descriptors
from .fragmentation import make_fragments
from .graph import RegionGraph, merge_graphs, region_graph, region_graph_statistics
from .linkage import agglomerate_global, merge_scores
from .mutex import mutex_watershed
from .statistics import FragmentStatistics, fragment_statistics
from .watershed import seeded_watershed
from .waterz_linkage import MERGE_FUNCTIONS, agglomerate_waterz, waterz_edge_scores

__all__ = [
    "MERGE_FUNCTIONS",
    "FragmentStatistics",
    "RegionGraph",
    "agglomerate_global",
    "agglomerate_waterz",
    "certainty_of",
    "connected_components",
    "descriptor_channels",
    "descriptor_reach",
    "drop_small",
    "fragment_statistics",
    "join_pairs",
    "local_shape_descriptors",
    "make_fragments",
    "merge_graphs",
    "merge_scores",
    "mutex_watershed",
    "region_graph",
    "region_graph_statistics",
    "relabel",
    "seeded_watershed",
    "unique_ids",
    "waterz_edge_scores",
]
