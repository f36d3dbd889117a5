"""Fine-tuning of a pretrained backbone on one's own pictures: few photographs in, class probabilities out."""
