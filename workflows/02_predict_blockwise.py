"""Predict affinities block by block with the student (or teacher); imports the volume first if it is not imported."""

from pipeline.commands.predict_blockwise import main

if __name__ == "__main__":
    main()
