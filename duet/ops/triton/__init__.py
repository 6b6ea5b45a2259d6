"""Kernels for GPUs, imported only where they are asked for."""
