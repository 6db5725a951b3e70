"""Servers of one ONNX network, and clients that load them alike: see `benchmarks/edge_alone.py`."""
