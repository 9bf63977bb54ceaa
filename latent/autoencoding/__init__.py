"""The axes of an autoencoder: bottleneck, prior, likelihood, rate, penalties, adversary; models/vae.py joins them."""
