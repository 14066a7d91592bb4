"""Any method of scalehsi as a transformer of scikit-learn, over the rows of a matrix."""

from __future__ import annotations

import dataclasses
import logging
import numbers
from typing import Any, Self

import numpy as np
import xarray as xr
from dask.base import is_dask_collection

from scalehsi.checks import check_components, is_number, require
from scalehsi.cube import make_cube
from scalehsi.fitting.fit import fit
from scalehsi.fitting.model import Model
from scalehsi.models.apply import project
from scalehsi.models.nmf import NMF
from scalehsi.schema import COMPONENT, ENDMEMBERS, ITERATION, InputError

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("hsi.sklearn needs scikit-learn 1.6 or newer; type: pip install 'scalehsi[sklearn]'") from error

log = logging.getLogger("scalehsi")


class Unmixer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Spectra and abundances of the rows of a matrix, as a transformer of scikit-learn.

    Parameters
    ----------
    model : Model or class, optional
        A method with its settings, ``scalehsi.NMF(3, loss="poisson")``, or its class, ``scalehsi.PCA``. None is
        ``scalehsi.NMF``. It has to take one cube; rows have no place, so settings that look at neighbours mean nothing.
    n_components : int, default 2
        K. It takes the place of the number in ``model``, because a grid search sets it here.
    random_state : int, RandomState or None, default 0
        An int is the seed of `scalehsi.fit`; the others draw a seed at each fit.

    Attributes
    ----------
    components_ : array, shape (K, n_features)
        The spectra, in the unit of X.
    n_components_ : int
        K of the fit; methods that find it themselves may give fewer than ``n_components``.
    n_iter_ : int
        Iterations of the fit.
    n_features_in_ : int
        Channels, E.
    result_ : xarray.Dataset
        The result of `scalehsi.fit`, for `scalehsi.save`, `scalehsi.reconstruct` and the plots. Its status and
        warnings are in ``result_.attrs``.

    Notes
    -----
    X (n, E) becomes a cube of dims (1, n, E); neither values nor order change, so the spectra are those of
    `scalehsi.fit` on such a cube. A Dask array is read in blocks by `fit`, and `transform` makes a lazy array of it
    without computing. `scalehsi.select_rank` finds a number of components; a grid search does so for the step behind
    the Unmixer.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> X = cube.values.reshape(-1, 64)
    >>> unmixer = hsi.sklearn.Unmixer(hsi.NMF, n_components=4).fit(X)
    >>> unmixer.components_.shape, unmixer.transform(X).shape
    ((4, 64), (256, 4))
    """

    def __init__(self, model: Any = None, n_components: int = 2, random_state: Any = 0) -> None:
        self.model = model
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the model to the rows of X.

        Parameters
        ----------
        X : array, shape (n, E)
            Counts or intensities, NumPy or Dask. Not negative for NMF; of a Dask array the fit alone looks at values.
        y : None
            Is not used; pipelines pass it.

        Returns
        -------
        Unmixer
            Itself.

        Raises
        ------
        ValueError
            For NaN, Inf, negative values under NMF, zeros alone, fewer than two rows, and a model or number of
            components that does not fit.
        TypeError
            For sparse matrices, as scikit-learn says it.
        """
        model = self._model()
        rows = self._rows(X, first=True)
        require(
            self.n_components <= rows.shape[1],
            f"n_components={self.n_components} is more than n_features={rows.shape[1]}; take fewer components",
        )
        seed = self.random_state
        if not is_number(seed, numbers.Integral):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        result = fit(_cube(rows), model, seed=int(seed))
        kind = _float_type(rows)
        self.result_ = result
        self.components_ = np.asarray(result[ENDMEMBERS].values, dtype=kind)
        self.n_components_ = self._n_features_out = result.sizes[COMPONENT]
        self.n_iter_ = max(1, result.sizes.get(ITERATION, 1))
        return self

    def transform(self, X: Any) -> Any:
        """Abundances of each row for the fitted spectra.

        Parameters
        ----------
        X : array, shape (n, E)
            NumPy or Dask, with the channels of the fit.

        Returns
        -------
        array, shape (n, K)
            A lazy Dask array for a Dask array.

        Raises
        ------
        ValueError
            For another number of channels, NaN, Inf, and negative values under NMF.
        """
        check_is_fitted(self)
        rows = self._rows(X, first=False)
        maps = project(self.result_, _cube(rows)).transpose(..., COMPONENT).data[0]
        if is_dask_collection(rows):
            return maps.astype(_float_type(rows))
        return np.asarray(maps, dtype=_float_type(rows))

    def _model(self) -> Model:
        """The model with the number of components of this object."""
        given = NMF if self.model is None else self.model
        if isinstance(given, type) and issubclass(given, Model):
            given = given.from_settings(self._number(given))
        if not isinstance(given, Model):
            raise InputError(f"model={given!r}: a method is expected, such as scalehsi.NMF(3, loss='poisson')")
        number = self._number(type(given))
        before = getattr(given, "n_components", self.n_components)
        if before != self.n_components:
            log.warning(
                "n_components=%s of the Unmixer takes the place of the %s of its model", *number.values(), before
            )
        return dataclasses.replace(given, **number)

    def _number(self, kind: type[Model]) -> dict[str, int]:
        """The setting n_components of a method, or nothing where it has none."""
        check_components(self.n_components)
        return {k: int(self.n_components) for k in ("n_components",) if k in {f.name for f in dataclasses.fields(kind)}}

    def _rows(self, given: Any, *, first: bool) -> Any:
        """X as it goes into a cube. first: in `fit`, which sets the number of channels; later calls compare it."""
        if is_dask_collection(given) and hasattr(given, "chunks"):
            return self._lazy_rows(given, first=first)
        rows = validate_data(self, given, reset=first, ensure_min_samples=2 if first else 1)
        if rows.dtype == bool:
            rows = rows.astype(np.uint8)
        if self.__sklearn_tags__().input_tags.positive_only and rows.min() < 0:
            raise InputError(
                f"Negative values in data passed to {type(self).__name__} (NMF): the smallest is {rows.min():g}; "
                "clip them, X.clip(0), or take a method that allows them, such as scalehsi.PCA"
            )
        return rows

    def _lazy_rows(self, given: Any, *, first: bool) -> Any:
        """A Dask array whose shape and kind fit; computes nothing."""
        require(given.ndim == 2, f"X has the shape (n_samples, n_features), got {given.ndim} dimensions")
        require(given.dtype.kind in "uif", f"X holds real numbers, got {given.dtype}; type X.astype('float32')")
        if np.isnan(given.shape).any():
            raise InputError(f"X has chunks of unknown size, its shape is {given.shape}; type X.compute_chunk_sizes()")
        require(
            given.shape[0] >= (2 if first else 1), f"X has n_samples={given.shape[0]}, at least 2 are needed to fit"
        )
        if first:
            self.n_features_in_ = given.shape[1]
        if given.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {given.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                "features as input"
            )
        return given

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        named = NMF if self.model is None else self.model
        tags.input_tags.positive_only = "nmf" in str(getattr(named, "name", "")).lower()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _cube(rows: Any) -> xr.DataArray:
    """Rows (n, E) as a cube (1, n, E) whose channels are counted."""
    channels = np.arange(rows.shape[1], dtype=np.float64)
    return make_cube(rows[None], energy=channels, energy_units="channel", pixel_units="px")


def _float_type(rows: Any) -> np.dtype[Any]:
    """Of the results: that of floats, float32 of counts."""
    return rows.dtype if rows.dtype in (np.float32, np.float64) else np.dtype(np.float32)
