"""Implementations of the operators for CUDA tensors."""
