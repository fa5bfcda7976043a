"""Over-segment the affinities block by block into fragments."""

from pipeline.commands.extract_fragments import main

if __name__ == "__main__":
    main()
