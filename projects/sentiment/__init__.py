"""A text classifier: texts in, class probabilities and the weight of every word out."""
