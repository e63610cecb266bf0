"""Tables as data: rows, prepared folds, records, results."""
