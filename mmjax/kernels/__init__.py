"""Array kernels that are fast on CPU.

There is one function per operation. It uses the fast version if the program is lowered for CPU, and
the plain version, which is in the same module, on other platforms. The tests compare the two.
Images have the layout of `mmjax.kernels.batch_last`.
"""
