"""Stores, results and checkpoints as a stranger may make them, and the runs of commands on them.

`KINDS` has the kinds: what each is made of, and the function that spoils a good one. ``python -m tests.hostile`` runs
the commands on them and prints the table.
"""

from tests.hostile.kinds import KINDS, Kind, plant, planted

__all__ = ["KINDS", "Kind", "plant", "planted"]
