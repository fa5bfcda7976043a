"""What leaves the run: its volumes, segments, meshes and graph in the formats of other programs, at any place."""
