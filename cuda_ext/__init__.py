"""Operations on images and detections, as plain functions: `from cuda_ext import augment`.

Compiled kernels compute them where this machine can have those, and plain PyTorch elsewhere, with the same results.
"""

from cuda_ext.gram import gram_matrix
from cuda_ext.ops import augment, instance_norm_act, sigmoid_focal_loss
from cuda_ext.reference import lookup_table, normalize

__all__ = ["augment", "gram_matrix", "instance_norm_act", "lookup_table", "normalize", "sigmoid_focal_loss"]
