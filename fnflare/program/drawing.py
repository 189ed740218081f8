"""Programs as pictures.

A program goes in, and comes out as text in the language of graphviz, or as what a notebook shows: a picture where
graphviz is installed, that text where it is not, and text alone where a picture would be too large to read.
"""

from __future__ import annotations

import shutil
import subprocess
from html import escape
from itertools import count

from fnflare.program import printing
from fnflare.program.ir import Equation, Literal, Program, Var
from fnflare.program.rewriting import COMMUTATIVE

__all__ = ["dot", "html", "svg"]

#: A program with more equations than this is not drawn in a notebook.
_MOST_EQUATIONS = 200
#: Seconds that graphviz may take.
_PATIENCE = 30

# Colours that stay apart for colour-blind eyes; shapes differ as well.
_INPUT = 'shape=ellipse fillcolor="#d5ead8" color="#4c8a57"'
_OUTPUT = 'shape=ellipse peripheries=2 fillcolor="#f3efc4" color="#998a1f"'
_CONSTANT = 'shape=note fillcolor="#ececec" color="#808080"'
_PHASES = {
    "forward": 'shape=box fillcolor="#dbe8f7" color="#4273a8"',
    "backward": 'shape=box fillcolor="#fbdcc4" color="#bf6415"',
}
_FONT = 'fontname="Helvetica,Arial,sans-serif"'


def dot(program: Program) -> str:
    """A program in the language of graphviz; see `fnflare.program.Program.dot`."""
    return "\n".join(_Drawing(program).lines) + "\n"


class _Drawing:
    """A picture being drawn: its lines, and numbers for its nodes."""

    def __init__(self, program: Program) -> None:
        self.names = printing.names_of(program)
        self.places = printing.places_of(program)
        self._numbers = count()
        title = _quoted(printing.title_of(program))
        self.lines = [
            f"digraph {title} {{",
            f"  graph [rankdir=TB compound=true {_FONT} fontsize=11 tooltip={title}]",
            f'  node [style="filled,rounded" {_FONT} fontsize=11 margin="0.1,0.04" height=0.3]',
            f'  edge [{_FONT} fontsize=9 fontcolor="#505050" color="#707070" arrowsize=0.6]',
        ]
        self._program(program, "  ")
        self.lines.append("}")

    def _program(self, program: Program, indent: str) -> str:
        """Draw a program's nodes; returns the first, where an arrow to the whole can end."""
        nodes: dict[Var, str] = {}
        first = ""
        for v in program.inputs:
            nodes[v] = self._node(indent, self.names[v], _INPUT, printing.type_text(v.aval))
            first = first or nodes[v]
        for equation in program.equations:
            node = self._equation(equation, nodes, indent)
            nodes.update(dict.fromkeys(equation.outputs, node))
            first = first or node
        for i, atom in enumerate(program.outputs):
            label = "output" if len(program.outputs) == 1 else f"output {i}"
            node = self._node(indent, label, _OUTPUT, printing.type_text(atom.aval))
            self._edge(indent, atom, node, nodes)
            first = first or node
        return first or self._node(indent, "nothing", _CONSTANT, "an empty program")

    def _equation(self, equation: Equation, nodes: dict[Var, str], indent: str) -> str:
        label = equation.prim.name
        if any(map(_is_scalar, equation.inputs)):  # `multiply(2, ·)` says what a node for the number would
            label += f"({', '.join([printing.atom_text(a, {}) if _is_scalar(a) else '·' for a in equation.inputs])})"
        if params := printing.plain_params(equation):
            label += f"\n{printing.params_text(params)}"
        source = equation.source
        tooltip = "\n".join(
            [
                printing.equation_text(equation, self.names, nested=False),
                *[part for part in printing.source_columns(source, self.places) if part],
            ]
        )
        style = _PHASES.get(source.phase if source is not None else "forward", _PHASES["forward"])
        node = self._node(indent, label, style, tooltip)
        drawn = [(i, a) for i, a in enumerate(equation.inputs) if not _is_scalar(a)]
        # Which argument an edge is, where that matters.
        numbered = len(drawn) > 1 and equation.prim.name not in COMMUTATIVE
        for i, atom in drawn:
            self._edge(indent, atom, node, nodes, f"{i}: " if numbered else "")
        for label, program in printing.inner_programs(equation):
            self._cluster(node, printing.title_of(program, label), program, indent)
        return node

    def _cluster(self, node: str, label: str, program: Program, indent: str) -> None:
        cluster = f"cluster{next(self._numbers)}"
        self.lines.append(f"{indent}subgraph {cluster} {{")
        self.lines.append(f'{indent}  label={_quoted(label)} style="rounded,dashed" color="#707070"')
        end = self._program(program, f"{indent}  ")
        self.lines.append(f"{indent}}}")
        self.lines.append(f"{indent}{node} -> {end} [lhead={cluster} style=dashed arrowhead=none]")

    def _node(self, indent: str, label: str, style: str, tooltip: str) -> str:
        node = f"n{next(self._numbers)}"
        self.lines.append(f"{indent}{node} [label={_quoted(label)} {style} tooltip={_quoted(tooltip)}]")
        return node

    def _edge(self, indent: str, atom: Var | Literal, node: str, nodes: dict[Var, str], place: str = "") -> None:
        label = f" {place}{printing.type_text(atom.aval)} "  # the spaces keep it off the arrow
        if isinstance(atom, Literal):
            value = printing.atom_text(atom, {})
            start = self._node(indent, value[1:-1] if atom.aval.shape else value, _CONSTANT, "a constant")
        else:
            if atom not in nodes:
                nodes[atom] = self._node(indent, "?", _CONSTANT, "no equation defines this variable")
            start = nodes[atom]
        self.lines.append(f"{indent}{start} -> {node} [label={_quoted(label)}]")


def _is_scalar(atom: Var | Literal) -> bool:
    return isinstance(atom, Literal) and not atom.aval.shape


def _quoted(s: str) -> str:
    """A string of the language, in which backslashes and entities mean what they say."""
    s = "".join([c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in s])
    s = s.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;").replace("\n", "\\n")
    return f'"{s}"'


def svg(program: Program) -> str | None:
    """The picture as an ``<svg>`` element; None where graphviz is not installed or could not draw it."""
    program_file = shutil.which("dot")
    if program_file is None:
        return None
    try:
        run = subprocess.run(
            [program_file, "-Tsvg"],
            input=dot(program),
            capture_output=True,
            encoding="utf-8",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    start = run.stdout.find("<svg")
    return run.stdout[start:] if run.returncode == 0 and start >= 0 else None


def html(program: Program) -> str:
    """What a notebook shows of a program."""
    equations = printing.count_equations(program)
    listing = f"<pre>{escape(printing.text(program, lines=True))}</pre>"
    if equations > _MOST_EQUATIONS:
        return _folded(_summary(program, equations), listing)
    picture = svg(program)
    if picture is not None:
        return f'<div style="overflow: auto">{picture}</div>{_folded("as text", listing)}'
    graph = f"<pre>{escape(dot(program))}</pre>"
    return f'<div style="display: flex; gap: 2em; overflow: auto">{listing}{graph}</div>'


def _summary(program: Program, equations: int) -> str:
    counts = f"{equations} equations, {len(program.inputs)} inputs, {len(program.outputs)} outputs"
    return f"{printing.title_of(program)}: {counts}; too many to draw"


def _folded(summary: str, inner: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"
