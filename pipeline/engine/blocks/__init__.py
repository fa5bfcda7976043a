"""What a block and a stage are: the contract of stages, the grid, storage, checksums, empty blocks."""
