"""The classic networks from scratch, one a file with its paper; model.py names them and has the ResNets."""
