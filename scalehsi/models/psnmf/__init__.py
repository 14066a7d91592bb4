"""NMF of sparse counts: endmembers from bins of pixels, abundances of single pixels."""

from scalehsi.models.psnmf.bin_scan import scan_bins
from scalehsi.models.psnmf.model import PSNMF

__all__ = ["PSNMF", "scan_bins"]
