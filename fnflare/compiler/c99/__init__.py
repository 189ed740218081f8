"""Loop nests as C99 that reads: a translation unit for a module, and libraries for inference that stand alone."""

from fnflare.compiler.c99.render import render

__all__ = ["render"]
