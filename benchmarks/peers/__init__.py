"""The peers' side of the workloads: each library's own idiom, imported only in the process that runs it.

The modules are named after the library with a suffix, so that none of them hides it.
"""
