"""The mathematics of diffusion as independent axes, pure functions of arrays that know no net and no family:

schedules     the path x_t = alpha(t) x0 + sigma(t) eps from data (t = 0) to noise (t = 1)
predictions   what a net's output means (eps, x0, v, velocity, score), with exact conversions
weightings    how much an error at time t counts        times     where in t one trains
guidance      combinations of denoisers                 grids     where in t one samples
samplers/     one file a sampler                        sampling  the loop that runs them
likelihood    bounds and exact log-densities            editing   inversion, inpainting, interpolation
learned_*     the path and the variance that a net or a table of parameters learns
paths         schedules by name, the learned one among them: the path at given parameters

and what the family in models/latent_ddpm.py builds on them: spaces (pixels or latents), denoiser (a net, alone and
guided), generation (samples), edits and densities.
"""
