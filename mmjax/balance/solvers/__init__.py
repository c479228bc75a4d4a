"""Solvers of the small problems that balancers pose: at fixed shapes, under jit and vmap."""
