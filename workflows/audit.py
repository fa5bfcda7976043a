"""Check everything that the block-wise stages wrote: chunks against checksums, graph against fragments."""

from pipeline.commands.audit import main

if __name__ == "__main__":
    main()
