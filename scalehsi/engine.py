"""``engine="scalehsi"`` of xarray: files of electron microscopes as Datasets and DataTrees.

xarray loads this module when it opens the first file of any kind, so it imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, ClassVar, Final

import xarray as xr
from xarray.backends import BackendEntrypoint

import scalehsi as hsi
from scalehsi import accessor as accessor  # ``cube.hsi`` of what is opened

EXTENSIONS: Final = frozenset(
    ".asw .bcf .blo .dens .dm3 .dm4 .elid .emd .emi .emsa .hspy .mib .msa .pts .rpl .ser .spd .spx .wdf .zspy".split()
)
"""Files that `guess_can_open` claims; none with an ending of other engines or programs (.h5, .nc, .zarr, .tif)."""


class ScalehsiBackendEntrypoint(BackendEntrypoint):
    """Open spectrum images and images of electron microscopes; see `open_dataset`."""

    description: ClassVar[str] = "Open spectrum images of electron microscopes (.dm4, .bcf, .emd, .hspy and others)"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        *("filename_or_obj", "drop_variables", "signal", "dataset"),
        *("reader_options", "axes", "energy", "pixel", "mask"),
    )
    supports_groups: ClassVar[bool] = True

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether the ending of the name is one of `EXTENSIONS`; the file is not looked at."""
        is_name = isinstance(filename_or_obj, str | os.PathLike)
        return is_name and PurePath(filename_or_obj).suffix.lower() in EXTENSIONS

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        **options: Any,
    ) -> xr.Dataset:
        """A Dataset of one variable, ``counts`` for a spectrum image, ``image`` for an image.

        Parameters
        ----------
        filename_or_obj : path
            All that `scalehsi.open_cube` opens; of a file without a spectrum image its largest image.
        drop_variables : str or iterable of str, optional
            Variables to leave out.
        **options
            Those of `scalehsi.open_cube`.

        Returns
        -------
        xarray.Dataset
            Nothing is computed before ``.values``. With ``chunks={}`` its blocks are those of `scalehsi.open_cube`.

        Raises
        ------
        InputError
            As `scalehsi.open_cube` does.
        """
        data = _opened(filename_or_obj, options)
        return _preferring_chunks(data.drop_vars(_listed(drop_variables), errors="ignore"))

    def open_datatree(self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None) -> xr.DataTree:
        """All that a file holds; see `scalehsi.open_tree`."""
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, drop_variables=drop_variables))

    def open_groups_as_dict(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> dict[str, xr.Dataset]:
        """All that a file holds, by the names of the nodes of `scalehsi.open_tree`."""
        nodes = hsi.open_tree(filename_or_obj).to_dict()
        gone = _listed(drop_variables)
        return {path: _preferring_chunks(data.drop_vars(gone, errors="ignore")) for path, data in nodes.items()}


def _listed(names: str | Iterable[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _opened(path: Any, options: dict[str, Any]) -> xr.Dataset:
    """The cube of a file, or its image where it holds no cube."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        data = hsi.open_cube(path, **given)
    except hsi.InputError as error:
        try:
            data = hsi.open_image(path, dataset=given.get("dataset"))
        except hsi.InputError:
            raise error from None
    dataset = data.to_dataset()
    dataset.set_close(data.close)
    return dataset


def _preferring_chunks(data: xr.Dataset) -> xr.Dataset:
    """The Dataset with the blocks of its variables as their encoding, which ``chunks={}`` takes."""
    for variable in data.variables.values():
        if variable.chunks is not None:
            variable.encoding["preferred_chunks"] = dict(zip(variable.dims, variable.chunks, strict=True))
    return data
