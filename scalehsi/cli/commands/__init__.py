"""The commands of the command line, one file each: the docstring is the help text, `run` is the command."""
