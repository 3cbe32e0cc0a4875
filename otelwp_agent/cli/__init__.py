"""Command line: one file per command. Only `main.py` ends the process."""
