"""A synthetic EM volume of any size: a pure function of a seed, computed block by block."""

from .volume import Phantom, PhantomOpener

__all__ = ["Phantom", "PhantomOpener"]
