"""Solvers of the balancers' small optimization problems: fixed shapes, under jit and vmap."""
