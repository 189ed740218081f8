"""fnflare: functional neural nets on NumPy and MKL."""
from fnflare import tree
from fnflare.ops import at
from fnflare.transforms import *
