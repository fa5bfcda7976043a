"""How blocks run: any block-wise work on any number of workers, tracked, resumable, audited. Knows no stage."""
