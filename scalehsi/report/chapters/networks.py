"""Chapter on a network: its training, what speaks against it, and its latent space where it has one."""

from __future__ import annotations

from functools import partial
from typing import Final

import xarray as xr

from scalehsi.plots.digest import Digest
from scalehsi.plots.networks import draw_latent, draw_losses
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph, Part, Table
from scalehsi.result import settings_of

ORDER: Final = 55
CHECKS: Final = {
    "misfit": ("Misfit over that of the best plane of as many dimensions", "{:.3g}"),
    "zero_one_share": ("Abundances below 0.01 or above 0.99", "{:.1%}"),
    "dead_pixel_share": ("Pixels without abundances", "{:.2%}"),
    "dead_components": ("Components that are nearly absent everywhere", "{:.0f}"),
    "restart_angle_deg": ("Largest angle between endmembers of restarts (degrees)", "{:.2g}"),
}


def chapter(view: Digest, context: Context) -> Chapter | None:
    """Training and latent space; None for results of other methods."""
    result = context.result
    if not any(str(name).startswith("weights_") for name in result.data_vars):
        return None
    parts: list[Part] = [Paragraph(_words(result))]
    if "network_checks" in result:
        value = dict(zip(result["check"].values.tolist(), result["network_checks"].values.tolist(), strict=True))
        rows = [(words, form.format(value[name])) for name, (words, form) in CHECKS.items() if name in value]
        parts.append(Table(("On the training sample", ""), rows, numbers=[1]))
    drawings = []
    if "held_out_loss" in result and result.sizes["iteration"] > 1:
        drawings.append(
            Drawing(
                "training.png",
                partial(draw_losses, result),
                "Training loss and held-out loss against the epoch.",
                "Loss of each epoch on the spectra that the network learns from, and on those that it does not. A "
                "held-out loss that rises while the other falls means that the network learns noise.",
            )
        )
    if "latent" in result and "labels" in result:
        drawings.append(
            Drawing(
                "latent.png",
                partial(draw_latent, view, result),
                "Latent coordinates of sampled pixels, the map of labels, and the mean spectra of the labels.",
                "Left: sampled pixels along the two longest axes of the latent space. Middle: label of each pixel. "
                "Right: mean of the unaltered spectra of each label, with a band of two standard errors.",
            )
        )
    return Chapter("network", f"The network: {view.model}", parts, drawings)


def _words(result: xr.Dataset) -> str:
    """Name, settings and training of the network."""
    settings, shown = settings_of(result), ("settings", "encoder", "variational", "n_latent", "start", "restarts")
    given = ", ".join(f"{name}={settings[name]!r}" for name in shown if settings.get(name) is not None)
    weights = sum(int(v.size) for k, v in result.data_vars.items() if str(k).startswith("weights_"))
    epochs = result.sizes.get("iteration", 0)
    text = f"{result.attrs['model']} ({given}), {weights} stored numbers, {epochs} steps or epochs of training. "
    if "labels" in result:
        return text + "Labels are clusters of pixels and no fractions: a mixed pixel has the label that is nearest."
    return text + (
        "Abundances sum to one in every pixel, so they do not follow the thickness. Compare with VCA and NMF of the "
        "same cube (--beside) before trusting details."
    )
