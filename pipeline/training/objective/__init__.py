"""What a training step minimises: losses, targets, distillation, validation."""
