"""Loop nests as LLVM IR, and LLVM in process."""
