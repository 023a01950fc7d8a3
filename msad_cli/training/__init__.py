"""Training, evaluation, prediction, files. Knows modules that yield losses; names no method and no architecture."""
