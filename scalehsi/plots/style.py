"""How figures look: colours, line styles, scale bars, label rows, and figures that belong to nobody's global state.

matplotlib is imported when a figure is made, and only through its object-oriented interface with the Agg canvas.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from scalehsi.plots.digest import Digest

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart; yellow is left out, it fades on white."""

LINES: Final[tuple[Any, ...]] = ("-", (0, (5, 1.2)), (0, (1.6, 0.8)), (0, (6, 1, 1.5, 1)), (0, (9, 1)))
"""Dashes with narrow gaps, so that peaks stay whole; five of them and seven colours repeat only after 35."""

MAP_COLOURS: Final = "viridis"
RESIDUAL_COLOURS: Final = "cividis"
SIGNED_COLOURS: Final = "PuOr_r"
NO_DATA: Final = "#d4d4d4"
INK: Final = "#222222"
FAINT: Final = "#8a8a8a"

DPI: Final = 150
WIDTH: Final = 10.0
"""Width of a full-page figure in inches."""

TEXT: Final = 9.5
SMALL: Final = 8.5

FLATTEST: Final = 6.0
"""Maps more elongated than this are drawn stretched, with a note."""


def colour(component: int) -> str:
    """Colour of a component, the same in every figure and on the page."""
    return COLOURS[component % len(COLOURS)]


def line(component: int) -> Any:
    """Line style of a component."""
    return LINES[component % len(LINES)]


def new_figure(width: float, height: float) -> Figure:
    """Make an empty white figure of the given inches on an Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """Render a figure as the bytes of a PNG file."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=dpi, facecolor="white")
    return target.getvalue()


def tidy(axes: Axes, *, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Give axes the common look. Text from the data is never read as TeX mathematics."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(labelsize=SMALL, color=FAINT, labelcolor=INK)
    axes.set_xlabel(xlabel, fontsize=TEXT, color=INK, parse_math=False)
    axes.set_ylabel(ylabel, fontsize=TEXT, color=INK, parse_math=False)
    if title:
        axes.set_title(title, fontsize=TEXT, color=INK, loc="left", parse_math=False)


def whole_numbers(axes: Axes) -> None:
    """Put the ticks of the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def round_length(span: float) -> float:
    """Give the largest of 1, 2, 5 times a power of ten that is not above `span`.

    Examples
    --------
    >>> round_length(37.0), round_length(0.99), round_length(5.0)
    (20.0, 0.5, 5.0)
    """
    power = 10.0 ** math.floor(math.log10(span) + 1e-9)
    # The small allowance keeps 5.0 at 5 when the span is a sum of rounded steps.
    step = max(factor for factor in (1, 2, 5) if factor * power <= span * (1 + 1e-9))
    return float(f"{step * power:.1g}")


def length_text(nm: float) -> str:
    """Write a length in the unit that a microscopist would use.

    Examples
    --------
    >>> length_text(200.0), length_text(2000.0), length_text(0.5), length_text(5e6)
    ('200 nm', '2 µm', '0.5 nm', '5 mm')
    """
    for unit, size in (("mm", 1e6), ("µm", 1e3), ("nm", 0.1), ("pm", 0.0)):
        if nm >= size:
            scale = {"mm": 1e6, "µm": 1e3, "nm": 1.0, "pm": 1e-3}[unit]
            break
    return f"{nm / scale:g} {unit}"


def extent(view: Digest) -> tuple[float, float, float, float]:
    """Left, right, bottom, top edge of the map in nm (in pixels of the data, when lengths are unknown)."""
    height, width = view.maps.shape[-2:]
    dy, dx = view.pixel_nm or (float(view.block), float(view.block))
    return 0.0, width * dx, height * dy, 0.0


def stretched(view: Digest) -> bool:
    """Whether the map is so elongated that it is not drawn to scale."""
    _, width, height, _ = extent(view)
    return max(width / height, height / width) > FLATTEST


def panel_shape(view: Digest) -> float:
    """Height over width of a map's panel."""
    _, width, height, _ = extent(view)
    return min(max(height / width, 1 / FLATTEST), FLATTEST)


def show_map(axes: Axes, values: Any, view: Digest, **options: Any) -> Any:
    """Draw one map on axes, to scale, without ticks; what has no data is grey."""
    image = axes.imshow(values, extent=extent(view), aspect="auto" if stretched(view) else "equal", **options)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(NO_DATA)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def colour_map(name: str) -> Any:
    """A colour map of its own (never the shared one), with the colour of pixels that were not used."""
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad=NO_DATA)


def colour_bar(figure: Figure | SubFigure, image: Any, axes: list[Axes], label: str, *, extend: str) -> None:
    """Put a colour bar with numbers beside a row of maps; it ends in an arrow where values lie beyond (`extend`)."""
    bar = figure.colorbar(image, ax=axes, extend=extend, shrink=0.9, aspect=25, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL, color=FAINT, labelcolor=INK)
    bar.set_label(label, fontsize=SMALL, color=INK, parse_math=False)
    bar.outline.set_visible(False)
    bar.ax.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))


def scale_bar(axes: Axes, view: Digest) -> None:
    """Draw a scale bar of round length in the lower left corner of a map."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    _, width, height, _ = extent(view)
    length = bar_length(view)
    label = length_text(length) if view.pixel_nm else f"{length:g} px"
    # In parts of the panel's height: a low panel needs more of it for the same look.
    unit = 0.018 * min(max(1.0, 1.0 / panel_shape(view)), 3.0)
    left, bottom, thick = 0.04 * width, (1.0 - 2.5 * unit) * height, unit * height
    bar = Rectangle((left, bottom - thick), length, thick, facecolor="white", edgecolor="black", linewidth=0.6)
    bar.set_gid("scale-bar")
    axes.add_patch(bar)
    axes.text(
        left,
        bottom - thick - 0.8 * unit * height,
        label,
        ha="left",
        va="bottom",
        fontsize=SMALL,
        color="white",
        fontweight="bold",
        path_effects=[withStroke(linewidth=1.8, foreground="black")],
    )


def bar_length(view: Digest) -> float:
    """Length of the scale bar in nm, or in pixels of the data when lengths are unknown: at most 0.4 of the width."""
    return round_length(0.4 * extent(view)[1])


def spread(wanted: Any, gap: float, low: float, high: float) -> np.ndarray[Any, Any]:
    """Move labels apart as little as possible (in the least-squares sense), keeping their order.

    Parameters
    ----------
    wanted : array (n,)
        Where the labels would like to be, rising.
    gap : float
        Least distance between neighbours; made smaller when they cannot all fit.
    low, high : float
        Ends of the row.

    Returns
    -------
    array (n,)

    Examples
    --------
    >>> spread([1.0, 1.1, 5.0], 1.0, 0.0, 10.0).round(2).tolist()
    [0.55, 1.55, 5.0]
    """
    places = np.asarray(wanted, dtype=np.float64)
    if places.size < 2:
        return np.clip(places, low, high)
    gap = min(gap, (high - low) / (places.size - 1))
    steps = gap * np.arange(places.size)
    # Without the steps the places need only rise: pool neighbours that do not (isotonic regression).
    groups: list[tuple[float, int]] = []
    for value in places - steps:
        groups.append((float(value), 1))
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:
            (a, n), (b, m) = groups[-2:]
            groups[-2:] = [((a * n + b * m) / (n + m), n + m)]
    level = np.concatenate([np.full(count, value) for value, count in groups])
    moved: np.ndarray[Any, Any] = np.clip(level, low, high - steps[-1]) + steps
    return moved
