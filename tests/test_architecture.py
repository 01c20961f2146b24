"""The rules that keep the code readable: who may import whom, who may see a config, how long a config is."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pixmed_jax"
# A module imports from its own layer and from those below it. A package's name stands for all its modules;
# the longest name that fits counts.
LAYERS = (
    ("launch",),
    ("study", "utility"),
    ("parts",),
    (
        "loop",
        "heldout",
        "dry_run",
        "sampling",
        "sample_files",
        "conditions",
        "layouts",
        "inference",
        "evaluation",
        "check_data",
        "check_data_page",
        "export",
        "demo",
        "enhancement.enhance",
        "enhancement.folder",
        "enhancement.page",
        "enhancement.scores",
        "enhancement.upscale",
        "enhancement.upscaler",
    ),  # stages
    ("judges",),
    ("build", "gan", "lazy", "ranges", "supervised", "settle", "start", "warm_start"),  # tasks
    ("task", "checkpoint", "quiet", "export.folder", "feed", "mesh", "records", "same_data"),
    ("models", "losses", "data", "metrics", "enhancement"),
    ("models.layers",),
    ("models.convolutions", "models.normalisation"),
    ("models.filtering",),
    ("models.products",),
    (
        "pages",
        "charts",
        "pictures",
        "workdir",
        "tensors",
        "progress",
        "compiled",
        "config",
        "defaults",
        "errors",
        "extras",
        "allocator",
        "options",
        "command_line",
        "signals",
        "memory",
        "texts",
        "writing",
    ),  # for everybody
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
# TFDS calls its own description of a data set by that name.
SEES_A_CONFIG_OF_TFDS = "data.phantom_builder"


def layer(module: str) -> int:
    """The rank of a module such as "training.loop" or "data.folder"."""
    name = module.removeprefix("training.")
    while name not in RANKS:
        assert "." in name, f"{module} is in no layer: add it to LAYERS"
        name = name.rpartition(".")[0]
    return RANKS[name]


def imports(source: str) -> set[str]:
    """Modules of this package that a source imports, at any depth, without the package's own name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a module is from"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            inner = name.removeprefix("pixmed_jax.")
            if inner != name:
                while inner and inner not in MODULES:
                    inner = inner.rpartition(".")[0]
                found |= {inner} - {""}
    return found


GRAPH = {name: imports(path.read_text()) for name, path in MODULES.items()}


def test_the_parser_sees_imports():
    source = """
from pixmed_jax import config as configs, inference
def late():
    from pixmed_jax.training.loop import train
    import pixmed_jax.data.folder
    import numpy
"""
    assert imports(source) == {"config", "inference", "training.loop", "data.folder"}
    assert GRAPH["training.gan"] >= {"losses", "training.task", "data.pipeline"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    upward = {name for name in GRAPH[module] if layer(name) < layer(module)}
    assert not upward, f"{module} imports {sorted(upward)} from a layer above its own"


def test_no_import_cycle():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for name in GRAPH[module]:
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_launch_is_imported_by_nobody_and_imports_stages_late():
    """Whatever it imports at its top is paid for by --help."""
    tree = ast.parse((ROOT / "launch.py").read_text())
    top = "\n".join(ast.unparse(n) for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom))
    assert imports(top) == {
        "allocator",
        "command_line",
        "compiled",
        "config",
        "errors",
        "options",
        "signals",
    }
    for path in MODULES.values():
        assert "import launch" not in path.read_text()


def parameters(source: str) -> set[str]:
    """Names of all parameters of all functions."""
    return {node.arg for node in ast.walk(ast.parse(source)) if isinstance(node, ast.arg)}


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if m.startswith(("models.", "data.", "losses")) and m != SEES_A_CONFIG_OF_TFDS],
)
def test_leaves_see_no_config(module):
    assert parameters("def f(a, *, config): pass") == {"a", "config"}
    assert not parameters(MODULES[module].read_text()) & {"config", "cfg", "opt", "opts"}


def test_every_module_says_what_it_is():
    sources = [*MODULES.values(), *ROOT.glob("configs/*.py"), *ROOT.glob("tests/*.py"), ROOT / "launch.py"]
    assert len(sources) > 40
    silent = [str(p.relative_to(ROOT)) for p in sources if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not silent


def test_a_config_fits_on_a_page():
    configs = list(ROOT.glob("configs/*.py"))
    assert configs
    for path in configs:
        assert len(path.read_text().splitlines()) <= 62, path
