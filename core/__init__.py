"""What every training has in common: the step, the loop, the checkpoint, the data, the export, the inference.

Core knows tensors, devices and files. It knows no project, and importing any module of it does no work.
"""
