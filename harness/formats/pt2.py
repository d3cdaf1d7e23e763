"""``.pt2``: a program that ``torch.export.save`` wrote. Reading one may run code of the file's own."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from pruneproof import digests
from pruneproof.errors import MeasurementError, PruneProofError, SubjectError
from pruneproof.formats import _program
from pruneproof.isolation import Interrupt
from pruneproof.subject import Subject

_WEIGHT = {"linear", "matmul", "mm", "addmm", "bmm", "conv1d", "conv2d", "conv3d", "convolution", "_convolution"}
_WEIGHT |= {f"conv_transpose{d}d" for d in (1, 2, 3)} | {"lstm", "gru", "rnn_tanh", "rnn_relu"}


def load(path: Path, subject: Subject, *, unpickle: bool) -> torch.nn.Module:
    """The program as a module, if ``unpickle``: torch unpickles constants of it, and evaluates symbolic expressions.

    Raises:
        SubjectError: not allowed, not readable, or exported in training mode.
    """
    if not unpickle:
        raise SubjectError(
            "may run code of its own when it is read, as every torch.export program",
            "say unpickle = true in its [[variant]] where the file's maker is trusted, or save model.state_dict()",
        )
    logger = logging.getLogger("torch.export")  # it warns before it raises
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        exported = torch.export.load(path)
        program = exported.module()
    except (KeyboardInterrupt, Interrupt, PruneProofError):
        raise
    except BaseException as error:  # it may do anything, exit included
        raise SubjectError(
            f"is damaged, or no torch.export program: {type(error).__name__}: {error}",
            "save it with torch.export.save, by the version of torch that is installed here",
        ) from error
    finally:
        logger.setLevel(level)
    if not isinstance(program, torch.fx.GraphModule):
        raise SubjectError(f"holds {type(program).__name__}", "save a torch.export.ExportedProgram")
    _in_eval_mode(program)
    return ExportedProgram(program, f"torch.export program {digests.of_file(path)}", _program.Dense(subject.model))


def _in_eval_mode(program: torch.fx.GraphModule) -> None:
    """Dropout and batch norm are fixed when a program is exported.

    Raises:
        SubjectError: one of them is fixed to training.
    """
    for node in program.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        named = dict(zip((argument.name for argument in node.target._schema.arguments), node.args, strict=False))
        named |= node.kwargs
        if named.get("train") is True or named.get("training") is True:
            raise SubjectError(
                f"was exported in training mode ({node.name}): its outputs depend on chance or on the batch",
                "call model.eval() before torch.export.export",
            )


class ExportedProgram(_program.Program):
    """Runs the graph; the tensors that it shows are the graph's own.

    Args:
        graph: of ``ExportedProgram.module()``, whose ``train`` and ``eval`` raise.
    """

    def __init__(self, graph: torch.fx.GraphModule, identity: str, dense: _program.Dense) -> None:
        super().__init__(identity)
        self._graph = (graph,)  # in a tuple, so that its modules are not modules of this one
        tensors = dict(graph.named_parameters(remove_duplicate=False)) | dict(
            graph.named_buffers(remove_duplicate=False)
        )
        buffers = {name for name, _ in graph.named_buffers(remove_duplicate=False)}
        _program.show(self, tensors, _weights(graph), buffers, dense)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The program's outputs.

        Raises:
            MeasurementError: it does not take these inputs, of this batch size for one.
        """
        try:
            return self._graph[0](*args, **kwargs)
        except Exception as error:
            raise MeasurementError(
                f"the exported program does not take these inputs: {type(error).__name__}: {error}",
                "export it for every batch size (dynamic_shapes) and with the inputs that the subject's model takes",
            ) from error


def _weights(graph: torch.fx.GraphModule) -> set[str]:
    """Tensors that linear, convolutional and recurrent operations multiply with."""
    found = set()
    for node in graph.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name.split("::")[1] in _WEIGHT:
            for source in map(_source, node.all_input_nodes):
                if source is not None and _rank(graph, source) > 1:
                    found.add(source)
    return found


def _source(node: torch.fx.Node) -> str | None:
    """The tensor that a node hands on, as it is or transposed."""
    while node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
        name = node.target._schema.name.split("::")[1]
        if name not in ("t", "transpose", "permute", "numpy_T", "to", "_to_copy", "detach", "alias"):
            return None
        node = node.all_input_nodes[0]
    return str(node.target) if node.op == "get_attr" else None


def _rank(graph: torch.fx.GraphModule, name: str) -> int:
    owner, _, key = name.rpartition(".")
    tensor = getattr(graph.get_submodule(owner), key, None)
    return tensor.dim() if isinstance(tensor, torch.Tensor) else 0


def copy(path: Path, target: Path) -> None:
    """The same file."""
    shutil.copyfile(path, target)
