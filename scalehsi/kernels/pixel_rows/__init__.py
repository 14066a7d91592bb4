"""Helpers for arrays with one row a pixel: strips of rows, sparse counts, tile products and residuals."""
