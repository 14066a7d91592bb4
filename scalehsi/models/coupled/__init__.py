"""Factorisations whose endmembers have a structure: a background and an edge."""

from scalehsi.models.coupled.background_nmf import BackgroundNMF

__all__ = ["BackgroundNMF"]
