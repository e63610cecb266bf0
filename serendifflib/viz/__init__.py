"""Plots and sliders; they know results, results know no plots."""
