"""The run folder beside a model file: results, states, plots, samples."""
