"""Export volumes, meshes, skeletons and the graph in the formats of other programs."""

from pipeline.commands.export import main

if __name__ == "__main__":
    main()
