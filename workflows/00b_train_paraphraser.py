"""Train the paraphraser that graph flow needs; the teacher is trained first if it is missing. Run again to continue."""

from pipeline.commands.train_paraphraser import main

if __name__ == "__main__":
    main()
