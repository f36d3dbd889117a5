"""Operations on images and detections, as plain functions: `from cuda_ext import augment`.

Compiled kernels compute them where this machine can compile or load these, plain PyTorch elsewhere, with equal results.
"""

from cuda_ext.gram import gram_matrix
from cuda_ext.ops import augment, instance_norm_act, sigmoid_focal_loss
from cuda_ext.pool_norm import pool_norm_act
from cuda_ext.reference import lookup_table, normalize
from cuda_ext.resize import color_matrices, crop_resize

__all__ = [
    "augment",
    "color_matrices",
    "crop_resize",
    "gram_matrix",
    "instance_norm_act",
    "lookup_table",
    "normalize",
    "pool_norm_act",
    "sigmoid_focal_loss",
]
