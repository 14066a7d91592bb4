"""Geometric unmixing: endmembers are corners of the cloud of spectra (VCA, NFINDR) or of its polytope (SSS)."""

from scalehsi.models.geometric.sss import SSS
from scalehsi.models.geometric.vertices import NFINDR, VCA

__all__ = ["NFINDR", "SSS", "VCA"]
