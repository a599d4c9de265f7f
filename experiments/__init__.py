"""The commands: whole data sets certified, and their results turned into tables and plots."""
