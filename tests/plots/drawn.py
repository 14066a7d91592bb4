"""Read lengths, labels and maps back from drawn figures."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def scale_bars(figure: Figure) -> list[tuple[float, str]]:
    """Length in the axes' unit and label of each scale bar."""
    found = []
    for axes in figure.axes:
        for patch in axes.patches:
            if patch.get_gid() == "scale-bar":
                found.append((patch.get_width(), axes.texts[-1].get_text()))
    return found


def names_at(axes: Axes) -> dict[str, float]:
    """The names over a spectrum and the energies that they stand for, in the axis' unit."""
    texts = [text for text in axes.texts if (text.get_gid() or "").startswith("line ")]
    return {text.get_text(): float(text.get_gid().split()[1]) for text in texts}
