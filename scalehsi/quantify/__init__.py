"""Composition from EDX: `quantify(source, elements)`, its tables of lines and k-factors; maps of edges, and thickness.

>>> import scalehsi as hsi
>>> truth = hsi.simulate.phases((8, 8)).truth
>>> found = hsi.quantify(truth["endmembers"], ["Mg", "Si", "O", "Fe"], thickness_nm=100, density=4.5)
>>> found["atomic_percent"].dims
('component', 'element')
"""

from scalehsi.callables import make_callable
from scalehsi.quantify.call import quantify
from scalehsi.quantify.edge_counts import edge_maps
from scalehsi.quantify.log_ratio import thickness
from scalehsi.quantify.tables import k_factors, lines

__all__ = ["edge_maps", "k_factors", "lines", "quantify", "thickness"]

make_callable(__name__)
