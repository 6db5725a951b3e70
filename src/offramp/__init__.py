"""Offramp: deep networks across a device and an edge server, under deadlines."""

__version__ = "0.1.0"
