"""Factorisations of stacks of maps as tensors: a component has a spectrum, a map, and a course over the frames."""

from scalehsi.models.tensor.cpd import CPD
from scalehsi.models.tensor.rank import suggest_rank
from scalehsi.models.tensor.tucker import Tucker

__all__ = ["CPD", "Tucker", "suggest_rank"]
