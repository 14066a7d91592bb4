"""Manners of scikit-learn over arrays: ``scalehsi.sklearn.Unmixer``. Loads scikit-learn when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"unmixer": ["Unmixer"]})
