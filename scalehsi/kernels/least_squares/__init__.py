"""Least squares of a block of pixels: solve the abundances, sum what the endmembers need, update the endmembers."""

from scalehsi.kernels.least_squares.passes import abundances, improve, objective, update

__all__ = ["abundances", "improve", "objective", "update"]
