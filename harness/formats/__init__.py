"""Checkpoint formats, one file each, named after the ending of the files that it reads.

A file in this folder (:mod:`pruneproof.registry` finds it) has one function::

    def load(path: Path, subject: Subject, *, unpickle: bool) -> torch.nn.Module

It returns a model that takes what the subject's model takes, can be copied with ``copy.deepcopy`` and gives the same
outputs for the same inputs. A state dict is laid on a copy of the subject's model; a program
(``onnx``, ``pt2``) is wrapped so that its tensors are the module's parameters and buffers, by the names that the
program gives them, and its layers' weights count as layer weights (:mod:`pruneproof.prunable`).

A format whose files may leave tensors in further files beside them also has::

    def outside(path: Path) -> tuple[str, ...]           # their names

``unpickle`` allows a file that runs code of its own when it is read. A format that cannot rule that out refuses without
it, before anything of the file ran. What cannot be read, or does not fit the subject, raises a ``SubjectError`` with
a cause that goes on after the file's name, as in "is damaged": :func:`pruneproof.loading.checkpoint` puts it in front.
"""
