"""The pure functions of training: forward pass, training step, evaluation step, states."""
