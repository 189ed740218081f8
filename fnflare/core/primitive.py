"""Primitives: the operations that traces see, each with all of its rules in one block.

A kernel on plain arrays goes in, with a shape rule; derivative rules and a batching rule are added
by decorators, all written in traced operations, so that they differentiate again. The signature of
a derivative rule says what the tape has to keep for it: of its parameters after the cotangent,

- a plain name (``x``, ``ans``) wants the value,
- a name that ends in ``_like`` wants something with that value's shape and dtype,
- a name that starts with ``_`` wants nothing and is given None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core.aval import ShapeDtypeStruct, resolvable
from fnflare.core.trace import bind
from fnflare.core.tracer import Tracer
from fnflare.errors import UnsupportedError

__all__ = ["NOTHING", "SHAPE", "VALUE", "Plan", "Primitive", "primitive", "primitives", "writes_out"]

Rule = Callable[..., Any]

#: What a rule wants of an argument or of the answer.
NOTHING, SHAPE, VALUE = 0, 1, 2

_registry: dict[str, Primitive] = {}


def primitives() -> dict[str, Primitive]:
    """Every primitive by its name."""
    return dict(_registry)


class Plan:
    """What a tape does with a primitive when a given set of its arguments is traced.

    ``rules`` pairs the position of each traced argument with its rule, ``joint`` is the one rule
    for all of them where the primitive has that instead; ``inputs`` and ``answer`` say what to keep.
    """

    __slots__ = ("answer", "argnum", "argnums", "inputs", "joint", "keeps_all", "keeps_none", "many", "rules", "single")

    def __init__(
        self, rules: tuple[tuple[int, Rule], ...], joint: Rule | None, inputs: tuple[int, ...], answer: int, many: bool
    ) -> None:
        self.rules = rules
        self.argnums = tuple([i for i, _ in rules])
        self.argnum = rules[0][0] if rules else 0
        self.single: Rule | None = rules[0][1] if len(rules) == 1 and joint is None else None
        self.joint = joint
        self.many = many
        self.inputs = inputs
        self.answer = answer
        self.keeps_all = all(k == VALUE for k in inputs)
        self.keeps_none = (None,) * len(inputs) if all(k == NOTHING for k in inputs) else None


class Primitive:
    """One operation and its rules. Made by `primitive`; see there."""

    __slots__ = (
        "batch",
        "binary_plans",
        "carries",
        "differentiable",
        "dual_rule",
        "elementwise",
        "enter",
        "flops",
        "forward",
        "jvp_rules",
        "jvps_joint",
        "kernel",
        "many",
        "mergeable",
        "multilinear",
        "name",
        "plans",
        "prune",
        "shape",
        "unary_plan",
        "vjp_rules",
        "vjps_joint",
    )

    def __init__(self, name: str, kernel: Callable[..., Any], shape: Rule) -> None:
        self.name = name
        self.kernel = kernel
        self.shape = shape
        self.elementwise = False
        self.differentiable = True
        self.multilinear = False
        self.many = False
        self.carries = ""
        #: Whether a program may do it once where it does it twice with the same arguments.
        self.mergeable = True
        self.vjp_rules: tuple[Rule | None, ...] = ()
        self.unary_plan: Plan | None = None
        self.binary_plans: tuple[Plan | None, Plan | None, Plan | None] | None = None
        self.jvp_rules: tuple[Rule | None, ...] = ()
        self.vjps_joint: Rule | None = None
        self.jvps_joint: Rule | None = None
        self.forward: Rule | None = None
        self.batch: Rule | None = None
        self.dual_rule: Rule | None = None
        self.enter: Rule | None = None
        self.prune: Rule | None = None
        self.flops: Rule | None = None
        self.plans: dict[Any, Plan] = {}

    def __repr__(self) -> str:
        return self.name

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Apply the primitive to arrays or tracers."""
        out = bind(self, args, params or None)
        if isinstance(out, Tracer):
            out.mark()
        return out

    # -- rules ----------------------------------------------------------------------------------

    def vjp(self, *rules: Rule | None) -> Any:
        """Give the vjp rules, one for each argument: ``rule(ct, ans, *args, **params) -> cotangent``.

        None stands for an argument that is never differentiated. Used with one rule it is a decorator.
        """
        self.vjp_rules = rules
        if len(rules) == 1 and not self.many:
            self.unary_plan = self._fast_plan((0,), 1)
        elif len(rules) == 2 and (self.elementwise or self.multilinear):
            self.binary_plans = (self._fast_plan((0,), 2), self._fast_plan((1,), 2), self._fast_plan((0, 1), 2))
        return rules[0] if len(rules) == 1 else rules

    def jvp(self, *rules: Rule | None) -> Any:
        """Give the jvp rules, one for each argument: ``rule(t, ans, *args, **params) -> tangent``.

        The tangent of the answer is the sum over the arguments that have one.
        """
        self.jvp_rules = rules
        return rules[0] if len(rules) == 1 else rules

    def derivative(self, *rules: Rule | None) -> Any:
        """Give rules that serve as both vjp and jvp: those of elementwise operations do, since the
        Jacobian is diagonal and multiplying by it is the same from both sides."""
        self.jvp(*rules)
        return self.vjp(*rules)

    def vjp_joint(self, rule: Rule) -> Rule:
        """Give one vjp rule for all arguments: ``rule(ct, ans, *args, **params) -> cotangents``."""
        self.vjps_joint = rule
        return rule

    def jvp_joint(self, rule: Rule) -> Rule:
        """Give one jvp rule for all arguments: ``rule(ts, ans, *args, **params) -> tangent``,
        with None in `ts` for an argument that has no tangent."""
        self.jvps_joint = rule
        return rule

    def dual(self, rule: Rule) -> Rule:
        """Give ``rule(ts, *args, **params) -> (ans, tangent)``, with None in `ts` for an argument without a
        tangent: one run for both, for an operation whose tangent is not made from its answer."""
        self.dual_rule = rule
        self.jvps_joint = lambda ts, _ans, *args, **params: rule(ts, *args, **params)[1]
        return rule

    def residuals(self, rule: Rule) -> Rule:
        """Give ``rule(traced, *args, **params) -> (ans, residuals)``, `traced` the numbers of the arguments that
        are on the tape: under a tape it runs instead of the kernel, and the joint vjp rule is then called as
        ``rule(ct, ans, *residuals, **params)``."""
        self.forward = rule
        return rule

    def vmap(self, rule: Rule) -> Rule:
        """Give the batching rule: ``rule(size, args, axes, **params) -> (ans, axis)``."""
        self.batch = rule
        return rule

    def entering(self, rule: Rule) -> Rule:
        """Give ``rule(trace, args, **params) -> ans``: what becomes of the primitive when a program is made of
        a function that uses it, where that is not simply an equation."""
        self.enter = rule
        return rule

    def pruning(self, rule: Rule) -> Rule:
        """Give ``rule(used, **params) -> (outputs, inputs, params)``, for an operation with several answers of which
        a program uses some, the numbers `used`: what is left of its answers and arguments, and its parameters then;
        None where nothing can be left out."""
        self.prune = rule
        return rule

    def cost(self, rule: Rule) -> Rule:
        """Give the count of floating-point operations: ``rule(ans_aval, *arg_avals, **params) -> int``."""
        self.flops = rule
        return rule

    # -- what traces ask ------------------------------------------------------------------------

    def plan(self, mode: str, traced: tuple[int, ...], count: int) -> Plan:
        """The `Plan` for a set of traced arguments of a call with `count` of them; made once."""
        plan = self.plans.get((mode, traced, count))
        if plan is None:
            plan = self.plans[mode, traced, count] = self._make_plan(mode, traced, count)
        return plan

    def _fast_plan(self, traced: tuple[int, ...], count: int) -> Plan | None:
        """The plan of `Trace.unary` and `Trace.binary`, for operations without parameters."""
        if any(self.vjp_rules[i] is None for i in traced):
            return None
        plan = self._make_plan("vjp", traced, count)
        return None if plan.answer == SHAPE else plan

    def _make_plan(self, mode: str, traced: tuple[int, ...], count: int) -> Plan:
        joint = self.jvps_joint if mode == "jvp" else self.vjps_joint
        if joint is not None:
            answer, inputs = _wants(joint, count) if mode != "residuals" else (VALUE, ())
            return Plan(tuple((i, joint) for i in traced), joint, inputs, answer, self.many)
        rules = tuple((i, self.rule(mode, i)) for i in traced)
        wants = [_wants(rule, count) for _, rule in rules]
        inputs = tuple(max(w[1][i] for w in wants) for i in range(count))
        return Plan(rules, None, inputs, max(w[0] for w in wants), self.many)

    def rule(self, mode: str, argnum: int) -> Rule:
        """The vjp or jvp rule for one argument."""
        rules = self.vjp_rules if mode == "vjp" else self.jvp_rules
        rule = rules[argnum] if argnum < len(rules) else None
        if rule is None and mode == "jvp" and self.multilinear:
            return _linear_rule(self, argnum)
        if rule is None:
            raise UnsupportedError(
                f"{self.name}: argument {argnum} has no {mode} rule; wrap it in ff.stop_gradient "
                "if its derivative is not wanted"
            )
        return rule


def _linear_rule(prim: Primitive, argnum: int) -> Rule:
    """The jvp of an operation that is linear in argument `argnum`: the operation, with the tangent there."""

    def rule(t: Any, _ans: Any, *args: Any, **params: Any) -> Any:
        return bind(prim, (*args[:argnum], t, *args[argnum + 1 :]), params or None)

    return rule


def _want(name: str) -> int:
    return NOTHING if name.startswith("_") else SHAPE if name.endswith("_like") else VALUE


def _wants(rule: Rule, count: int) -> tuple[int, tuple[int, ...]]:
    """Reads off a rule's signature what it wants of the answer and of each of `count` arguments."""
    answer: int | None = None
    inputs: list[int] = []
    names = [p for p in inspect.signature(rule).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    for p in names[1:]:
        if answer is None and p.kind is not p.VAR_POSITIONAL:
            answer = _want(p.name)
        elif p.kind is p.VAR_POSITIONAL:
            answer = _want(p.name) if answer is None else answer
            inputs += [_want(p.name)] * (count - len(inputs))
        elif p.kind is p.POSITIONAL_OR_KEYWORD:
            inputs.append(_want(p.name))
    inputs += [NOTHING] * (count - len(inputs))
    return answer or NOTHING, tuple(inputs[:count])


def writes_out(kernel: Rule) -> Rule:
    """Decorator: say of a kernel that it takes ``out=``, an array of the answer's shape and dtype to write it into;
    that may be one of its arguments."""
    kernel.takes_out = True  # type: ignore[attr-defined]
    return kernel


def elementwise_shape(kernel: Any) -> Rule:
    """The shape rule of a ufunc: shapes broadcast, dtypes resolve as NumPy resolves them."""

    def shape(*avals: ShapeDtypeStruct) -> ShapeDtypeStruct:
        dtype = kernel.resolve_dtypes((*map(resolvable, avals), None))[-1]
        return ShapeDtypeStruct(np.broadcast_shapes(*[a.shape for a in avals]), dtype)

    return shape


def primitive(
    name: str,
    kernel: Callable[..., Any],
    shape: Rule | None = None,
    *,
    ufunc: np.ufunc | None = None,
    differentiable: bool = True,
    multilinear: bool = False,
    many: bool = False,
    carries: str = "",
) -> Primitive:
    """Make and register a primitive.

    Args:
        name: its name in programs and messages.
        kernel: what it does to plain arrays: ``kernel(*args, **params)``.
        shape: the shape rule, ``shape(*avals, **params) -> aval`` (a tuple of them where `many`).
            May be left out for an elementwise operation that gives its `ufunc`.
        ufunc: the NumPy ufunc whose broadcasting and dtypes it has; makes it elementwise: cotangents
            are summed to the shape of the argument and tangents broadcast to that of the answer.
        differentiable: False for an operation whose derivative is zero or undefined everywhere;
            under differentiation its answer is then a plain value.
        multilinear: whether it is linear in each argument that has a vjp rule; the jvp rules follow.
        many: whether the answer is a tuple of arrays.
        carries: "function" or "program" where a parameter is one and the kernel runs it, on arrays or tracers; who
            observes sees the operations of that and not this one.
    """
    if shape is None:
        if ufunc is None:
            raise TypeError(f"primitive {name!r} needs a shape rule")
        shape = elementwise_shape(ufunc)
    if name in _registry:
        raise ValueError(f"there is a primitive {name!r} already")
    prim = _registry[name] = Primitive(name, kernel, shape)
    prim.elementwise = ufunc is not None
    prim.differentiable = differentiable
    prim.multilinear = multilinear
    prim.many = many
    prim.carries = carries
    return prim
