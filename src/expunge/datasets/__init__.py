"""Data sets, one file each: the file's name is its command-line name."""
