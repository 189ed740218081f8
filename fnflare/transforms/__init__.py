"""The transforms: functions from functions to functions."""

from fnflare.core import ShapeDtypeStruct
from fnflare.transforms.abstract import eval_shape
from fnflare.transforms.checkpoint import checkpoint
from fnflare.transforms.custom import custom_jvp, custom_vjp
from fnflare.transforms.forward import jvp, linearize
from fnflare.transforms.jacobian import hessian, jacfwd, jacrev
from fnflare.transforms.program import make_program
from fnflare.transforms.reverse import float0, grad, value_and_grad, vjp
from fnflare.transforms.stop import stop_gradient

__all__ = [
    "ShapeDtypeStruct",
    "checkpoint",
    "custom_jvp",
    "custom_vjp",
    "eval_shape",
    "float0",
    "grad",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "make_program",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]
