"""What is on disk about a run: progress, markers, failures, records of workers, the driver's lock."""
