"""What the attack classes of torchattacks are called and take, read from its source: importing it imports torch."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pruneproof.errors import UsageError

REQUIRED = object()
"""In the place of a default: there is none."""


@functools.cache
def names() -> tuple[str, ...]:
    """Every attack class, in torchattacks' own order.

    Raises:
        UsageError: torchattacks is not installed, or not as it was when this was written.
    """
    for node in _tree(_package() / "__init__.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return tuple(ast.literal_eval(node.value))
    raise UsageError("torchattacks names no attacks in its __all__", "install torchattacks==3.5.1")


@functools.cache
def parameters(name: str) -> Mapping[str, Any]:
    """Parameter → default of a class, but for the model; a default that is no plain value is given as its source.

    Raises:
        KeyError: there is no such class.
    """
    if name not in names():
        raise KeyError(name)
    for node in _class(name).body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            known = [argument.arg for argument in node.args.args]
            defaults = [REQUIRED] * (len(known) - len(node.args.defaults)) + [_value(one) for one in node.args.defaults]
            taken = zip(known, defaults, strict=True)
            return MappingProxyType({key: value for key, value in taken if key not in ("self", "model")})
    raise UsageError(f"torchattacks' {name} has no __init__ to read", "install torchattacks==3.5.1")


@functools.cache
def aims(name: str) -> bool:
    """Whether a class can be sent after a class of one's choice: ``"targeted"`` among the modes that it names."""
    for node in ast.walk(_class(name)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "self.supported_mode":
            return "targeted" in ast.literal_eval(node.value)
    return False


def _package() -> Path:
    found = importlib.util.find_spec("torchattacks")
    if found is None or found.origin is None:
        raise UsageError("torchattacks is not installed", "install torchattacks==3.5.1")
    return Path(found.origin).parent


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _class(name: str) -> ast.ClassDef:
    for node in _tree(_package() / "__init__.py").body:
        if isinstance(node, ast.ImportFrom) and node.module and any(one.name == name for one in node.names):
            path = _package().joinpath(*node.module.split(".")).with_suffix(".py")
            for inner in _tree(path).body:
                if isinstance(inner, ast.ClassDef) and inner.name == name:
                    return inner
    raise UsageError(f"torchattacks' {name} was not found in its source", "install torchattacks==3.5.1")


def _value(node: ast.expr) -> Any:
    """Of a literal, or a quotient of literals such as ``8 / 255``."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _value(node.left) / _value(node.right)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
