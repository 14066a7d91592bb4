"""Composition from EDX: `quantify(source, elements)`, its tables of lines and k-factors, and maps of edges.

>>> import scalehsi as hsi
>>> truth = hsi.simulate.phases((8, 8)).truth
>>> found = hsi.quantify(truth["endmembers"], ["Mg", "Si", "O", "Fe"], thickness_nm=100, density=4.5)
>>> found["atomic_percent"].dims
('component', 'element')
"""

from scalehsi.callables import make_callable
from scalehsi.quantify.call import quantify
from scalehsi.quantify.edge_maps import edge_maps
from scalehsi.quantify.tables import k_factors, lines

__all__ = ["edge_maps", "k_factors", "lines", "quantify"]

make_callable(__name__)
