"""Train the student, distilled from the teacher, which is trained first if it is missing. Run again to continue."""

from pipeline.commands.distill import main

if __name__ == "__main__":
    main()
