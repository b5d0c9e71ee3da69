"""Comparison: methods side by side in the same worlds; from results to a record (no torch), or run from experiments."""
