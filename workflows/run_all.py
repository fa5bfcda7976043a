"""Everything: import, train the teacher, distil the student, predict, segment, score, report. Run again to continue."""

from pipeline.commands.run_all import main

if __name__ == "__main__":
    main()
