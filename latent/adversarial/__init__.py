"""The axes of a GAN: losses, penalties, spectral normalisation, augmentation, inversion; models/gan.py joins them."""
