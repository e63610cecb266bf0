"""Item vectors, expectedness and relevance, portraits, folds."""
