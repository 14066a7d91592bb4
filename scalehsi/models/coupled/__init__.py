"""Factorisations whose endmembers have a structure: a background and an edge, or spectra of several signals."""

from scalehsi.models.coupled.background_nmf import BackgroundNMF
from scalehsi.models.coupled.coupled_nmf import CoupledNMF

__all__ = ["BackgroundNMF", "CoupledNMF"]
