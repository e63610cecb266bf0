"""Rivals and controls, each in a file of its own on one protocol."""
