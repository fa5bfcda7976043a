"""What each format says about where its voxels lie: one module for each way to say it."""
