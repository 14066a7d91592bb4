"""The methods by name. A line of `CATALOGUE` is all that the rest of the package needs to know of a method.

From that line follow ``scalehsi.NAME``, ``scalehsi fit --model name``, ``scalehsi models name``, plans, checkpoints and
reports. The module of a method is imported when the method is first used.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import TYPE_CHECKING, Any, Final

from scalehsi.schema import InputError, suggest

if TYPE_CHECKING:
    from scalehsi.fitting.model import Model

CATALOGUE: Final[dict[str, str]] = {
    "backgroundnmf": "scalehsi.models.coupled:BackgroundNMF",
    "cnnaeu": "scalehsi.networks.cnnaeu:CNNAEU",
    "couplednmf": "scalehsi.models.coupled:CoupledNMF",
    "cpd": "scalehsi.models.tensor:CPD",
    "daeu": "scalehsi.networks.daeu:DAEU",
    "latentae": "scalehsi.networks.latent:LatentAE",
    "mtaeu": "scalehsi.networks.mtaeu:MTAEU",
    "nmf": "scalehsi.models.nmf:NMF",
    "pansharpen": "scalehsi.models.pansharpen:PanSharpen",
    "parallelgp": "scalehsi.models.gp:ParallelGP",
    "pca": "scalehsi.models.pca:PCA",
    "psnmf": "scalehsi.models.psnmf:PSNMF",
    "vca": "scalehsi.models.geometric:VCA",
    "nfindr": "scalehsi.models.geometric:NFINDR",
    "sss": "scalehsi.models.geometric:SSS",
    "tucker": "scalehsi.models.tensor:Tucker",
    "udas": "scalehsi.networks.udas:UDAS",
    "ica": "scalehsi.models.ica:ICA",
    "blu": "scalehsi.models.blu:BLU",
}
"""Name of the method in lower case, and where its class is: ``module:Class``."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a method, as its dataclass and its docstring describe it.

    Attributes
    ----------
    name : str
        What to type: ``NMF(loss=...)`` in Python, ``--set loss=...`` on the command line.
    type : str
        The type in words.
    default : object
        The default value; None too where there is none, see ``required``.
    required : bool
        True where a value has to be given.
    allowed : tuple of str
        The words that are allowed; empty where other values are.
    text : str
        What the setting does.
    """

    name: str
    type: str
    default: Any
    required: bool
    allowed: tuple[str, ...]
    text: str


def model_class(name: str) -> type[Model]:
    """Look a method up by its name, in any case.

    Parameters
    ----------
    name : str
        Such as "nmf" or "NMF"; "coupled" and "background" stand for "couplednmf" and "backgroundnmf".

    Returns
    -------
    type
        The class of the method.

    Raises
    ------
    InputError
        For a name that is not in the catalogue; says the nearest one.

    Examples
    --------
    >>> model_class("nmf").__name__
    'NMF'
    """
    if f"{name.lower()}nmf" in CATALOGUE:
        name = f"{name}nmf"
    if name.lower() not in CATALOGUE:
        raise InputError(f"there is no model {name!r}; {suggest(name.lower(), CATALOGUE)}")
    module, _, own = CATALOGUE[name.lower()].partition(":")
    found: type[Model] = getattr(importlib.import_module(module), own)
    return found


def class_names() -> dict[str, str]:
    """The classes of all methods by their Python name, and where each is; imports none of them.

    Examples
    --------
    >>> class_names()["NMF"]
    'scalehsi.models.nmf:NMF'
    """
    return {place.partition(":")[2]: place for place in CATALOGUE.values()}


def summary(model: type[Model]) -> str:
    """The first sentence of a method's docstring."""
    return inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def settings_of_model(model: type[Model]) -> list[Setting]:
    """The settings of a method, read from its dataclass fields and the section Parameters of its docstring.

    Examples
    --------
    >>> found = {setting.name: setting for setting in settings_of_model(model_class("nmf"))}
    >>> found["n_components"].required, found["loss"].allowed
    (True, ('auto', 'frobenius', 'poisson'))
    """
    described = _parameters(inspect.cleandoc(model.__doc__ or ""))
    found = []
    order = {name: place for place, name in enumerate(described)}
    for field in sorted(dataclasses.fields(model), key=lambda field: order.get(field.name, len(order))):
        words, text = described.get(field.name, (str(field.type), ""))
        kind = re.sub(r",? default .*", "", words)
        choices = re.search(r"\{(.*?)\}", kind)
        allowed = tuple(re.findall(r"\"(.*?)\"", choices[1])) if choices else ()
        required = field.default is dataclasses.MISSING
        found.append(Setting(field.name, kind, None if required else field.default, required, allowed, text))
    return found


def _parameters(docstring: str) -> dict[str, tuple[str, str]]:
    """Type and description of each parameter in a numpydoc docstring."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", docstring, flags=re.M | re.S)
    found: dict[str, tuple[str, str]] = {}
    for names, words, body in re.findall(
        r"^(\w[\w, ]*) : (.*)\n((?:[ ]+.*\n|\n)*)", section[1] if section else "", re.M
    ):
        text = inspect.cleandoc(body)
        found |= {name.strip(): (words.strip(), text) for name in names.split(",")}
    return found
