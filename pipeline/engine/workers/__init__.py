"""What a worker process does, and its connections to the driver and to daisy."""
