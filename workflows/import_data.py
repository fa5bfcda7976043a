"""Import the sources of a run (files, the phantom, public data sets) into its containers."""

from pipeline.commands.import_data import main

if __name__ == "__main__":
    main()
