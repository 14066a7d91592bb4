# The public names and where they are. Methods are not listed: `scalehsi.models.catalogue` has them.
import typing

from . import metrics as metrics
from . import plots as plots
from . import prepare as prepare
from . import quantify as quantify
from . import simulate as simulate
from . import sklearn as sklearn
from .blocks import compute_together as compute_together
from .cluster import connect as connect
from .cube import check_cube as check_cube
from .cube import check_finite as check_finite
from .cube import make_cube as make_cube
from .fitting.fit import fit as fit
from .fitting.plan import plan as plan
from .io import convert as convert
from .io import from_hyperspy as from_hyperspy
from .io import open_cube as open_cube
from .io import open_image as open_image
from .io import open_result as open_result
from .io import open_tree as open_tree
from .io import save as save
from .models.apply import project as project
from .models.apply import reconstruct as reconstruct
from .models.decompose import decompose as decompose
from .models.decompose import to_hyperspy as to_hyperspy
from .models.gp import lengthscale_scan as lengthscale_scan
from .models.live import watch as watch
from .models.psnmf import scan_bins as scan_bins
from .models.rank_selection import select_rank as select_rank
from .report import report as report
from .report.export import export as export
from .result import name_components as name_components
from .schema import InputError as InputError
from .schema import Interrupted as Interrupted
from .schema import WorkersLost as WorkersLost

def __getattr__(name: str) -> typing.Any: ...
