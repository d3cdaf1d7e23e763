"""Families: networks whose units are known by rule, because tracing cannot find them or would not keep them true.

A family is a file in this folder (:mod:`pruneproof.registry` finds it) with five functions::

    def matches(model: torch.nn.Module) -> bool          # is there a network of this family in ``model``?
    def hosts(model: torch.nn.Module) -> list[str]       # the paths of these networks; "" is ``model`` itself
    def channels(model: torch.nn.Module) -> Found | None
    def heads(model: torch.nn.Module) -> Found | None
    def blocks(model: torch.nn.Module) -> Found | None

The last three are called on models that match only; ``None`` says that the family has no rule of its own for it, so
that the general one applies. What lies outside of the hosts is pruned in the general way. A family
whose networks carry a configuration of transformers says ``CONFIGURED = True`` instead of ``hosts``, and keeps that
true. The library that a family is of is never imported: classes are recognised by the name
and module that they were defined with. A rule may only remove what the network's configuration can express, so that
what was pruned can be saved and loaded as the library does it; what it cannot express is left whole, with that reason.
"""
