"""Gaussian processes on a regular grid, with outputs that share one spatial covariance: exact, by its structure.

Model of maps ``y_t`` (t = 1..T) on a grid of ``(H, W)`` pixels: covariance ``(K_y x K_x) x B + I x D``, with a
covariance along each axis, a matrix ``B = L L' + diag(w)`` between the maps, and the noise ``D = diag(sigma_t^2)`` of
each. Nothing larger than the maps, or than the square of an axis, is ever made.

Letters: H, W pixels along y and x, T maps, lengths in pixels.
"""
