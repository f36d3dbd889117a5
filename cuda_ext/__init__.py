"""Fused operations on images, as plain functions: `from cuda_ext import augment`."""

from cuda_ext.reference import augment, normalise

__all__ = ["augment", "normalise"]
