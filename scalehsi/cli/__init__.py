"""The command line ``scalehsi COMMAND``; what each command does is in `scalehsi.cli.commands`, one file a command."""

from scalehsi.cli.app import main

__all__ = ["main"]
