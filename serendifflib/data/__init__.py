"""Data: interactions, sources, the simulator, folds, candidates."""
