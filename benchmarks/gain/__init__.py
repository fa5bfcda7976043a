"""Cells of the distillation benchmark: what each is, how it runs, how fast its network predicts, and their table."""
