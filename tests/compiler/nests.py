"""Loop nests written by hand, and how they are run."""

import ctypes

import numpy as np

from fnflare.compiler.llvm import engine
from fnflare.compiler.llvm.render import render
from fnflare.nest import DTYPES, Buffer, Element, Kernel, Module, Part, Run, dtype_of, index

LOADED = []  # code stays in memory as long as its functions are called


def parameter(name, dtype):
    return Buffer(name, dtype, index(0), "parameter")


def element(buffer, at):
    return Element(buffer.dtype, buffer, index(at))


def compiled(module, **options):
    """A module as a function of arrays and sizes."""
    return loaded(render(module, **options))


def loaded(text):
    """The function that a module in LLVM's language defines."""
    code = engine.load(engine.compile_text(text))
    LOADED.append(code)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(code.address("main"))

    def call(arrays, sizes=()):
        assert all(a.flags.c_contiguous for a in arrays)
        pointers = (ctypes.c_void_p * max(1, len(arrays)))(*[a.ctypes.data for a in arrays])
        function(pointers, (ctypes.c_int64 * max(1, len(sizes)))(*sizes))

    return call


def module_of(buffers, body, kernels=(), sizes=()):
    return Module("module", tuple(buffers), tuple(sizes), tuple(kernels), tuple(body))


def of_kernel(kernel):
    """A module that runs one kernel on buffers that are its own parameters."""
    parts = tuple([Part(p, index(0)) for p in kernel.parameters])
    run = Run(kernel, parts, tuple([index(s) for s in kernel.sizes]))
    return module_of(kernel.parameters, (run,), (kernel,), kernel.sizes)


def kernel(parameters, body, sizes=(), axis=None, **rest):
    return Kernel("kernel", tuple(parameters), tuple(sizes), axis, tuple(body), **rest)


def run(made, arrays, sizes=(), **options):
    """Run a kernel once; `arrays` are its parameters, those that it writes are changed."""
    for array, p in zip(arrays, made.parameters, strict=True):
        assert dtype_of(array.dtype) == p.dtype
    compiled(of_kernel(made), **options)(arrays, sizes)


def guarded(size, dtype):
    """An array to write to, of zeros, with elements after its end that must not change."""
    whole = np.zeros(size + 70, DTYPES[dtype])
    whole[size:] = 1
    return whole
