"""Random changes of stores, results, checkpoints, settings and command lines: each is done, or refused in one line.

Each test takes ``FUZZ_EXAMPLES`` examples (default 25). For ten minutes: ``FUZZ_EXAMPLES=2000 pytest tests/fuzz``.
"""
