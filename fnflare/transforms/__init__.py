"""The transforms: functions from functions to functions."""

from fnflare.core import ShapeDtypeStruct
from fnflare.transforms._mode import disable_jit
from fnflare.transforms.abstract import eval_shape
from fnflare.transforms.branches import cond, switch
from fnflare.transforms.callback import pure_callback
from fnflare.transforms.checkpoint import checkpoint
from fnflare.transforms.custom import custom_jvp, custom_vjp
from fnflare.transforms.debug import debug_nans
from fnflare.transforms.forward import jvp, linearize
from fnflare.transforms.jacobian import hessian, jacfwd, jacrev
from fnflare.transforms.jit import RetracingWarning, jit
from fnflare.transforms.loops import fori_loop, map, scan, while_loop
from fnflare.transforms.profile import Profile, profile
from fnflare.transforms.program import make_program
from fnflare.transforms.reverse import float0, grad, value_and_grad, vjp
from fnflare.transforms.stop import stop_gradient
from fnflare.transforms.vmap import vmap

__all__ = [
    "Profile",
    "RetracingWarning",
    "ShapeDtypeStruct",
    "checkpoint",
    "cond",
    "custom_jvp",
    "custom_vjp",
    "debug_nans",
    "disable_jit",
    "eval_shape",
    "float0",
    "fori_loop",
    "grad",
    "hessian",
    "jacfwd",
    "jacrev",
    "jit",
    "jvp",
    "linearize",
    "make_program",
    "map",
    "profile",
    "pure_callback",
    "scan",
    "stop_gradient",
    "switch",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]
