"""Densities p(z); a prior is a module with `prior(section, latent_shape, spec, posterior)`."""
