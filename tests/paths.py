"""Where the repository lies, and the measured spectrum images beside it (tests that need them are skipped without)."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
