"""Add workers to a run that is under way: SLURM jobs, or processes of this machine, as `cluster.executor` says."""

from pipeline.commands.add_workers import main

if __name__ == "__main__":
    main()
