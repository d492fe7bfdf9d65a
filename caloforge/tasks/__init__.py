"""Reconstruction: from a shower to what made it, on the features of a pretrained model."""
