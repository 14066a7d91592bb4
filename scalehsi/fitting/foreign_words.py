"""Words of scikit-learn that users type at our models, and what to type here."""

from __future__ import annotations

from typing import Final

SETTINGS: Final = {
    "random_state": "the seed belongs to the fit: scalehsi.fit(cube, model, seed=0) (--seed 0)",
    "init": "type start='sample', and see the other starts with: scalehsi models nmf",
    "beta_loss": "type loss='poisson' in place of 'kullback-leibler', or loss='frobenius'",
    "alpha_W": "type sparsity=0.01 for a linear cost of abundances",
    "alpha_H": "type spectral_smoothness=1 for smooth spectra",
    "n_init": "type start='multistart', restarts=10",
    "verbose": "progress belongs to the fit: scalehsi.fit(cube, model, progress=True)",
}
"""Keywords of scikit-learn's estimators that are no setting here."""

ATTRIBUTES: Final = {
    "fit": "result = scalehsi.fit(cube, model)",
    "fit_transform": "scalehsi.fit(cube, model)['abundances']",
    "transform": "scalehsi.project(result, cube), with result = scalehsi.fit(cube, model)",
    "inverse_transform": "scalehsi.reconstruct(result), with result = scalehsi.fit(cube, model)",
    "predict": "scalehsi.project(result, cube), with result = scalehsi.fit(cube, model)",
    "score": "result['residual'], with result = scalehsi.fit(cube, model)",
    "components_": "result['endmembers'], with result = scalehsi.fit(cube, model)",
    "n_iter_": "result.sizes['iteration'], with result = scalehsi.fit(cube, model)",
    "reconstruction_err_": "result['objective'], with result = scalehsi.fit(cube, model)",
    "explained_variance_ratio_": "scalehsi.plots.scree(result), with result = scalehsi.fit(cube, model)",
}
"""Methods and fitted attributes of scikit-learn's estimators; a model has settings alone."""


def setting_answer(model: str, name: str) -> str:
    """What to type in place of a setting of scikit-learn; empty where the name is none.

    Examples
    --------
    >>> setting_answer("NMF", "beta_loss")
    "NMF has no setting beta_loss; type loss='poisson' in place of 'kullback-leibler', or loss='frobenius'"
    """
    return f"{model} has no setting {name}; {SETTINGS[name]}" if name in SETTINGS else ""


def attribute_answer(model: str, name: str) -> str:
    """What to type in place of a method or fitted attribute of scikit-learn.

    Examples
    --------
    >>> attribute_answer("NMF", "transform")
    "'NMF' holds settings and has no 'transform'; type scalehsi.project(result, cube), with result = \
scalehsi.fit(cube, model); for manners of scikit-learn type scalehsi.sklearn.Unmixer(model)"
    """
    if name not in ATTRIBUTES:
        return f"{model!r} object has no attribute {name!r}"
    return (
        f"{model!r} holds settings and has no {name!r}; type {ATTRIBUTES[name]}; "
        "for manners of scikit-learn type scalehsi.sklearn.Unmixer(model)"
    )
