"""The command line: ``scalehsi COMMAND``."""

from scalehsi.cli.app import main

__all__ = ["main"]
