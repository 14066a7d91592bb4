"""Makes ``python -m scalehsi`` the same as ``scalehsi``."""

from __future__ import annotations

import sys

from scalehsi.cli import main

if __name__ == "__main__":
    sys.exit(main())
