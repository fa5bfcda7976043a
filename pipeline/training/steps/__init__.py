"""The training loop: one step, its state, logs and pictures."""
