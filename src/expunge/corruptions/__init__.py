"""Corruptions: one file each; the file name is its name in an experiment."""
