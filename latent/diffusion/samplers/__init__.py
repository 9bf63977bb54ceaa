"""Samplers, one file each: `sampler(path, times, **options) -> sampling.Sampler`."""
