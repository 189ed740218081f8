"""LLVM in process: text goes in, object code comes out, and object code becomes functions that can be called.

The only file that calls llvmlite. Compiling and loading are two steps, so that object code can be kept in between.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from typing import Any

__all__ = ["Code", "add_symbol", "available", "compile_text", "load", "machine", "versions"]

#: LLVM's own state is shared by all threads of a process. Whatever imports or calls llvmlite, which has a lock of its
#: own, does so while it holds this one; what lets go of llvmlite's objects too.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A child must not be made while another thread, which the child lacks, is in the middle of something here.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@functools.cache
def available() -> bool:
    """Whether llvmlite is installed."""
    try:
        with _lock:
            import llvmlite.binding  # noqa: F401
    except ImportError:
        return False
    return True


@functools.cache
def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@functools.cache
def machine() -> tuple[str, str, str]:
    """The target triple, the processor's name and its features, as LLVM has them."""
    with _lock:
        llvm = _llvm()
        return llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@functools.cache
def versions() -> tuple[str, ...]:
    """Of llvmlite and of LLVM, and how it is told to compile."""
    with _lock:
        llvm = _llvm()
        import llvmlite

        return llvmlite.__version__, ".".join(map(str, llvm.llvm_version_info)), *_addressing()


def _addressing() -> tuple[str, str]:
    """How code is told to find its constants and what it calls."""
    # The loader takes memory for code and for constants wherever the system has room. Distances of 32 bits, which are
    # the default of x86-64, do not always reach from one to the other, and then LLVM aborts. Whole addresses cost
    # nothing that could be measured. On aarch64 llvmlite's own loader lays them side by side.
    triple = machine()[0]
    return ("static", "large") if triple.startswith("x86_64") and "linux" in triple else ("pic", "default")


def _target_machine() -> Any:
    llvm = _llvm()
    triple, cpu, features = machine()
    reloc, model = _addressing()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=reloc, codemodel=model, jit=True
    )


def compile_text(text: str) -> bytes:
    """Object code of a module in LLVM's own language.

    Raises:
        RuntimeError: LLVM does not accept the text.
    """
    with _lock:
        return _compiled(text)


def _compiled(text: str) -> bytes:
    # A function of its own: what LLVM made for it is gone when it returns, while the lock is held.
    llvm = _llvm()
    target = _target_machine()
    module = llvm.parse_assembly(text)
    module.triple = machine()[0]
    module.data_layout = str(target.target_data)
    # The text is as the processor is to have it: vectors, SSA form, nothing twice. LLVM's usual passes took as long
    # as all that follows and made the code no better, so that only variables in memory are taken into registers.
    builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=0))
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.run(module, builder)
    return bytes(target.emit_object(module))


class Code:
    """Object code in memory; it stays there as long as this object lives."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        # No __del__: weak references still work while one runs, so that another thread could find the code and go on
        # with it while this one waits for the lock to give it up. At the process's end nothing is given up: LLVM's
        # library may be gone then.
        weakref.finalize(self, _close, engine).atexit = False

    def address(self, name: str) -> int:
        """Where a function begins."""
        with _lock:
            return int(self._engine.get_function_address(name))


def _close(engine: Any) -> None:
    with _lock:
        engine.close()


def load(code: bytes) -> Code:
    """Put object code into memory, ready to run.

    What it calls and does not define is looked up among the symbols of the process.
    """
    with _lock:
        return _loaded(code)


def _loaded(code: bytes) -> Code:
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return Code(engine)


def add_symbol(name: str, address: int) -> None:
    """Let code that is loaded later find a function of the process by a name."""
    with _lock:
        _llvm().add_symbol(name, address)
