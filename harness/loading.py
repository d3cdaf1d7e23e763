"""From the policy's ``load`` to a subject that later stages can rely on."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import torch

from pruneproof import checking, policy, registry, tables
from pruneproof.errors import PruneProofError, SubjectError
from pruneproof.isolation import Interrupt, importing_from
from pruneproof.policy import Policy
from pruneproof.subject import Subject
from pruneproof.suite import ObservingSuite


def load(asked: Policy) -> checking.Loaded:
    """The policy's subject, checked.

    Raises:
        SubjectError: it cannot be imported, raises, or does not fit what the audit needs.
    """
    subject = resolve(asked.subject.load, asked.folder)
    if not isinstance(subject, Subject):
        raise SubjectError(
            f"[subject] load = '{asked.subject.load}' returned {type(subject).__name__}, not a pruneproof.Subject",
            "return pruneproof.Subject(model=…, task=…, test=pruneproof.Data(…))",
        )
    loaded = checking.check(subject, columns=segment_columns(asked))
    for name, entry in asked.suites.items():
        suite = policy.suite(name)
        if isinstance(suite, ObservingSuite):
            suite.check(loaded, entry.options)
    return loaded


def segment_columns(asked: Policy) -> tuple[str, ...] | None:
    """Segment columns that the suites need; ``None``: all of the data's."""
    needed: list[str] = []
    for name, entry in asked.suites.items():
        columns = policy.suite(name).columns(entry.options)
        if columns is None:
            return None
        needed.extend(column for column in columns if column not in needed)
    return tuple(needed)


def resolve(reference: str, folder: Path, *arguments: Any, key: str = "load") -> Any:
    """Imports ``module:function`` with ``folder`` first on the path, and calls it.

    Args:
        arguments: what it is called with.
        key: of the policy, for messages.

    Raises:
        SubjectError: the module or the function does not exist, or raised.
    """
    with importing_from(str(folder)):
        return _called(reference, folder, arguments, f"{key} = '{reference}'")


def _called(reference: str, folder: Path, arguments: tuple[Any, ...], where: str) -> Any:
    name, _, attribute = reference.partition(":")
    try:
        module = _import(name, folder)
    except ModuleNotFoundError as error:
        missing = error.name or name
        remedy = f"the policy's folder comes first on the import path: is there a {missing.split('.')[0]}.py beside it?"
        raise SubjectError(f"{where}: no module named '{missing}'", remedy) from None
    except (KeyboardInterrupt, Interrupt):
        raise
    except BaseException as error:  # a script without a main guard exits, a test module skips
        raise SubjectError(
            f"{where}: importing '{name}' raised {type(error).__name__}: {error}", "mend that module"
        ) from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise SubjectError(f"{where}: '{name}' has no '{attribute}'", f"define {attribute}() in it")
        found = getattr(found, part)
    if not callable(found):
        raise SubjectError(f"{where} is {type(found).__name__}, not a function", "name a function")
    try:
        return found(*arguments)
    except PruneProofError:
        raise
    except (KeyboardInterrupt, Interrupt):
        raise
    except BaseException as error:
        raise SubjectError(
            f"{where} raised {type(error).__name__}: {error}", "make it run by itself in Python first"
        ) from error


def _import(name: str, folder: Path) -> Any:
    """Imports ``name``; what was loaded from elsewhere does not stand in for what lies in ``folder``.

    That holds for ``name`` itself, and for what it imports where an earlier policy's folder had the same name.
    """
    folder = folder.resolve()
    for path in folder.iterdir():
        root = path.stem if path.suffix == ".py" else path.name
        files = _files(root)
        if all(_beside(file, root, folder) for file in files):
            continue
        asked_for = root == name.partition(".")[0] and (path.suffix == ".py" or (path / "__init__.py").exists())
        if asked_for or any(_beside(file, root, earlier) for earlier in _folders for file in files):
            for other in _family(root):
                del sys.modules[other]
    _folders.add(folder)
    importlib.invalidate_caches()
    return importlib.import_module(name)


_folders: set[Path] = set()
"""Folders of the policies that this process loaded."""


def _family(root: str) -> list[str]:
    return [key for key in sys.modules if key.partition(".")[0] == root] if root in sys.modules else []


def _files(root: str) -> list[Path]:
    places = [getattr(sys.modules[name], "__file__", None) for name in _family(root)]
    return [Path(place).resolve() for place in places if place]


def _beside(file: Path, root: str, folder: Path) -> bool:
    return file.parent == folder or file.is_relative_to(folder / root)


def model(source: str, subject: Subject, folder: Path) -> torch.nn.Module:
    """A model that another tool pruned: ``module:function``, or a checkpoint file.

    Raises:
        SubjectError: it cannot be loaded, or the checkpoint does not fit the architecture.
    """
    if not re.fullmatch(tables.REFERENCE, source):
        return checkpoint(source, subject, folder)
    found = resolve(source, folder)
    if not isinstance(found, torch.nn.Module):
        raise SubjectError(f"load = '{source}' returned {type(found).__name__}", "return a torch.nn.Module")
    return found


def checkpoint(source: str, subject: Subject, folder: Path, *, unpickle: bool = False) -> torch.nn.Module:
    """The model in a file, as :mod:`pruneproof.formats` reads it.

    Args:
        source: relative to ``folder``, which is first on the import path meanwhile.
        unpickle: allow code of the file's own to run.

    Raises:
        SubjectError: there is no such file, it cannot be read, or does not fit the subject.
        PruneProofError: what reads it is not installed.
    """
    path = folder / source
    ending = policy.suffix(source)
    try:
        form = registry.member("pruneproof.formats", ending)
    except KeyError:
        known = ", ".join(f".{name}" for name in registry.names("pruneproof.formats"))
        raise SubjectError(f"checkpoint {source}: no known format", f"use one of: {known}") from None
    if not path.is_file():
        raise SubjectError(f"checkpoint {source}: no such file", f"name a readable .{ending} file beside the policy")
    try:
        with importing_from(str(folder)):
            found: torch.nn.Module = form.load(path, subject, unpickle=unpickle)
    except SubjectError as error:
        raise SubjectError(f"checkpoint {source} {error.cause}", error.remedy) from error
    return found
