"""Fine-tuning of a pretrained backbone on one's own images: few images in, class probabilities out."""
