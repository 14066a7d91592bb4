"""Arithmetic of the steps before a fit: power laws from sums, spikes, noise, shifts along energy."""
