"""The package is built in levels, as the design says: a module imports from its own level or from those below."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from reference import ROOT

import ofa_core

CORE = ROOT / "src" / "ofa_core"
CONVERTER = ROOT / "checkpoints_convert"

#: Level of each module or package of ofa_core; the longest name that fits counts. Packages are ``__init__`` too.
LEVELS = {
    "errors": 0,
    "config": 0,
    "version": 0,
    "utils": 0,
    "text": 0,
    "vision": 0,
    "model": 1,
    "inference": 2,
    "checkpoint": 2,
    "generation": 3,
    "heads": 4,
    "api": 5,
    "data": 5,
    "bench": 6,
    "demo": 6,
    "predict": 6,
    "export": 6,
    "training": 6,
    "service": 6,
    "web": 7,
    "cli": 8,
    "__main__": 8,
}

#: What the core may import besides Python's own: import name -> distribution.
DEPENDENCIES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "safetensors": "safetensors",
    "PIL": "pillow",
    "numpy": "numpy",
    "pydantic": "pydantic",
    "tqdm": "tqdm",
}

#: What comes with an extra: import name -> distribution, the extra, and the one file that imports it.
OPTIONAL = {
    "huggingface_hub": ("huggingface-hub", "hub", CORE / "checkpoint" / "hub.py"),
    "pyarrow": ("pyarrow", "bench", CORE / "data" / "containers.py"),
    "tomli": ("tomli", "train", CORE / "utils" / "toml_files.py"),
    "zhconv": ("zhconv", "ocr", CORE / "text" / "normalize.py"),
    "tensorboard": ("tensorboard", "train", CORE / "training" / "trackers.py"),
    "onnx": ("onnx", "export", CORE / "export" / "graph_files.py"),
    "onnxscript": ("onnxscript", "export", CORE / "export" / "graph_files.py"),
    "onnxruntime": ("onnxruntime", "export", CORE / "export" / "rounding.py"),
}

#: Packages that stand and fall with an extra: what they import, which is declared there; nobody else imports them but
#: where a command begins.
WITH_EXTRA = {
    CORE / "service": {
        "fastapi": "fastapi",
        "starlette": "fastapi",
        "uvicorn": "uvicorn",
        "prometheus_client": "prometheus-client",
        "fastapi_swagger": "fastapi-swagger",
    },
    CORE / "web": {"gradio": "gradio", "fastapi": "fastapi", "starlette": "fastapi"},
}


def files(*roots: Path) -> list[Path]:
    return sorted(path for root in roots for path in root.rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    """Dotted name of a module of ofa_core inside the package: ``heads.grounding``, ``text`` for its ``__init__``."""
    parts = path.relative_to(CORE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in files(CORE)}


def level_of(module: str) -> int | None:
    """None for the package itself, which everything public stands in, and for a module that no level was given."""
    while module:
        if module in LEVELS:
            return LEVELS[module]
        module = module.rpartition(".")[0]
    return None


def imported(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports anywhere in it; a name imported from a package follows the package."""
    package = ["ofa_core", *path.relative_to(CORE).parts[:-1]] if path.is_relative_to(CORE) else [path.parent.name]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def inner_imports(path: Path) -> set[str]:
    """Modules of ofa_core that a file imports; "" is the package itself."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "ofa_core":
            inside = [".".join(parts[1:length]) for length in range(len(parts), 0, -1)]
            found.add(next(module for module in inside if module in MODULES))
    return found


def test_every_module_has_a_level() -> None:
    assert [module for module in MODULES if module and level_of(module) is None] == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_a_module_imports_only_from_its_level_or_below(module: str) -> None:
    level = level_of(module)
    assert level is not None
    for other in inner_imports(MODULES[module]):
        assert other, f"{module} imports from the package itself, which stands above everything"
        below = level_of(other)
        assert below is not None
        assert below <= level, f"{module} (level {level}) imports {other} (level {below})"


def test_imports_run_in_no_circle() -> None:
    below = {module: inner_imports(path) - {module} for module, path in MODULES.items()}
    while leaves := [module for module, others in below.items() if not others & below.keys()]:
        for module in leaves:
            del below[module]
    assert below == {}


def room_of(module: str) -> str:
    """The package of a module, or the module itself at the root."""
    return module.partition(".")[0]


def test_packages_import_each_other_in_no_circle() -> None:
    below: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module:
            rooms = {room_of(other) for other in inner_imports(path)}
            below.setdefault(room_of(module), set()).update(rooms - {room_of(module)})
    while leaves := [room for room, others in below.items() if not others & below.keys()]:
        for room in leaves:
            del below[room]
    assert below == {}


#: Names that belong to what is done for speed.
FOR_SPEED = re.compile(
    r"onednn|mkldnn|is_grad_enabled|inference_mode|device\.type|is_cpu|is_cuda|is_compiling|torch\.compile|"
    r"bias_cache|position_table|inner_bytes|static|key_counts|\bkept_|fast|optimi[sz]|packed"
)


@pytest.mark.parametrize("path", files(CORE / "model"), ids=lambda path: path.name)
def test_the_model_is_plain(path: Path) -> None:
    """A reader of it learns OFA, and nothing of speed or devices."""
    assert not any(room_of(module) in ("inference", "utils") for module in inner_imports(path))
    code = ast.unparse(parsed(path))  # without comments
    assert FOR_SPEED.findall(code) == []


def test_the_package_itself_holds_nothing_but_public_names() -> None:
    statements = parsed(CORE / "__init__.py").body
    allowed = (ast.ImportFrom, ast.Assign)
    for_checkers = [s for s in statements if isinstance(s, ast.If) and ast.unparse(s.test) == "TYPE_CHECKING"]
    others = [s for s in statements[1:] if s not in for_checkers]
    assert [ast.unparse(s) for s in others if not isinstance(s, allowed)] == []
    assert all(isinstance(s, ast.ImportFrom) for block in for_checkers for s in block.body)


def test_the_public_names_that_are_imported_late_are_those_that_checkers_see() -> None:
    (block,) = (s for s in parsed(CORE / "__init__.py").body if isinstance(s, ast.If))
    seen = {alias.name: s.module for s in block.body if isinstance(s, ast.ImportFrom) for alias in s.names}
    assert ofa_core._names.places == seen
    assert set(ofa_core.__all__) == {*seen, "__version__"}
    assert set(ofa_core.__all__) <= set(dir(ofa_core))


def test_the_library_never_imports_the_converter() -> None:
    found = [(path.name, name) for path in files(CORE) for name in imported(path) if "checkpoints_convert" in name]
    assert found == []


#: What a file uses where the user has it, and says by name where it is asked for and missing; it is of no extra.
WHERE_INSTALLED = {
    CORE / "training" / "trackers.py": {"wandb"},
    CORE / "heads" / "showing.py": {"supervision"},
    CORE / "export" / "runner.py": {"onnxruntime"},  # which is copied to where the package need not be
}


def third_party(path: Path) -> set[str]:
    """What a file imports when it runs; what only type checkers see needs not be installed."""
    conditions = [node for node in parsed(path).body if isinstance(node, ast.If)]
    checked = [node for node in conditions if ast.unparse(node.test) == "TYPE_CHECKING"]
    for_checkers = {alias.module for node in checked for alias in ast.walk(node) if isinstance(alias, ast.ImportFrom)}
    tops = {name.partition(".")[0] for name in imported(path)} - for_checkers
    standard = {*sys.stdlib_module_names, "tomllib"}  # which came with Python 3.11
    return tops - standard - {"ofa_core", "checkpoints_convert", "__future__"}


@pytest.mark.parametrize("path", files(CORE, CONVERTER), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_needs_only_the_declared_dependencies(path: Path) -> None:
    optional = {name for name, (_, _, reader) in OPTIONAL.items() if reader == path}
    optional |= {name for package, names in WITH_EXTRA.items() if package in path.parents for name in names}
    assert third_party(path) <= DEPENDENCIES.keys() | optional | WHERE_INSTALLED.get(path, set())


def test_packages_of_an_extra_are_imported_where_they_are_begun_alone() -> None:
    extras = project()["optional-dependencies"]
    rooms = {package.name for package in WITH_EXTRA}
    for module, path in MODULES.items():
        if room_of(module) not in rooms:
            top = [node for node in parsed(path).body if isinstance(node, ast.Import | ast.ImportFrom | ast.Try)]
            assert not any(re.search(rf"from \.+({'|'.join(rooms)})\b", ast.unparse(node)) for node in top), module
    declared = {name for names in WITH_EXTRA.values() for name in names.values()}
    for extra in ("web", "dev"):
        assert declared <= {re.split("[>=;]", requirement)[0] for requirement in extras[extra]}


def project() -> dict[str, Any]:
    """The ``project`` table of pyproject.toml."""
    toml = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli", reason="nothing here reads TOML")
    table: dict[str, Any] = toml.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


#: What is needed to build or check, and not to run the tests.
NOT_FOR_TESTS = {"ruff", "mypy", "types-tqdm"}
#: What tests skip without: gradio wants a newer huggingface-hub than the lowest one, so that it is tried at its newest.
TRIED_AT_THEIR_NEWEST = {
    *("gradio", "fastapi", "uvicorn", "python-multipart", "prometheus-client", "fastapi-swagger"),
    *("httpx", "playwright", "schemathesis", "ctranslate2"),
}


def test_the_lower_bounds_that_were_tried_are_the_declared_ones() -> None:
    extras = project()["optional-dependencies"]
    declared = [requirement.partition(";")[0] for requirement in (*project()["dependencies"], *extras["dev"])]
    floors = {tuple(requirement.strip().split(">=")) for requirement in declared}
    floors = {(name, *floor) for name, *floor in floors if name not in NOT_FOR_TESTS | TRIED_AT_THEIR_NEWEST}
    lines = (ROOT / ".ci" / "lower-bounds.txt").read_text().splitlines()
    tried = {tuple(line.split("==")) for line in lines if not line.startswith("#")}
    assert {(name, full(floor)) for name, floor in floors} == tried


def full(version: str) -> str:
    """A version with all of its three numbers."""
    return ".".join([*version.split("."), "0", "0"][:3])


def test_what_comes_with_an_extra_is_imported_when_it_is_used_and_declared() -> None:
    extras = project()["optional-dependencies"]
    for name, (distribution, extra, reader) in OPTIONAL.items():
        assert name in third_party(reader)
        at_import = [node for node in parsed(reader).body if isinstance(node, ast.Import | ast.ImportFrom | ast.Try)]
        assert not any(name in ast.unparse(node) for node in at_import), f"{reader} imports {name} before it needs it"
        assert any(requirement.startswith(distribution) for requirement in extras[extra])
        assert any(requirement.startswith(distribution) for requirement in extras["dev"])


def test_the_declared_dependencies_are_the_seven() -> None:
    names = [re.match(r"[\w-]+", requirement) for requirement in project()["dependencies"]]
    assert {name[0] for name in names if name} == set(DEPENDENCIES.values())


# Habits


@pytest.mark.parametrize("path", files(CORE, CONVERTER), ids=lambda path: str(path.relative_to(ROOT)))
def test_errors_are_raised_not_asserted(path: Path) -> None:
    assert [node.lineno for node in ast.walk(parsed(path)) if isinstance(node, ast.Assert)] == []


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [str(path) for path in files(CORE, CONVERTER) if path.stem in vague] == []


def test_pickles_are_read_by_those_who_refuse_what_runs() -> None:
    allowed = {CONVERTER / name for name in ("unpickle.py", "allowed.py")} | {CORE / "data" / "plain_pickle.py"}
    for path in files(CORE, CONVERTER):
        modules = {name.partition(".")[0] for name in imported(path)}
        if path not in allowed:
            assert not modules & {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}, path
        loads = [
            node.lineno
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.hub", "pickle.load")
        ]
        assert loads == [], path
    assert "numpy.load" not in {name for path in files(CORE, CONVERTER) for name in imported(path)}
