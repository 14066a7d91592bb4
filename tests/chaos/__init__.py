"""Random signals to the processes of random commands: ``python -m tests.chaos --runs 200 [--seed S] [--log FILE]``.

A run starts a command, sends SIGINT, SIGTERM or SIGKILL to the client (which holds scheduler and nannies too), to a
worker or to all of them at a random time, and looks at what is left: exit status, messages, processes, files. Then it
runs the command again, with ``--resume`` where there is a checkpoint, and compares the numbers with those of an
undisturbed run.

A run is drawn from the seed and its number alone. With ``--log`` each is a line of JSON in a file, and runs that are
there already are not repeated, so that many runs can be done in pieces; ``--only-run N`` repeats one.
"""
