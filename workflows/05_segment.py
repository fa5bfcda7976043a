"""Write segmentations at the chosen thresholds."""

from pipeline.commands.segment import main

if __name__ == "__main__":
    main()
