"""Loop nests as C99 that reads: a translation unit for a module, and libraries for inference that stand alone."""

from fnflare.compiler.c99.render import render
from fnflare.compiler.c99.standalone import standalone

__all__ = ["render", "standalone"]
