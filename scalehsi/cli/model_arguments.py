"""Models and data from the arguments of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import scalehsi as hsi
from scalehsi.cli.session import Session, dataset_of
from scalehsi.fitting.model import Model
from scalehsi.models.catalogue import model_class
from scalehsi.schema import InputError


def make_model(name: str, components: int | None, settings: dict[str, Any]) -> Model:
    """The model that the words of the command line stand for."""
    kind = model_class(name)
    given = dict(settings)
    if components is not None:
        if given.get("n_components", components) != components:
            raise InputError(f"-k {components} and --set n_components={given['n_components']} differ; leave one out")
        given["n_components"] = components
    elif "n_components" in kind.__dataclass_fields__ and "n_components" not in given:
        raise InputError(f"{kind.name} needs the number of components; add for example -k 3")
    return kind.from_settings(given)


def open_data(
    session: Session, path: Path, chosen: Model, *, dataset: str | None, spectral: Path | None, image: Path | None
) -> Any:
    """What a model is to be fitted to, as `scalehsi.fit` takes it: a cube, or several acquisitions by name."""
    several = isinstance(chosen, hsi.PanSharpen)
    if several and spectral is None:
        raise InputError(f"{chosen.name} takes a second cube, of large pixels and many counts; add --spectral CUBE")
    if not several and (spectral is not None or image is not None):
        word = "--spectral" if spectral is not None else "--image"
        raise InputError(f"{chosen.name} takes one cube; leave {word} out, or fit with --model pansharpen")
    cube = hsi.open_cube(session.path(path), dataset=dataset_of(dataset))
    if not several or spectral is None:
        return cube
    data = {"spatial": cube, "spectral": hsi.open_cube(session.path(spectral))}
    return data if image is None else {**data, "image": hsi.open_image(session.path(image))}
