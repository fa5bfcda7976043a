"""Look at the run in neuroglancer, or write its report anew (--report)."""

from pipeline.commands.view import main

if __name__ == "__main__":
    main()
