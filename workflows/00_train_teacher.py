"""Train the teacher. Run again to continue after an interruption."""

from pipeline.commands.train_teacher import main

if __name__ == "__main__":
    main()
