"""Methods, one file per paper: the file's name is its command-line name."""
