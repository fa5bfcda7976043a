"""Whether what is on disk is still what was computed, and how it is made again."""
