"""``.pth``: what ``torch.save`` wrote."""

from pruneproof.formats._pickled import load

__all__ = ["load"]
