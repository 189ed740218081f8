"""`check_layer`: all laws of layers over one layer.

A layer and the shape of its inputs go in; nothing comes out, or an `AssertionError` whose example holds the smallest
parameters and inputs that were found.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError
from fnflare.testing.holding import hold
from fnflare.testing.layer_laws import APPLY_LAWS, INIT_LAWS, modes_of
from fnflare.testing.subjects import Mode, subject_of, with_sizes
from fnflare.testing.writing import Writer, limits_of

__all__ = ["check_layer"]


def check_layer(
    layer: Any,
    input_shape: Any,
    *,
    inputs: Callable[[np.random.Generator, Any], Any] | Any = None,
    params: Any = None,
    laws: Sequence[str] | None = None,
    train: bool | None = None,
    independent: bool = True,
    order: int = 1,
    seed: int = 0,
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
) -> None:
    """Check the laws of layers over a layer, in evaluation and, where that differs, in training.

    ==============  =================================================================================================
    law             what it says
    ==============  =================================================================================================
    ``shapes``      init foretells the shapes of apply's outputs, for any sizes of the free dimensions
    ``init``        equal keys give equal parameters, all of which are arrays
    ``paths``       within `nn.serial` the parameters are the same, and an error says in which layer it arose
    ``dtypes``      float32 gives float32, float64 gives float64, and init makes float32
    ``pure``        the same arguments give the same bits, and nothing is written into them
    ``keys``        random numbers come from the key, and of no key twice; in training without one there is a
                    `MissingKeyError` that names the path; nothing else depends on it
    ``batch``       each example of a batch gives what it gives alone, with ``train=False``
    ``gradients``   gradients mirror the parameters, and those of parameters and inputs are right in both modes (in
                    reverse mode alone where there is no other)
    ``vmap``        many batches, or many parameters, at once give what each gives
    ``jit``         outputs and gradients are the same eagerly, on the interpreter and as native code
    ==============  =================================================================================================

    Args:
        layer: a pair (init, apply), or what `nn.with_state` made.
        input_shape: the shape of the inputs, a tuple of shapes for several; -1 stands for a free dimension.
        inputs: ``inputs(rng, shape)`` draws inputs of a shape without -1 with a NumPy generator, such as
            ``lambda rng, shape: rng.integers(0, 10, shape)`` for an embedding; or the inputs themselves. Standard
            normal float32 numbers where None.
        params: the parameters (of a stateful model with the state, a pair); what init draws where None.
        laws: which laws; all where None.
        train: in which mode; None for evaluation, and training too where it gives something else.
        independent: whether the law ``batch`` is among them where `laws` is None.
        order: the highest order of the derivatives that ``gradients`` checks.
        seed: of parameters, inputs, keys and directions.
        atol, rtol, eps: the tolerances and the step of ``gradients``; by dtype where None.

    Raises:
        AssertionError: a law does not hold; the message says which, and ends in code that fails in the same way.
        ArgumentError: `layer` is no pair that can be called as a layer, or there is no such law.

    >>> from fnflare import nn
    >>> ff.testing.check_layer(nn.Dense(2), (-1, 3))
    >>> halves = nn.Layer(
    ...     init=lambda key, shape: (shape, ()),
    ...     apply=lambda params, x, *, key=None, train=False: x[: len(x) // 2],
    ... )
    >>> ff.testing.check_layer(halves, (4, 3))
    Traceback (most recent call last):
        ...
    fnflare.testing.failures.LawError: shapes: for inputs (1, 1) init foretells outputs (1, 1); apply gives (0, 1) ...
    """
    __tracebackhide__ = True
    known = [*INIT_LAWS, *APPLY_LAWS]
    wanted = [law for law in known if independent or law != "batch"] if laws is None else list(laws)
    if set(wanted) - set(known):
        raise ArgumentError(f"check_layer: laws must be of {known}, got {sorted(set(wanted) - set(known))}")
    fixed = inputs is not None and not callable(inputs)
    subject = subject_of(layer, (lambda rng, shape: inputs) if fixed else inputs, seed, order, (atol, rtol, eps))

    def write(writer: Writer, law: str, shape: Any, **given: str | None) -> str:
        options = {"order": None if order == 1 else str(order)} | limits_of(atol, rtol, eps, seed=seed)
        text = writer.subject(layer, "layer", 0)
        return writer.call("check_layer", text, repr(shape), **given, laws=repr((law,)), **options)

    for law in [law for law in INIT_LAWS if law in wanted]:

        def write_init(writer: Writer, shape: Any, law: str = law) -> str:
            return write(writer, law, shape, inputs=None if inputs is None else writer.expression(inputs))

        hold(partial(INIT_LAWS[law], subject), input_shape, write_init, tries=0 if fixed else None)
    rest = [law for law in APPLY_LAWS if law in wanted]
    if not rest:
        return
    sizes = with_sizes(input_shape)
    case = (subject.init(sizes)[1] if params is None else params, subject.inputs(sizes))
    modes = modes_of(subject, *case) if train is None else [Mode(train)]
    for mode, law in itertools.product(modes, rest):

        def holds(case: tuple[Any, Any], law: str = law, mode: Mode = mode) -> None:
            params, inputs = case
            APPLY_LAWS[law](subject, params, inputs, mode)

        def write_case(writer: Writer, case: Any, law: str = law, mode: Mode = mode) -> str:
            given = {"params": writer.expression(case[0]), "inputs": writer.expression(case[1])}
            shape = np.shape(case[1]) if hasattr(case[1], "shape") else sizes
            return write(writer, law, shape, **given, train="True" if mode.train else None)

        hold(holds, case, write_case, generic=law == "gradients")
