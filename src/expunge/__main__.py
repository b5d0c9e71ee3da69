"""``python -m expunge`` is ``expunge``."""

from expunge.cli import main

main()
