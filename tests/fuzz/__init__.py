"""Random changes of stores, results, checkpoints, settings and command lines: each is done, or refused in one line.

Each test takes ``FUZZ_EXAMPLES`` examples. Without that variable they are 25, the same ones each time, so that CI
judges a change and not its luck. ``python -m tests.fuzz --minutes 10`` draws new ones, as does the test with the marker
``slow``.
"""
