"""Metrics, the protocol, statistics, tables and checks of the tables."""
