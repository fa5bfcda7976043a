"""Score a run against its labels, or with --prediction and --labels any two label volumes."""

from pipeline.commands.evaluate import main

if __name__ == "__main__":
    main()
