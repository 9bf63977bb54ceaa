"""What lies between encoder and decoder; a bottleneck is a module with `bottleneck(section, latent_shape)`."""
