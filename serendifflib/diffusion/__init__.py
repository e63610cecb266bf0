"""Diffusion: the schedule, the network, training and sampling."""
