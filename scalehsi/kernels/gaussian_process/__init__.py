"""Gaussian processes for maps on a regular grid: covariances, likelihood, posterior mean and standard deviation.

Model of maps ``y_t`` (t = 1..T) on a grid of ``(H, W)`` pixels: covariance ``(K_y x K_x) x B + I x D``. ``K_y`` and
``K_x`` are the spatial covariances along the two axes, ``B = L L' + diag(w)`` couples the maps, and
``D = diag(sigma_t^2)`` is the noise of each map. All formulas are exact and use the structure of the grid: no array is
larger than the maps or than the square of one axis. Kernels with the ending "-radial" depend on the distance between
two pixels instead of the product of two axes.

Letters: H, W pixels along y and x; T maps; lengths in pixels.
"""
