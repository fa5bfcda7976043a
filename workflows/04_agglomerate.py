"""Build the region adjacency graph of the fragments and score its edges."""

from pipeline.commands.agglomerate import main

if __name__ == "__main__":
    main()
