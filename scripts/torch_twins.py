"""The same nets and training steps in eager PyTorch, made from our parameters: what scripts/bench_torch.py runs ours
against.

A twin is built from the arrays of a flax net, so that both compute one function; the bench compares their outputs
before it times anything. Images are [B, C, H, W] here and flattened row by row in our order where a dense layer
follows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latent.nets import embeddings
from latent.nets.residual import group_count

Arrays = Mapping[str, Any]


def _fill(module: nn.Module, **values: Any) -> nn.Module:
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(torch.from_numpy(np.array(value)))
    return module


def dense(arrays: Arrays) -> nn.Linear:
    """A dense layer [in, out]."""
    kernel = np.asarray(arrays["kernel"])
    return _fill(nn.Linear(*kernel.shape), weight=kernel.T, bias=arrays["bias"])


def convolution(arrays: Arrays, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """A convolution [h, w, in, out]."""
    kernel = np.asarray(arrays["kernel"])
    height, width, before, after = kernel.shape
    layer = nn.Conv2d(before, after, (height, width), stride, padding)
    return _fill(layer, weight=kernel.transpose(3, 2, 0, 1), bias=arrays["bias"])


def transposed(arrays: Arrays) -> nn.ConvTranspose2d:
    """A transposed 4x4 convolution of stride 2; PyTorch's kernel is the gradient's, ours the correlation's."""
    kernel = np.asarray(arrays["kernel"])
    layer = nn.ConvTranspose2d(kernel.shape[2], kernel.shape[3], 4, 2, 1, bias="bias" in arrays)
    bias = {"bias": arrays["bias"]} if "bias" in arrays else {}
    return _fill(layer, weight=kernel[::-1, ::-1].transpose(2, 3, 0, 1), **bias)


def group_norm(arrays: Arrays) -> nn.GroupNorm:
    """The groups of latent/nets/residual.py."""
    channels = len(arrays["scale"])
    layer = nn.GroupNorm(group_count(channels), channels, eps=1e-6)
    return _fill(layer, weight=arrays["scale"], bias=arrays["bias"])


class ConvVAE(nn.Module):
    """`configs/vae.py:conv`: two strided convolutions, two transposed ones, SiLU, a Gaussian posterior."""

    def __init__(self, params: Arrays):
        super().__init__()
        encoder, decoder = params["encoder"], params["decoder"]["net"]
        self.down = nn.ModuleList(convolution(encoder[f"Conv_{i}"], 2, 1) for i in range(2))
        self.wide, self.mean, self.log_scale = (dense(encoder[name]) for name in ("Dense_0", "mean", "log_scale"))
        self.first, self.second = dense(decoder["Dense_0"]), dense(decoder["Dense_1"])
        self.up, self.output = transposed(decoder["ConvTranspose_0"]), transposed(decoder["output"])
        bias = torch.from_numpy(np.array(decoder["output_bias"])).permute(2, 0, 1)
        self.output_bias = nn.Parameter(bias.contiguous())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] -> mean and log scale [B, d]."""
        for layer in self.down:
            x = F.silu(layer(x))
        x = F.silu(self.wide(x.permute(0, 2, 3, 1).flatten(1)))
        return self.mean(x), self.log_scale(x)

    def decode(self, z: Tensor) -> Tensor:
        """z [B, d] -> logits [B, C, H, W]."""
        z = F.silu(self.second(F.silu(self.first(z))))
        channels, side = self.up.in_channels, math.isqrt(z.shape[1] // self.up.in_channels)
        z = z.view(len(z), side, side, channels).permute(0, 3, 1, 2)
        return self.output(F.silu(self.up(z))) + self.output_bias

    def loss(self, x: Tensor) -> Tensor:
        """The negative ELBO in nats, one sample of z."""
        mean, log_scale = self.encode(x)
        z = mean + log_scale.exp() * torch.randn_like(mean)
        reconstruction = F.binary_cross_entropy_with_logits(self.decode(z), x, reduction="sum") / len(x)
        rate = 0.5 * (mean**2 + (2 * log_scale).exp() - 1) - log_scale
        return reconstruction + rate.sum(1).mean()


class Conditioning(nn.Module):
    """Time and label to one vector; the last row of the table stands for no label."""

    def __init__(self, params: Arrays):
        super().__init__()
        self.time_1, self.time_2 = dense(params["time_1"]), dense(params["time_2"])
        table = np.asarray(params["label"]["embedding"])
        self.label = _fill(nn.Embedding(*table.shape), weight=table)
        half = self.time_1.in_features // 2
        rates = torch.exp(-math.log(embeddings.MAX_PERIOD) * torch.arange(half) / half)
        self.register_buffer("rates", rates * embeddings.TIME_SCALE)

    def forward(self, t: Tensor, label: Tensor) -> Tensor:
        angles = t[:, None] * self.rates
        embedded = torch.cat([angles.cos(), angles.sin()], dim=1)
        return F.silu(self.time_2(F.silu(self.time_1(embedded))) + self.label(label))


class Attention(nn.Module):
    """Self-attention over tokens [B, T, C], by PyTorch's fused kernel."""

    def __init__(self, params: Arrays, heads: int):
        super().__init__()
        self.qkv, self.output, self.heads = dense(params["qkv"]), dense(params["output"]), heads

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        query, key, value = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.output(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape))


class GridAttention(nn.Module):
    """x [B, C, H, W] -> x + attention over its pixels."""

    def __init__(self, params: Arrays, heads: int):
        super().__init__()
        self.norm, self.attention = group_norm(params["GroupNorm_0"]), Attention(params["SelfAttention_0"], heads)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.attention(self.norm(x).flatten(2).transpose(1, 2))
        return x + mixed.transpose(1, 2).view(x.shape)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, the second norm modulated."""

    def __init__(self, params: Arrays):
        super().__init__()
        self.norm_1, self.norm_2 = group_norm(params["GroupNorm_0"]), group_norm(params["GroupNorm_1"])
        self.conv_1, self.conv_2 = (convolution(params[f"Conv_{i}"], padding=1) for i in range(2))
        self.modulation = dense(params["modulation"])
        self.shortcut = convolution(params["shortcut"]) if "shortcut" in params else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        y = self.norm_2(self.conv_1(F.silu(self.norm_1(x)))) * (1 + scale) + shift
        return self.shortcut(x) + self.conv_2(F.silu(y))


class UNet(nn.Module):
    """latent/nets/unet.py for grids of `size` [h, w] that halve evenly."""

    def __init__(self, params: Arrays, section: Any, size: tuple[int, int]):
        super().__init__()
        self.levels, self.num_blocks = len(section.channels), section.num_blocks
        self.attended = set(section.attention_levels)
        count = lambda name: sum(key.startswith(name) for key in params)  # noqa: E731
        parts = lambda name, make: nn.ModuleList(make(params[f"{name}_{i}"]) for i in range(count(name)))  # noqa: E731
        self.conditioning = Conditioning(params["Conditioning_0"])
        self.blocks = parts("ResidualBlock", ResidualBlock)
        self.attentions = parts("GridAttention", lambda arrays: GridAttention(arrays, section.heads))
        self.down = parts("Downsample", lambda arrays: convolution(arrays["Conv_0"], 2))
        self.up = parts("Upsample", lambda arrays: convolution(arrays["Conv_0"], padding=1))
        self.input, self.output = (convolution(params[name], padding=1) for name in ("input", "output"))
        self.norm = group_norm(params["GroupNorm_0"])

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        condition = self.conditioning(t, label)
        blocks, attentions, down, up = map(iter, (self.blocks, self.attentions, self.down, self.up))

        def block(y: Tensor, level: int) -> Tensor:
            y = next(blocks)(y, condition)
            return next(attentions)(y) if level in self.attended else y

        y = self.input(x)
        skips = [y]
        for level in range(self.levels):
            if level:
                y = next(down)(F.pad(y, (0, 1, 0, 1)))  # "SAME" of even sides pads at the end
                skips.append(y)
            for _ in range(self.num_blocks):
                y = block(y, level)
                skips.append(y)
        y = next(attentions)(next(blocks)(y, condition))
        y = next(blocks)(y, condition)
        for level in reversed(range(self.levels)):
            for _ in range(self.num_blocks + 1):
                y = block(torch.cat([y, skips.pop()], dim=1), level)
            if level:
                y = next(up)(F.interpolate(y, scale_factor=2, mode="nearest"))
        return self.output(F.silu(self.norm(y)))


class DiTBlock(nn.Module):
    """A transformer block with adaLN-Zero."""

    def __init__(self, params: Arrays, heads: int):
        super().__init__()
        self.modulation, self.expand, self.contract = (dense(params[n]) for n in ("modulation", "expand", "contract"))
        self.attention = Attention(params["attention"], heads)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(condition)[:, None].chunk(6, dim=2)
        x = x + gate_1 * self.attention(_modulate(x, shift_1, scale_1))
        y = F.gelu(self.expand(_modulate(x, shift_2, scale_2)), approximate="tanh")
        return x + gate_2 * self.contract(y)


class DiT(nn.Module):
    """latent/nets/dit.py for grids of `size` [h, w]."""

    def __init__(self, params: Arrays, section: Any, size: tuple[int, int]):
        super().__init__()
        blocks, self.patch = params["blocks"], section.patch
        grid = (size[0] // self.patch, size[1] // self.patch)
        self.conditioning = Conditioning(params["Conditioning_0"])
        self.blocks = nn.ModuleList(DiTBlock(_layer(blocks, i), section.heads) for i in range(section.depth))
        self.input, self.output, self.modulation = (dense(params[name]) for name in ("input", "output", "modulation"))
        positions = embeddings.grid_positions(grid, self.input.out_features)
        self.register_buffer("positions", torch.from_numpy(positions))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        condition, patch = self.conditioning(t, label), self.patch
        batch, channels, height, width = x.shape
        cut = x.view(batch, channels, height // patch, patch, width // patch, patch)
        tokens = self.input(cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels))
        tokens = tokens + self.positions
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=2)
        y = self.output(_modulate(tokens, shift, scale))
        y = y.view(batch, height // patch, width // patch, patch, patch, -1)
        return y.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, width)


def _layer(tree: Any, i: int) -> Any:
    return {name: _layer(value, i) for name, value in tree.items()} if isinstance(tree, Mapping) else tree[i]


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def vae_step(twin: ConvVAE, images: Tensor, batch_size: int, rate: float = 1e-3) -> Callable[[], Tensor]:
    """One training step of the VAE: bytes drawn from `images` [N, H, W, C], scaled, binarised, Adam."""
    optimizer = torch.optim.Adam(twin.parameters(), rate)

    def step() -> Tensor:
        chosen = torch.randint(len(images), (batch_size,), device=images.device)
        x = images[chosen].permute(0, 3, 1, 2) / 255.0
        loss = twin.loss(torch.bernoulli(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def diffusion_step(
    twin: nn.Module, grids: Tensor, labels: Tensor, batch_size: int, rate: float = 1e-3, average: float = 0.999
) -> Callable[[], Tensor]:
    """One training step of a denoiser of `grids` [N, C, H, W]: v-prediction on the cosine path, dropped labels, the
    gradient's norm clipped at 1, Adam, averaged weights."""
    weights, place = list(twin.parameters()), grids.device
    optimizer, averaged = torch.optim.Adam(weights, rate), [weight.detach().clone() for weight in weights]
    null = twin.conditioning.label.num_embeddings - 1

    def step() -> Tensor:
        chosen = torch.randint(len(grids), (batch_size,), device=place)
        z, t = grids[chosen], torch.rand(batch_size, device=place)
        noise = torch.randn(batch_size, *grids.shape[1:], device=place)
        label = torch.where(torch.rand(batch_size, device=place) < 0.1, null, labels[chosen])
        alpha, sigma = (f(0.5 * math.pi * t)[:, None, None, None] for f in (torch.cos, torch.sin))
        loss = F.mse_loss(twin(alpha * z + sigma * noise, t, label), alpha * noise - sigma * z)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, 1 - average)
        return loss.detach()

    return step


@torch.no_grad()
def ddim(twin: nn.Module, label: Tensor, x: Tensor, steps: int) -> Tensor:
    """DDIM with eta=0 on the cosine path, trailing times, from the noise x [N, ...]: samples, one for each label."""
    angles = [0.5 * math.pi * (1 - step / steps) for step in range(steps + 1)]
    for here, there in itertools.pairwise(angles):
        v = twin(x, torch.full((len(x),), 2 / math.pi * here, device=x.device), label)
        z, noise = math.cos(here) * x - math.sin(here) * v, math.sin(here) * x + math.cos(here) * v
        x = math.cos(there) * z + math.sin(there) * noise
    return x
