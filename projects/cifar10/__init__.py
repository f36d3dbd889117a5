"""An image classifier from scratch: small pictures in, class probabilities out."""
