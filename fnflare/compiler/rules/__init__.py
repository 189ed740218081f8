"""How each primitive is lowered, one family a file.

A rule takes the values of an equation's arguments and makes nodes of its block for the answers. Importing this package
registers all of them.
"""

from fnflare.compiler.rules import control, elementwise, indexing, layout, products, randomness, reductions

__all__ = ["control", "elementwise", "indexing", "layout", "products", "randomness", "reductions"]
