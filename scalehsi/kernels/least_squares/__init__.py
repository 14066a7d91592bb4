"""Least-squares NMF over a block of pixels: solve the pixels, sum what the endmembers need, improve the endmembers."""

from scalehsi.kernels.least_squares.passes import abundances, improve, objective, update

__all__ = ["abundances", "improve", "objective", "update"]
