"""Native code: programs become loop nests, which are compiled in process or rendered as C."""
