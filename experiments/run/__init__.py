"""The engine: typed settings, what they open, and the loop over images with its tasks."""
