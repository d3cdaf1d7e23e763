"""Attacks on all variants of an audit together, and what is needed to trust them.

An attack (one file in :mod:`pruneproof.attacks`) proposes points; only the :class:`~pruneproof.adversarial.arena.Arena`
says whether a point counts: finite, inside what the attacker may do, and confirmed by a forward pass of its own.
"""
