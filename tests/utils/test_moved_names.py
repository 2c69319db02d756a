"""What stood elsewhere in an earlier version says where it is now."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import pytest

import ofa_core
from ofa_core.utils.moved_names import MovedNames
from ofa_core.version import MOVED

#: Modules of version 0.1 that people import from, beside the public names of the package.
STAY = ("generation", "heads.box_codec", "text", "vision.transform", "model", "bench.runner", "training.settings")


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_says_the_new_one(old: str) -> None:
    with pytest.raises(ImportError, match=rf"ofa_core\.{old} has moved: it is {MOVED[old]} now$") as caught:
        importlib.import_module(f"ofa_core.{old}")
    assert not isinstance(caught.value, ModuleNotFoundError)
    parent, _, leaf = f"ofa_core.{old}".rpartition(".")
    with pytest.raises(ImportError, match="has moved"):
        exec(f"from {parent} import {leaf}")
    with pytest.raises(ImportError, match="has moved"):
        exec(f"from ofa_core.{old} import anything")


@pytest.mark.parametrize("old", MOVED)
def test_the_new_name_is_there(old: str) -> None:
    parent, _, leaf = MOVED[old].rpartition(".")
    if leaf[0].isupper():
        assert hasattr(importlib.import_module(parent), leaf)
    else:
        importlib.import_module(MOVED[old])


@pytest.mark.parametrize("module", STAY)
def test_what_people_import_stays_importable(module: str) -> None:
    importlib.import_module(f"ofa_core.{module}")


def test_an_attribute_that_moved_says_so_too() -> None:
    with pytest.raises(AttributeError, match=r"'weights': it has moved and is ofa_core\.checkpoint\.model_dir now"):
        ofa_core.weights.load_model("x")
    with pytest.raises(AttributeError, match=r"module 'ofa_core' has no attribute 'nothing'$"):
        _ = ofa_core.nothing
    assert not hasattr(ofa_core, "weights")


def test_what_never_was_is_not_there_as_usual() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'ofa_core\.nothing'"):
        importlib.import_module("ofa_core.nothing")
    with pytest.raises(ImportError, match="cannot import name 'nothing' from 'ofa_core'"):
        exec("from ofa_core import nothing")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("weights")


@pytest.fixture
def finders() -> Iterator[None]:
    before = list(sys.meta_path)
    yield
    sys.meta_path[:] = before


@pytest.mark.usefixtures("finders")
def test_names_of_other_packages_are_none_of_its_business() -> None:
    moved = MovedNames("json", {"old": "json.encoder"})
    assert moved.find_spec("jsonold") is None
    assert moved.find_spec("json.nothing") is None
    with pytest.raises(ImportError, match=r"json\.old has moved: it is json\.encoder now"):
        importlib.import_module("json.old")
