"""The checks of results files."""
