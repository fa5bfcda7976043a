"""emdistill: distil heavy electron microscopy segmentation networks and run them block by block."""

__version__ = "0.1.0"
