"""``.onnx``: a graph that onnxruntime runs, on the CPU. Reading it runs nothing of the file's own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pruneproof.errors import MeasurementError, PruneProofError, SubjectError
from pruneproof.formats import _program
from pruneproof.subject import Subject

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_WEIGHTS = {"Gemm": (0, 1), "MatMul": (0, 1), "Conv": (1,), "ConvTranspose": (1,)} | dict.fromkeys(
    ("LSTM", "GRU", "RNN"), (1, 2)
)
"""Inputs of an operation that may be a layer's weight, by position."""
_HANDS_ON = ("Transpose", "Identity", "Cast", "DequantizeLinear", "Reshape", "Unsqueeze", "Squeeze")
_MOST = 2**31 - 1
"""Bytes that a protobuf message may have."""


def load(path: Path, subject: Subject, *, unpickle: bool) -> torch.nn.Module:
    """The graph as a module; its initializers and constants are frozen parameters and buffers.

    Raises:
        PruneProofError: onnx or onnxruntime is not installed.
        SubjectError: the file cannot be read or run, or was exported in training mode.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise PruneProofError(
            f"an ONNX checkpoint needs {error.name}, which is not installed", "pip install 'pruneproof[onnx]'"
        ) from None
    del onnxruntime
    try:
        model = onnx.load(path)  # with the files that hold its weights, where there are any
    except Exception as error:  # protobuf's, onnx's own, and of the file system
        raise SubjectError(f"is no ONNX model: {error}", "name a readable .onnx file, its weights beside it") from None
    _in_eval_mode(model.graph)
    if model.ByteSize() > _MOST:
        raise SubjectError(
            "is larger than 2 GiB", "give the pruned model as safetensors or as load = 'module:function'"
        )
    return OnnxProgram(model, _program.Dense(subject.model))


def copy(path: Path, target: Path) -> None:
    """The graph with all of its tensors in one file: those beside it would meet other models' under the same name."""
    import onnx

    if outside(path):
        onnx.save_model(onnx.load(path), target)
    else:
        shutil.copyfile(path, target)


def outside(path: Path) -> tuple[str, ...]:
    """Files beside ``path`` that hold tensors of it, by the names that it gives; none, where it cannot be read."""
    import onnx
    from onnx import external_data_helper

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:
        return ()
    tensors = (tensor for tensor in external_data_helper._get_all_tensors(model) if tensor.external_data)
    found = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return tuple(sorted(found))


def _in_eval_mode(graph: onnx.GraphProto) -> None:
    constants = dict(_constants(graph))
    for node in _nodes(graph):
        fixed = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        flag = constants.get(node.input[2]) if node.op_type == "Dropout" and len(node.input) > 2 else None
        if (node.op_type == "BatchNormalization" and fixed) or (flag is not None and bool(np.any(flag))):
            raise SubjectError(
                f"was exported in training mode ({node.op_type} '{node.name}')", "call model.eval() before exporting"
            )


class OnnxProgram(_program.Program):
    """Runs the graph in onnxruntime; the tensors that it shows are copies, to be measured.

    It takes its inputs by position or by the graph's names, each in the type that the graph declares, and returns the
    only output, or the outputs by name.
    """

    def __init__(self, model: onnx.ModelProto, dense: _program.Dense) -> None:
        self._content = model.SerializeToString(deterministic=True)
        super().__init__(f"ONNX graph {hashlib.sha256(self._content).hexdigest()}")
        self._session = _session(self._content)
        tensors = {name: _tensor(name, array) for name, array in _constants(model.graph)}
        weights, statistics = _weights(model.graph, tensors)
        small = {name for name, tensor in tensors.items() if tensor.numel() <= 1 and not dense.knows(name)}
        whole = {name for name, tensor in tensors.items() if not tensor.is_floating_point()} - weights
        _program.show(self, tensors, weights, statistics | small | whole, dense)
        self.eval()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._session = _session(self._content)

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """The graph's outputs.

        Raises:
            MeasurementError: it does not take these inputs.
        """
        feeds = self._feeds(args, kwargs)
        device = next((tensor.device for tensor in (*args, *kwargs.values())), torch.device("cpu"))
        try:
            outputs = self._session.run(None, feeds)
        except Exception as error:
            raise MeasurementError(
                f"onnxruntime raised {type(error).__name__}: {error}",
                "export the graph for every batch size (dynamic_shapes), with the subject's inputs",
            ) from error
        names = [entry.name for entry in self._session.get_outputs()]
        found = {
            name: torch.from_numpy(np.asarray(output)).to(device) for name, output in zip(names, outputs, strict=True)
        }
        return found[names[0]] if len(names) == 1 else found

    def _feeds(self, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> dict[str, Any]:
        wanted = self._session.get_inputs()
        given = dict(zip((entry.name for entry in wanted), args, strict=False)) | kwargs
        names = {entry.name for entry in wanted}
        if len(args) > len(wanted) or given.keys() != names or len(given) != len(args) + len(kwargs):
            raise MeasurementError(
                f"the ONNX graph takes {', '.join(sorted(names))}, not {len(args)} by position and {sorted(kwargs)}",
                "export it with the inputs that the subject's model takes, by the same names",
            )
        return {entry.name: _fed(entry, given[entry.name]) for entry in wanted}


def _fed(entry: onnxruntime.NodeArg, tensor: torch.Tensor) -> Any:
    try:
        array = tensor.detach().cpu().numpy()
    except TypeError:
        raise MeasurementError(
            f"{tensor.dtype} cannot be handed to onnxruntime", "export the graph with float32 or float16 inputs"
        ) from None
    declared = [size for size in entry.shape if isinstance(size, int)]
    if len(declared) == len(entry.shape) and declared != list(array.shape):
        raise MeasurementError(
            f"input {entry.name} of the ONNX graph is fixed to {declared}, and {list(array.shape)} was given",
            "export it for every batch size: torch.onnx.export(…, dynamic_shapes=…)",
        )
    return array


def _session(content: bytes) -> onnxruntime.InferenceSession:
    """Deterministic: as many threads as torch has, one operation at a time.

    Raises:
        SubjectError: onnxruntime cannot run the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SubjectError(
            f"cannot be run by onnxruntime: {error}", "export it with the operators that onnxruntime has"
        ) from None


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of branches and loops included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, Any]]:
    """Initializers and constants by name, as arrays."""
    from onnx import numpy_helper

    for initializer in graph.initializer:
        yield initializer.name, numpy_helper.to_array(initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], numpy_helper.to_array(attribute.t)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _constants(inner)


def _tensor(name: str, array: Any) -> torch.Tensor:
    if array.dtype.name == "bfloat16":  # numpy itself has none
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    try:
        return torch.from_numpy(np.array(array))
    except TypeError:
        if array.dtype.kind in "OSU":
            return torch.zeros(0)  # text
        raise SubjectError(
            f"has a tensor {name} of {array.dtype}, which cannot be measured", "export it with float or 8-bit weights"
        ) from None


def _weights(graph: onnx.GraphProto, tensors: dict[str, torch.Tensor]) -> tuple[set[str], set[str]]:
    """Names of the layers' weights, and of the running statistics of batch norms."""
    nodes = list(_nodes(graph))
    made_of = {node.output[0]: node.input[0] for node in nodes if node.op_type in _HANDS_ON and node.input}
    weights, statistics = set(), set()
    for node in nodes:
        if node.op_type == "BatchNormalization":
            statistics |= set(node.input[3:5])
        for position in _WEIGHTS.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            while name in made_of:
                name = made_of[name]
            if name in tensors and tensors[name].dim() > 1:
                weights.add(name)
    return weights, statistics
