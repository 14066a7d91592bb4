"""Helpers for arrays with one row per pixel: strips of rows, sparse counts, tile products and residuals."""
