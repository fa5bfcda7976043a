"""Where training samples come from: regions, augmentation, targets, loading in worker processes."""
