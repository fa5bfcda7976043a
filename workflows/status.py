"""How it stands with a run: stages, workers, errors, when it will be done. Reads files only; run it beside anything."""

from pipeline.commands.status import main

if __name__ == "__main__":
    main()
