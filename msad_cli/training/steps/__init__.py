"""A training step by step: the loop, its gradients and rates, and all that a run has to remember."""
