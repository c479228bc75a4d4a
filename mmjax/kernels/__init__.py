"""Array kernels that are fast on CPU.

The caller uses one function per operation; it picks the fast version when a program is lowered for
CPU. The plain version, which other platforms get, stands beside it, and the tests compare the two.
Images have the layout of `mmjax.kernels.batch_last`.
"""
