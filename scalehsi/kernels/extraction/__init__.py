"""Endmember extraction: pixels of the cube that serve as endmembers."""
