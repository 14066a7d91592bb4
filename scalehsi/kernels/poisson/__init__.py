"""Poisson NMF over a block of counts: solve the pixels, sum what the endmembers need, improve the endmembers."""

from scalehsi.kernels.poisson.passes import abundances, improve, improve_multiplicative, objective, update, update_from

__all__ = ["abundances", "improve", "improve_multiplicative", "objective", "update", "update_from"]
