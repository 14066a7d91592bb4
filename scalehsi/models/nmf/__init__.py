"""Non-negative matrix factorisation of spectrum images."""

from scalehsi.models.nmf.model import NMF

__all__ = ["NMF"]
