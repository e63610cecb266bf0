"""Benchmarks: what takes how long, as ratios to a reference of the same run.

``python -m benchmarks NAME`` measures one part, ``all`` every part. The
notebook of Table 6 shows the records in ``results/bench``.
"""
