"""Make the model, and open the data, that the arguments of the command line name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scalehsi as hsi
from scalehsi.cli.arguments import dataset_of
from scalehsi.cli.session import Session
from scalehsi.fitting.model import Model
from scalehsi.models.catalogue import CATALOGUE, model_class
from scalehsi.schema import InputError


def make_model(name: str, n_components: int | None, settings: dict[str, Any]) -> Model:
    """Make the model of a fit.

    Parameters
    ----------
    name : str
        A method of the catalogue.
    n_components : int, optional
        The value of ``-k``.
    settings : dict
        The values of ``--set``.
    """
    kind = model_class(name)
    given = dict(settings)
    if n_components is not None:
        if given.get("n_components", n_components) != n_components:
            raise InputError(f"-k {n_components} and --set n_components={given['n_components']} differ; leave one out")
        given["n_components"] = n_components
    elif "n_components" in kind.__dataclass_fields__ and "n_components" not in given:
        raise InputError(
            f"{kind.name} needs the number of components; add for example -k 3 (scalehsi rank suggests it)"
        )
    return kind.from_settings(given)


def signals_of(words: Sequence[str] | None) -> dict[str, Path]:
    """Paths by the name of the signal, from words ``name=path``.

    Examples
    --------
    >>> signals_of(["eels=a.zarr"])["eels"].name
    'a.zarr'
    """
    found: dict[str, Path] = {}
    for word in words or ():
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise InputError(f"--input {word!r}: name=path is expected, for example --input eels=a.zarr")
        if name in found:
            raise InputError(f"--input gives {name!r} twice; leave one out, or name it otherwise")
        found[name] = Path(path)
    return found


def open_data(
    session: Session,
    path: Path | None,
    model: Model,
    *,
    dataset: str | None,
    signals: dict[str, Path] | None = None,
    **further: Path | None,
) -> Any:
    """Open what a model is fitted to, as `scalehsi.fit` takes it: a cube, or several inputs by name.

    Parameters
    ----------
    session : Session
    path : Path, optional
        The cube whose pixels the maps will have; not with signals.
    model : Model
    dataset : str, optional
        Which dataset of the file.
    signals : dict of str to Path, optional
        Signals by the names that the user gave them.
    **further : Path, optional
        The other inputs, by the name of their option.
    """
    given = {name: place for name, place in further.items() if place is not None}
    if signals:
        if given or path is not None:
            extra = f"--{next(iter(given))}" if given else str(path)
            raise InputError(f"--input names all signals of a fit; leave out {extra}")
        return {n: hsi.open_cube(session.path(p), dataset=dataset_of(dataset)) for n, p in signals.items()}
    if model.named_signals:
        raise InputError(f"{model.name} takes signals by name; type --input eels=a.zarr --input edx=b.zarr")
    assert path is not None
    for name in given:
        if name not in model.inputs + model.optional_inputs:
            kinds = {kind: model_class(kind) for kind in CATALOGUE}
            others = [kind for kind, m in kinds.items() if name in m.inputs + m.optional_inputs]
            advice = f"leave it out, or fit with --model {' or '.join(others)}"
            raise InputError(f"{model.name} does not take --{name}; {advice}")
    for name in model.inputs:
        if name not in given:
            raise InputError(f"{model.name} takes a {name} cube beside the {model.main_input} one; add --{name} CUBE")
    cube = hsi.open_cube(session.path(path), dataset=dataset_of(dataset))
    if not given:
        return cube
    opened = {
        name: hsi.open_image(session.path(place)) if name == "image" else hsi.open_cube(session.path(place))
        for name, place in given.items()
    }
    return {model.main_input: cube, **opened}
