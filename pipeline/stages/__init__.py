"""What is computed, one file per stage: predict, fragments, region_graph, agglomerate, segment."""
