"""What a latent space looks like: projections, traversals, directions, interpolation, density, clusters, neighbours."""
