"""Least squares of a block of pixels: solve the abundances, sum the terms for the endmembers, update the endmembers."""

from scalehsi.kernels.least_squares.passes import abundances, improve, objective, update

__all__ = ["abundances", "improve", "objective", "update"]
