"""What a latent space looks like: projections and, later, traversals, clusters and probes of codes."""
