"""How the turns of a loop are shared out among OpenMP threads.

The text of one function, ``@share``, that the module's body calls with a loop's outlined body. It uses the OpenMP
runtime that MKL uses, so that there is one pool of threads: the entry points are those that C compilers call. How many
threads there are is asked of MKL, which has one number for the whole process, where OpenMP has one for each thread that
calls it.
"""

from __future__ import annotations

from fnflare.compiler.llvm.writer import Library

__all__ = ["add_share"]

# Runs the body in the caller.
_SERIAL = """\
define internal void @share(ptr %body, ptr %context, i64 %extent, i64 %least) {
  call void %body(ptr %context, i64 0, i64 %extent)
  ret void
}
"""
# The pieces are contiguous and depend on the number of threads alone.
_PARALLEL = """\
@source = private unnamed_addr constant [23 x i8] c";unknown;unknown;0;0;;\\00", align 1
@place = private unnamed_addr constant { i32, i32, i32, i32, ptr } { i32 0, i32 2, i32 0, i32 22, ptr @source }, align 8
define internal void @share(ptr %body, ptr %context, i64 %extent, i64 %least) {
  %most = udiv i64 %extent, %least
  %one = icmp ult i64 %most, 2
  br i1 %one, label %alone, label %ask
ask:
  %inside = call i32 @omp_in_parallel()
  %there = call i32 @MKL_Get_Max_Threads()
  %wide = sext i32 %there to i64
  %count = call i64 @llvm.umin.i64(i64 %most, i64 %wide)
  %some = icmp ugt i64 %count, 1
  %outside = icmp eq i32 %inside, 0
  %fork = and i1 %some, %outside
  br i1 %fork, label %together, label %alone
together:
  %me = call i32 @__kmpc_global_thread_num(ptr @place)
  %threads = trunc i64 %count to i32
  call void @__kmpc_push_num_threads(ptr @place, i32 %me, i32 %threads)
  call void (ptr, i32, ptr, ...) @__kmpc_fork_call(ptr @place, i32 3, ptr @piece, ptr %body, ptr %context, i64 %extent)
  ret void
alone:
  call void %body(ptr %context, i64 0, i64 %extent)
  ret void
}
define internal void @piece(ptr %global, ptr %bound, ptr %body, ptr %context, i64 %extent) {
  %number = call i32 @omp_get_thread_num()
  %team = call i32 @omp_get_num_threads()
  %mine = sext i32 %number to i64
  %count = sext i32 %team to i64
  %next = add i64 %mine, 1
  %before = mul i64 %extent, %mine
  %after = mul i64 %extent, %next
  %begin = udiv i64 %before, %count
  %end = udiv i64 %after, %count
  %some = icmp ult i64 %begin, %end
  br i1 %some, label %work, label %done
work:
  call void %body(ptr %context, i64 %begin, i64 %end)
  br label %done
done:
  ret void
}
"""
_RUNTIME = (
    "i32 @omp_in_parallel()",
    "i32 @MKL_Get_Max_Threads()",
    "i32 @omp_get_thread_num()",
    "i32 @omp_get_num_threads()",
    "i32 @__kmpc_global_thread_num(ptr)",
    "void @__kmpc_push_num_threads(ptr, i32, i32)",
    "void @__kmpc_fork_call(ptr, i32, ptr, ...)",
    "i64 @llvm.umin.i64(i64, i64)",
)


def add_share(library: Library, threads: bool) -> None:
    """Put ``@share`` into a module.

    ``@share(body, context, extent, least)`` runs ``body(context, begin, end)`` over [0, extent), shared out in pieces
    of at least `least` turns; all of it in the caller where that leaves one thread, and inside a parallel region.

    Args:
        library: where to.
        threads: whether the OpenMP runtime is there; otherwise nothing of it is asked for.
    """
    if not threads:
        library.definitions["share"] = _SERIAL
        return
    library.definitions["share"] = _PARALLEL
    for function in _RUNTIME:
        library.declare(function)
