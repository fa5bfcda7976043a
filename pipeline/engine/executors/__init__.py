"""Where workers run: in this process, in processes of this machine, in SLURM jobs."""
