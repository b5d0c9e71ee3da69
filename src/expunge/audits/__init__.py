"""Audits, one file per question: the file's name is its command-line name."""
