"""The common look of all figures: colours, line styles, titles, colour bars, scale bars and rows of labels.

matplotlib is imported when a figure is made. Only its object-oriented interface is used, with the Agg canvas: no figure
is registered with pyplot.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import scipy
from numpy.typing import ArrayLike

from scalehsi.schema import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.text import Text

    from scalehsi.plots.digest import Digest

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can distinguish. Yellow is left out because it fades on white."""

LINE_STYLES: Final[tuple[Any, ...]] = ("-", (0, (5, 1.2)), (0, (1.6, 0.8)), (0, (6, 1, 1.5, 1)), (0, (9, 1)))
"""Dashes with gaps narrower than a peak. Five line styles and seven colours repeat only after 35 components."""

MAP_COLOURS: Final = "viridis"
DEVIATION_COLOURS: Final = "magma"
RESIDUAL_COLOURS: Final = "cividis"
SIGNED_COLOURS: Final = "PuOr_r"
NO_DATA_COLOUR: Final = "#d4d4d4"
DARK: Final = "#222222"
GREY: Final = "#8a8a8a"
GRID_COLOUR: Final = "#e5e5e5"
SHADE_COLOUR: Final = "#e3edf5"
"""Background of a chosen bin size or a recommended interval."""

DOTS_PER_INCH: Final = 150
WIDTH_INCHES: Final = 10.0
"""Width of a full-page figure in inches."""
AXES_INCHES: Final = WIDTH_INCHES - 1.7
"""Width of the axes in it: labels and ticks of the y axis take about 1.7 inches."""

TEXT_POINTS: Final = 9.5
SMALL_POINTS: Final = 8.5

LABEL_GAP_INCHES: Final = 1.3 * SMALL_POINTS / 72
"""Distance between upright labels."""
LABEL_ROW_HEIGHT: Final = 1.05
"""Lower end of the row of labels, in heights of the axes."""

MAX_ASPECT_RATIO: Final = 6.0
"""Maps more elongated than this are stretched across their short side."""


def colour(component: int) -> str:
    """Colour of a component, the same in every figure and on the page."""
    return COLOURS[component % len(COLOURS)]


def line_style(component: int) -> Any:
    """Line style of a component."""
    return LINE_STYLES[component % len(LINE_STYLES)]


def new_figure(width: float, height: float, ax: Axes | None = None) -> Any:
    """Make an empty white figure on an Agg canvas, or room for its panels in the place of the axes `ax`.

    width, height: in inches, of a figure of its own. ax: of `subplots`; a subfigure replaces it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if ax is not None:
        place, parent = ax.get_subplotspec(), ax.get_figure()
        if place is None or parent is None:
            raise InputError("the panels of this figure take the place of ax=, which must come from plt.subplots()")
        ax.remove()
        return parent.add_subfigure(place)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def one_panel(width: float, height: float, ax: Axes | None) -> tuple[Any, Axes]:
    """A figure of one panel and its axes: the given ones, or new ones of a width and height in inches."""
    if ax is not None:
        return ax.get_figure(), ax
    figure = new_figure(width, height)
    return figure, figure.subplots()


def to_png(figure: Figure, *, dpi: int = DOTS_PER_INCH) -> bytes:
    """Render a figure as the bytes of a PNG file."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=dpi, facecolor="white")
    return target.getvalue()


def to_file(figure: Figure, kind: str) -> bytes:
    """Render a figure as the bytes of a "pdf", "svg" or "png" file; texts stay texts, and no date is written."""
    import matplotlib

    target = io.BytesIO()
    words = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "scalehsi"}):
        figure.savefig(target, format=kind, dpi=2 * DOTS_PER_INCH, facecolor="white", metadata=words)
    return target.getvalue()


def style_axes(axes: Axes, *, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Give axes the common look, with labels and a title. Text from the data is not interpreted as TeX mathematics."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(labelsize=SMALL_POINTS, color=GREY, labelcolor=DARK)
    axes.set_xlabel(xlabel, fontsize=TEXT_POINTS, color=DARK, parse_math=False)
    axes.set_ylabel(ylabel, fontsize=TEXT_POINTS, color=DARK, parse_math=False)
    if title:
        set_title(axes, title)


def set_title(axes: Axes, text: str, **look: Any) -> None:
    """Write a title above the left end of axes."""
    axes.set_title(text, loc="left", parse_math=False, **{"fontsize": TEXT_POINTS, "color": DARK, **look})


def log_spectrum(axes: Axes, spectrum: Any) -> float:
    """Make the intensity axis logarithmic, for a spectrum (E,) of X-rays with its weak lines; return the upper end."""
    top = float(np.nanmax(spectrum, initial=0.0)) or 1.0
    positive = spectrum[spectrum > 1e-6 * top]
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(max(0.3 * float(np.percentile(positive, 5)) if positive.size else 0.0, 1e-5 * top), 2.0 * top)
    return 2.0 * top


def integer_ticks(axes: Axes) -> None:
    """Place the ticks of the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


PREFIXES: Final = {12: "T", 9: "G", 6: "M", 3: "k", 0: "", -6: "µ", -9: "n", -12: "p"}
"""Letters of powers of ten, as a microscopist writes them."""


def tick_labels(values: Sequence[float]) -> list[str]:
    """Texts of the ticks of one axis: one prefix for all in place of a power of ten, and no offset.

    Examples
    --------
    >>> tick_labels([0.0, 50000.0, 100000.0]), tick_labels([0.0, 0.002, 0.004]), tick_labels([1.1e9, 1.15e9])
    (['0', '50 k', '100 k'], ['0', '0.002', '0.004'], ['1.10 G', '1.15 G'])
    """
    ticks = np.asarray(values, dtype=np.float64)
    top = float(np.max(np.abs(ticks), initial=0.0, where=np.isfinite(ticks)))
    # The tick at the very end may be 0.999... of a power of ten.
    size = math.log10(top) + 1e-9 if top else 0.0
    power = 0 if -4 <= size < 4 else min(PREFIXES, key=lambda p: (p > size, abs(size - p)))
    scaled = ticks / 10.0**power
    apart = np.diff(np.unique(scaled))
    step = float(apart[apart > 1e-12].min(initial=abs(scaled).max(initial=1.0) or 1.0))
    places = next((n for n in range(12) if np.allclose(np.round(scaled, n), scaled, rtol=0, atol=1e-3 * step)), 12)
    letter = f" {PREFIXES[power]}" if PREFIXES[power] else ""
    return ["0" if value == 0 else f"{value:.{places}f}{letter}".replace("-", "\N{MINUS SIGN}") for value in scaled]


def tick_format() -> Any:
    """A formatter of matplotlib that writes `tick_labels`."""
    from matplotlib.ticker import Formatter

    class Ticks(Formatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return tick_labels([x])[0]

        def format_ticks(self, values: Sequence[float]) -> list[str]:
            return tick_labels(values)

    return Ticks()


def round_length(span: float) -> float:
    """Return the largest length of 1, 2 or 5 times a power of ten that is not above `span`.

    Examples
    --------
    >>> round_length(37.0), round_length(0.99), round_length(5.0)
    (20.0, 0.5, 5.0)
    """
    power = 10.0 ** math.floor(math.log10(span) + 1e-9)
    # The tolerance returns 5 for a span of 4.9999999, a sum of rounded steps.
    step = max(factor for factor in (1, 2, 5) if factor * power <= span * (1 + 1e-9))
    return float(f"{step * power:.1g}")


def length_text(nm: float, digits: int = 3) -> str:
    """Write a length in pm, nm, µm or mm.

    Examples
    --------
    >>> length_text(200.0), length_text(2450.0), length_text(0.5), length_text(5e6)
    ('200 nm', '2.45 µm', '0.5 nm', '5 mm')
    """
    scale, unit = length_unit(nm)
    return f"{number_text(nm / scale, digits)} {unit}"


def length_unit(nm: float) -> tuple[float, str]:
    """The unit in which a length is written, and its nm: pm, nm, µm or mm."""
    for unit, size, least in (("mm", 1e6, 1e6), ("µm", 1e3, 1e3), ("nm", 1.0, 0.1)):
        if nm >= least:
            return size, unit
    return 1e-3, "pm"


def number_text(value: float, digits: int = 3) -> str:
    """Write a number with thousands apart and without an exponent, as far as that is short.

    Examples
    --------
    >>> number_text(1234567.0), number_text(146.71), number_text(0.0123456), number_text(2.5e-7), number_text(3.2e12)
    ('1 234 567', '147', '0.0123', '2.5 × 10⁻⁷', '3.2 × 10¹²')
    """
    size = abs(value)
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if 1e-4 <= size < 1e10:
        places = max(0, digits - 1 - math.floor(math.log10(size)))
        text = f"{value:,.{places}f}".replace(",", " ")
        return text.rstrip("0").rstrip(".") if places else text
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa.rstrip('0').rstrip('.')} × 10{power}"


def extent(view: Digest) -> tuple[float, float, float, float]:
    """Left, right, bottom and top edge of the map in nm, or in pixels of the data when lengths are unknown."""
    height, width = view.maps.shape[-2:]
    dy, dx = view.pixel_nm or (float(view.block), float(view.block))
    return 0.0, width * dx, height * dy, 0.0


def stretched(view: Digest) -> bool:
    """Whether the map is more elongated than `MAX_ASPECT_RATIO` and therefore not drawn to scale."""
    _, width, height, _ = extent(view)
    return max(width / height, height / width) > MAX_ASPECT_RATIO


def panel_shape(view: Digest) -> float:
    """Height of a map's panel over its width."""
    _, width, height, _ = extent(view)
    return min(max(height / width, 1 / MAX_ASPECT_RATIO), MAX_ASPECT_RATIO)


def show_map(axes: Axes, values: Any, view: Digest, **options: Any) -> Any:
    """Draw one map on axes, to scale and without ticks; pixels without data are grey."""
    image = axes.imshow(values, extent=extent(view), aspect="auto" if stretched(view) else "equal", **options)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(NO_DATA_COLOUR)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def colour_map(name: str) -> Any:
    """A copy of a matplotlib colour map in which pixels without data are grey."""
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad=NO_DATA_COLOUR)


def percentile_range(values: Any) -> tuple[float, float]:
    """Ends of a colour scale: percentiles 0.2 and 99.8 of the finite values."""
    finite = np.asarray(values)[np.isfinite(values)]
    low, high = np.percentile(finite, [0.2, 99.8]).tolist() if finite.size else (0.0, 1.0)
    return low, high if high > low else low + (abs(low) or 1.0)


def beyond(values: Any, low: float, high: float) -> str:
    """Ends of a colour scale beyond which values lie: "neither", "min", "max" or "both"."""
    finite = np.asarray(values)[np.isfinite(values)]
    below, above = bool((finite < low).any()), bool((finite > high).any())
    return "both" if below and above else "min" if below else "max" if above else "neither"


def colour_bar(figure: Figure | SubFigure, image: Any, axes: list[Axes], label: str, *, extend: str) -> None:
    """Draw a colour bar beside a row of maps; `extend` names the ends at which values lie beyond the scale."""
    bar = figure.colorbar(image, ax=axes, extend=extend, shrink=0.9, aspect=25, pad=0.02, format=tick_format())
    bar.ax.tick_params(labelsize=SMALL_POINTS, color=GREY, labelcolor=DARK)
    bar.set_label(label, fontsize=SMALL_POINTS, color=DARK, parse_math=False)
    bar.outline.set_visible(False)


def scale_bar(axes: Axes, view: Digest) -> None:
    """Draw a scale bar of round length in the lower left corner of a map."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    _, width, height, _ = extent(view)
    length = scale_bar_length(view)
    label = length_text(length) if view.pixel_nm else f"{length:g} px"
    # A fraction of the panel's height; it is larger in a low panel, so that the bar keeps its thickness.
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
        fontsize=SMALL_POINTS,
        color="white",
        fontweight="bold",
        path_effects=[withStroke(linewidth=1.8, foreground="black")],
    )


def scale_bar_length(view: Digest) -> float:
    """Length of the scale bar, at most 0.4 of the width, in nm or in pixels of the data when lengths are unknown."""
    return round_length(0.4 * extent(view)[1])


def spread_labels(wanted: Any, gap: float, low: float, high: float) -> np.ndarray[Any, Any]:
    """Move labels apart by the least sum of squared shifts, in unchanged order.

    Parameters
    ----------
    wanted : array (n,)
        Positions of the labels, rising.
    gap : float
        Least distance between neighbours. It is reduced when the row is too short for all labels.
    low, high : float
        Ends of the row.

    Returns
    -------
    array (n,)
        The shifted positions.

    Examples
    --------
    >>> spread_labels([1.0, 1.1, 5.0], 1.0, 0.0, 10.0).round(2).tolist()
    [0.55, 1.55, 5.0]
    """
    places = np.asarray(wanted, dtype=np.float64)
    if places.size < 2:
        return np.clip(places, low, high)
    gap = min(gap, (high - low) / (places.size - 1))
    steps = gap * np.arange(places.size)
    # Relative to multiples of the gap, the positions only have to rise.
    moved: np.ndarray[Any, Any] = (
        np.clip(scipy.optimize.isotonic_regression(places - steps).x, low, high - steps[-1]) + steps
    )
    return moved


def label_row(
    axes: Axes,
    positions: ArrayLike,
    labels: Sequence[str],
    *,
    colours: Sequence[str],
    bold: Sequence[bool] = (),
    inches: float = AXES_INCHES,
) -> list[Text]:
    """Write upright labels in a row above axes, each joined to its position by a thin line.

    Parameters
    ----------
    axes : Axes
        Their x limits must be set.
    positions : array (n,)
        Rising x positions.
    labels, colours : sequence of str (n,)
        The texts and their colours.
    bold : sequence of bool (n,), optional
        Which labels are bold; none by default.
    inches : float
        Width of the axes.

    Returns
    -------
    list of Text
    """
    left, right = axes.get_xlim()
    gap = (right - left) * LABEL_GAP_INCHES / inches
    blended = axes.get_xaxis_transform()
    line: dict[str, Any] = {"color": GREY, "linewidth": 0.5, "transform": blended, "clip_on": False, "zorder": 0}
    texts = []
    wanted = np.asarray(positions, dtype=np.float64)
    for number, place in enumerate(spread_labels(wanted, gap, left + gap / 2, right - gap / 2)):
        axes.plot([wanted[number], place], [1.0, LABEL_ROW_HEIGHT], **line)
        text = axes.text(
            place,
            LABEL_ROW_HEIGHT + 0.01,
            labels[number],
            transform=blended,
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=SMALL_POINTS,
            color=colours[number],
            fontweight="bold" if bold and bold[number] else "normal",
            parse_math=False,
        )
        texts.append(text)
    return texts
