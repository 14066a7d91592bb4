"""Every import of the package follows the layers of scalehsi/DESIGN.md: downwards, in the open, without cycles.

The rules are functions of source text, so that they are tested here too: on text that breaks them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "scalehsi"
FOLDER = Path(__file__).parents[1] / PACKAGE

LAYERS = {
    "schema": 0,
    "arrays": 0,
    "checks": 0,
    "callables": 0,
    "kernels": 1,
    "cube": 2,
    "chunks": 2,
    "blocks": 2,
    "physics": 2,
    "io": 3,
    "simulate": 3,
    "prepare": 3,
    "result": 3,
    "metrics": 3,
    "quantify": 3,
    "registration": 3,
    "fitting": 3,
    "models": 4,
    "networks": 4,
    # The report and its parts; the command line and its parts.
    "plots": 4,
    "report": 5,
    "cli": 5,
    "__main__": 5,
}

LEAVES = {"cluster"}
"""The cluster and its parts: nothing in the library asks which cluster runs, and they ask nothing but the schema."""

TOP = {"", "cli", "__main__"}
"""What may import the leaf `cluster` and the public names. The empty name is ``scalehsi/__init__.py``."""

DASK = {
    *("blocks", "io", "simulate"),
    *LEAVES,
    # The command line sets the number of threads, and draws bars for what is no pass over blocks.
    "cli.session",
}

ONLY_IN = {
    "dask": DASK,
    "distributed": DASK,
    "dask_jobqueue": {"cluster.batch_queues"},
    "torch": {"networks", "models.gp.dense"},
    "gpytorch": {"models.gp.dense"},
}
"""Third-party packages that only some modules may name."""

KERNELS_NEVER = {"dask", "distributed", "xarray", "zarr", "matplotlib"}

HEAVY = {
    *("matplotlib", "distributed", "dask_jobqueue", "rsciio", "hyperspy", "exspy", "xraylib", "h5py"),
    *("torch", "gpytorch", "cupy", "sklearn"),
}
"""Imported inside the function that uses them, so that ``import scalehsi`` and the first call stay quick."""


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name, and where."""

    target: str
    line: int
    inside_function: bool
    for_types: bool


def imports_of(source: str, module: str, modules: set[str], *, is_package: bool = False) -> list[Import]:
    """Every import in some source text, also inside functions, relative ones, and those by name through importlib."""
    found: list[Import] = []

    def add(target: str, node: ast.AST, *, inside: bool, typing: bool) -> None:
        found.append(Import(target, getattr(node, "lineno", 0), inside, typing))

    def from_import(node: ast.ImportFrom, *, inside: bool, typing: bool) -> None:
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            up = parts[: len(parts) - node.level + is_package]
            base = ".".join([*up, *([node.module] if node.module else [])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            add(full if full in modules else base, node, inside=inside, typing=typing)

    def visit(node: ast.AST, *, inside: bool, typing: bool) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, node, inside=inside, typing=typing)
        elif isinstance(node, ast.ImportFrom):
            from_import(node, inside=inside, typing=typing)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                add(node.args[0].value, node, inside=inside, typing=typing)
        within = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, inside=inside, typing=True)
            for child in node.orelse:
                visit(child, inside=inside, typing=typing)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, inside=within, typing=typing)

    visit(ast.parse(source), inside=False, typing=False)
    return found


def local_name(module: str) -> str:
    """``scalehsi.models.nmf.model`` is ``models.nmf``, the package itself the empty name."""
    return module.removeprefix(PACKAGE).removeprefix(".")


def is_in(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places if place) or (
        not name and "" in places
    )


def wrong_imports(source: str, module: str, modules: set[str], *, is_package: bool = False) -> Iterator[str]:
    """What breaks the rules in one module, in words."""
    here = local_name(module)
    for one in imports_of(source, module, modules, is_package=is_package):
        at = f"{module}, line {one.line}: {one.target}"
        root = one.target.split(".")[0]
        if root == PACKAGE:
            yield from (f"{at}: {problem}" for problem in _wrong_arrow(here, one))
            continue
        if root in ONLY_IN and not is_in(here, ONLY_IN[root]):
            yield f"{at}: only {', '.join(sorted(ONLY_IN[root]))} may name {root}"
        if is_in(here, {"kernels"}) and root in KERNELS_NEVER:
            yield f"{at}: a kernel takes and gives arrays; it never sees {root}"
        if root in HEAVY and not (one.inside_function or one.for_types or is_in(here, {"networks", "models.gp.dense"})):
            yield f"{at}: {root} is slow to load; import it inside the function that uses it"


def _wrong_arrow(here: str, one: Import) -> Iterator[str]:
    there = local_name(one.target)
    mine, theirs = here.split(".")[0], there.split(".")[0]
    if one.inside_function and not is_in(here, {""}):
        yield "an import of the package is hidden inside a function; write it at the top"
    if is_in(here, TOP):
        return
    if not there:
        yield "the public names stand above all layers; import from the module that has the name"
    elif mine in LEAVES:
        if theirs not in LEAVES | {"schema"}:
            yield "the cluster is a leaf that knows nothing but the schema"
    elif theirs in LEAVES:
        yield "nothing in the library asks which cluster runs"
    elif mine not in LAYERS or theirs not in LAYERS:
        yield f"{mine if mine not in LAYERS else theirs} has no layer yet; give it one in tests/test_layers.py"
    elif LAYERS[theirs] > LAYERS[mine]:
        yield f"layer {LAYERS[mine]} may not import layer {LAYERS[theirs]}"


def cycles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """The circles in a drawing of arrows, each once; a module's own parent packages do not count."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
            return
        if name in done:
            return
        for other in sorted(arrows.get(name, ())):
            if not name.startswith(f"{other}."):
                walk(other, [*path, name])
        done.add(name)

    for name in sorted(arrows):
        walk(name, [])
    return found


def sources() -> dict[str, tuple[str, bool]]:
    """The text of every module of the package, and whether it is a package itself."""
    found = {}
    for file in sorted(FOLDER.rglob("*.py")):
        parts = file.relative_to(FOLDER.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        found[".".join(parts[:-1] if is_package else parts)] = (file.read_text(encoding="utf-8"), is_package)
    return found


SOURCES = sources()
MODULES = set(SOURCES)


# The package.


@pytest.mark.parametrize("module", SOURCES)
def test_every_import_points_downwards_and_is_in_the_open(module: str) -> None:
    source, is_package = SOURCES[module]
    assert list(wrong_imports(source, module, MODULES, is_package=is_package)) == []


def test_no_import_cycles() -> None:
    arrows = {
        module: {one.target for one in imports_of(source, module, MODULES, is_package=is_package)} & MODULES - {PACKAGE}
        for module, (source, is_package) in SOURCES.items()
    }
    assert cycles(arrows) == []


def test_every_module_has_a_layer() -> None:
    tops = {local_name(module).split(".")[0] for module in MODULES} - {""}
    assert tops <= set(LAYERS) | LEAVES


def test_the_package_is_all_there() -> None:
    assert {"scalehsi", "scalehsi.schema", "scalehsi.blocks.fold", "scalehsi.cluster.connect"} <= MODULES


# The rules themselves.

KNOWN = {
    *("scalehsi", "scalehsi.schema", "scalehsi.cube", "scalehsi.io", "scalehsi.blocks", "scalehsi.blocks.fold"),
    *(
        "scalehsi.models",
        "scalehsi.models.nmf.model",
        "scalehsi.cluster.connect",
        "scalehsi.kernels",
        "scalehsi.kernels.nmf",
    ),
}


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        ("scalehsi.cube", "from scalehsi.io.open import save", "layer 2 may not import layer 3"),
        ("scalehsi.cube", "from scalehsi import io", "layer 2 may not import layer 3"),
        ("scalehsi.cube", "import scalehsi.models.nmf.model as nmf", "layer 2 may not import layer 4"),
        ("scalehsi.cube", "from . import io", "layer 2 may not import layer 3"),
        ("scalehsi.kernels.nmf", "from ..blocks.fold import add", "layer 1 may not import layer 2"),
        ("scalehsi.schema", "def f():\n    from scalehsi.cube import check_cube", "layer 0 may not import layer 2"),
        ("scalehsi.models.nmf.model", "def f():\n    from scalehsi.cube import check_cube", "hidden inside a function"),
        ("scalehsi.models.nmf.model", "f = lambda: __import__('scalehsi.cube')", "hidden inside a function"),
        ("scalehsi.models.nmf.model", "class A:\n  def f(self):\n    import scalehsi.cube", "hidden inside a function"),
        (
            "scalehsi.cube",
            "import importlib\nimportlib.import_module('scalehsi.io.open')",
            "layer 2 may not import layer 3",
        ),
        (
            "scalehsi.cube",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from scalehsi import io",
            "layer 2",
        ),
        ("scalehsi.io", "from scalehsi import fit", "public names stand above all layers"),
        ("scalehsi.io", "import scalehsi as hsi", "public names stand above all layers"),
        ("scalehsi.models.nmf.model", "from scalehsi.cluster.connect import connect", "asks which cluster runs"),
        ("scalehsi.cluster.connect", "from scalehsi.cube import check_cube", "knows nothing but the schema"),
        ("scalehsi.io", "from scalehsi.novelty import thing", "novelty has no layer yet"),
        ("scalehsi.novelty", "from scalehsi.schema import X", "novelty has no layer yet"),
        ("scalehsi.models.nmf.model", "import dask.array as da", "may name dask"),
        ("scalehsi.models.nmf.model", "def f():\n    from dask import delayed", "may name dask"),
        ("scalehsi.blocks.fold", "import torch", "may name torch"),
        ("scalehsi.kernels.nmf", "import xarray as xr", "it never sees xarray"),
        ("scalehsi.report.write", "from matplotlib.figure import Figure", "inside the function that uses it"),
        ("scalehsi.cluster.connect", "from distributed import Client", "inside the function that uses it"),
        ("scalehsi.arrays", "import importlib\ncupy = importlib.import_module('cupy')", "inside the function"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, problem: str) -> None:
    found = list(wrong_imports(source, module, KNOWN | {module}))
    assert len([text for text in found if problem in text]) == 1, found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("scalehsi.models.nmf.model", "from scalehsi.blocks import map_fold\nfrom scalehsi import schema"),
        ("scalehsi.models.nmf.model", "from .nmf import NMF\nfrom ..kernels import nmf"),
        ("scalehsi.blocks.fold", "from dask.delayed import Delayed\nfrom scalehsi.blocks import x"),
        ("scalehsi.networks.daeu", "import torch"),
        ("scalehsi.models.gp.dense", "import torch, gpytorch"),
        ("scalehsi.cluster.connect", "def f():\n    from distributed import Client"),
        ("scalehsi.cli.app", "import scalehsi as hsi\nfrom scalehsi.cluster.connect import connect"),
        (
            "scalehsi.report.write",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from matplotlib.figure import Figure",
        ),
        ("scalehsi.kernels.nmf", "import numba\nimport numpy as np\nfrom scalehsi.schema import InputError"),
        ("scalehsi", "def __getattr__(name):\n    from scalehsi.models.nmf.model import NMF\n    return NMF"),
    ],
)
def test_a_right_import_is_left_alone(module: str, source: str) -> None:
    assert list(wrong_imports(source, module, KNOWN | {module})) == []


def test_relative_imports_of_a_package_start_at_itself() -> None:
    (one,) = imports_of("from . import fold", "scalehsi.blocks", KNOWN, is_package=True)
    assert one.target == "scalehsi.blocks.fold"
    (one,) = imports_of("from ..schema import X", "scalehsi.blocks", KNOWN, is_package=True)
    assert one.target == "scalehsi.schema"


def test_cycles_are_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]
    assert cycles({"a": {"a"}}) == [["a", "a"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    # A module of a package may name its package, which imports its modules.
    assert cycles({"p": {"p.a"}, "p.a": {"p"}}) == []
