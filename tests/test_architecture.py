"""The rules of docs/design.md: who may import whom, what is public, what is written."""

import ast
import graphlib
import importlib.util
import inspect
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = "gated_rnn"

# What stands directly in the package, by layer. Within layer 0 imports are free but for
# circles; above it a module imports its own part and lower layers.
LAYERS = {
    "types": 0,
    "arithmetic": 0,
    "activations": 0,
    "initializers": 0,
    "losses": 0,
    "statistics": 0,
    "cells": 1,
    "engines": 1,
    "wrapping": 0,
    "unrolling": 2,
    "networks": 3,
    "explanation": 3,
    "inspection": 3,
    "reduction": 3,
    "conversion": 4,
    "export": 4,
    "flax": 4,
    "training": 4,
}
# Layer 5 is within `training`: what makes many runs out of one.
ON_TOP = {"training": 5}
# It stands beside the layers: nothing in the package uses it.
WITHOUT_LAYER = {"statistics"}
# Not re-exported: imported when asked for.
ON_DEMAND = {"conversion", "export", "flax", "statistics", "training"}

LIBRARIES = {"chex", "jax", "numpy"}
MORE_LIBRARIES = {
    "conversion": {"h5py", "safetensors"},
    "flax": {"flax"},
    "statistics": {"scipy"},
    "training": {"optax", "orbax"},
}

DOCSTRING_LINES = 6
# Files stay near 250 lines; docstrings with equations and references do not count.
CODE_LINES = 250
MEDIAN_LINES = 250


def name_of(path):
    """Return the dotted name of the module in a file."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted((REPOSITORY / PACKAGE).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}

each_module = pytest.mark.parametrize("name", FILES)


def part_of(name):
    """Return what a module belongs to directly below the package, "" for itself."""
    return name.partition(".")[2].partition(".")[0]


def imports_of(name):
    """Return the modules that the statements of a module import, wherever they stand.

    `from a import b` imports the module a.b if there is one, and else a.
    """
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {full if full in FILES else node.module for full in names}
    return found


def own_imports(name):
    return {other for other in imports_of(name) if other.split(".")[0] == PACKAGE}


# Layers


def test_every_part_has_a_layer():
    assert {part_of(name) for name in FILES} - {""} <= set(LAYERS)


@each_module
def test_module_imports_its_own_part_and_lower_layers(name):
    part = part_of(name)
    for other in own_imports(name):
        other_part = part_of(other)
        if part == "":
            assert other_part not in ON_DEMAND, other
            continue
        assert other_part != "", f"{name} imports the whole package"
        lower = LAYERS[other_part] < LAYERS[part]
        same_layer_0 = LAYERS[other_part] == LAYERS[part] == 0
        assert other_part == part or lower or same_layer_0, f"{name} imports {other}"


def test_imports_form_no_circle():
    graphlib.TopologicalSorter({name: own_imports(name) for name in FILES}).prepare()


@each_module
def test_module_imports_no_library_that_belongs_elsewhere(name):
    used = {other.split(".")[0] for other in imports_of(name)} - {PACKAGE}
    allowed = LIBRARIES | MORE_LIBRARIES.get(part_of(name), set())
    assert used - allowed <= sys.stdlib_module_names


@each_module
def test_module_imports_no_private_module_of_a_library(name):
    for other in imports_of(name):
        assert not re.search(r"\._(?!_)", other), f"{name} imports {other}"


@each_module
def test_module_docstring_is_short_and_names_the_layer(name):
    docstring = ast.get_docstring(TREES[name])
    assert docstring
    assert len(docstring.splitlines()) <= DOCSTRING_LINES
    stated = re.findall(r"\(layer (\d)\)", docstring)
    part = part_of(name)
    optional = FILES[name].name == "__init__.py" or part in WITHOUT_LAYER
    if optional and not stated:
        return
    assert len(stated) == 1, "the docstring says '(layer N)' once"
    assert int(stated[0]) in {LAYERS[part], ON_TOP.get(part, LAYERS[part])}


def test_rules_see_what_they_are_meant_to_see():
    # The parser above against imports that are known to exist.
    assert own_imports("gated_rnn.unrolling") >= {
        "gated_rnn.arithmetic",
        "gated_rnn.engines.fused",
        "gated_rnn.types",
    }
    assert "optax" in imports_of("gated_rnn.training.optimizer")
    assert "gated_rnn.losses" in own_imports("gated_rnn")
    source = '"""Text."""\n\n# a comment\nx = 1\n\ndef f():\n    """One\n    two."""\n'
    assert count_code_lines(source) == 2


# Importing the package

IMPORT = """
import json, os, sys
import jax
environment, flags = dict(os.environ), dict(jax.config.values)
import gated_rnn
same = [environment == dict(os.environ), flags == dict(jax.config.values)]
jax.config.update("jax_num_cpu_devices", 3)  # an error once a device is in use
seen = {"modules": list(sys.modules), "same": same, "devices": len(jax.devices())}
print(json.dumps(seen))
"""


def test_import_loads_no_framework_and_changes_no_setting():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    loaded = {module.split(".")[0] for module in seen["modules"]}
    unwanted = {"experiments", "matplotlib", "pandas", *LIBRARIES - {"jax", "numpy"}}
    assert not loaded & unwanted.union(*MORE_LIBRARIES.values())
    on_demand = {f"{PACKAGE}.{part}" for part in ON_DEMAND}
    assert not on_demand & set(seen["modules"])
    assert seen["same"] == [True, True]
    assert seen["devices"] == 3


# What is public


def sorting_key(name):
    """Constants, then classes, then the rest, as ruff sorts them."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def docstring_of(value):
    """Return the docstring that is written at a function or class, not a made one."""
    for node in TREES[value.__module__].body:
        if getattr(node, "name", None) == value.__name__:
            return ast.get_docstring(node)
    return None


def importable(name):
    """Whether what a module needs is installed; only `conversion` may lack it."""
    if part_of(name) != "conversion":
        return True
    needed = imports_of(name) & MORE_LIBRARIES["conversion"]
    return all(importlib.util.find_spec(library) for library in needed)


@each_module
def test_public_names_are_sorted_exist_and_have_docstrings(name):
    if not importable(name):
        pytest.skip("its framework is not installed")
    module = importlib.import_module(name)
    names = module.__all__
    assert names == sorted(names, key=sorting_key)
    assert len(set(names)) == len(names)
    for public in names:
        value = getattr(module, public)
        if inspect.ismodule(value):
            assert value.__doc__
        elif inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__ not in TREES or docstring_of(value), public
        assert not public.startswith("_")


@pytest.mark.parametrize("package", ["gated_rnn", "gated_rnn.training"])
def test_what_a_package_offers_is_what_its_modules_offer(package):
    module = importlib.import_module(package)
    for public in module.__all__:
        value = getattr(module, public)
        if not inspect.ismodule(value):
            home = importlib.import_module(value.__module__)
            assert public in home.__all__


def test_package_is_marked_as_typed():
    assert (REPOSITORY / PACKAGE / "py.typed").exists()


# What is written


@each_module
def test_module_has_no_assert_no_print_and_no_bare_except(name):
    for node in ast.walk(TREES[name]):
        assert not isinstance(node, ast.Assert), node.lineno
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", node.lineno


def count_code_lines(source):
    """Count the lines that are no docstring, no comment and not empty."""
    kinds = (ast.AsyncFunctionDef, ast.ClassDef, ast.FunctionDef, ast.Module)
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and ast.get_docstring(node):
            text = node.body[0]
            docstrings |= set(range(text.lineno, text.end_lineno + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(
        number not in docstrings and not re.fullmatch(r"\s*(#.*)?", line)
        for number, line in lines
    )


@each_module
def test_module_is_not_too_long_to_read(name):
    assert count_code_lines(FILES[name].read_text()) <= CODE_LINES


def test_typical_module_is_short():
    lengths = [len(path.read_text().splitlines()) for path in FILES.values()]
    assert statistics.median(lengths) <= MEDIAN_LINES
