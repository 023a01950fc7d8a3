"""Post-processing in tensors of fixed shapes, for whole batches and exported graphs."""
