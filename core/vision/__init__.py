"""What projects on images share: folders, decoding, sets, preprocessing inside a graph, classification, grids."""
