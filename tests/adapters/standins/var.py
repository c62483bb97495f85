"""A stand-in for the official VAR objects: their names, signatures and habits, by description.

Written from a list of what the published objects (arXiv 2404.02905) are seen to do, for tests of
models that users hand over. What does not matter to a caller is ours.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_adapters.var.quantizer import MultiScaleQuantizer
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig


class Quantizer(MultiScaleQuantizer):
    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config.patch_nums, config.vocab_size, config.code_width)
        self.v_patch_nums = config.patch_nums
        self.using_znorm, self.prog_si, self.beta, self.quant_resi_ratio = False, -1, 0.25, 0.5

    def _used(self) -> int:
        return len(self.v_patch_nums) - 1 if self.prog_si < 0 else self.prog_si

    def idxBl_to_var_input(self, gt_ms_idx_Bl: list[Tensor]) -> Tensor | None:
        fhat, rows = self.empty(len(gt_ms_idx_Bl[0])), []
        for scale in range(self._used()):
            codes = self.embed(gt_ms_idx_Bl[scale], scale)
            fhat, following = self.get_next_autoregressive_input(
                scale, len(self.v_patch_nums), fhat, codes
            )
            rows.append(following.flatten(2).mT)
        return torch.cat(rows, dim=1) if rows else None

    def get_next_autoregressive_input(
        self, si: int, SN: int, f_hat: Tensor, h_BChw: Tensor
    ) -> tuple[Tensor, Tensor]:
        f_hat.add_(self.smooth(h_BChw, si))
        return f_hat, f_hat if si == SN - 1 else self.coarsen(f_hat, si + 1)


class VQVAE(MultiScaleVQVAE):
    encode = decode = teacher_input = property()  # type: ignore[assignment]  # not official names

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config)
        del self.config
        self.quantize = Quantizer(config)
        self.vocab_size, self.Cvae = config.vocab_size, config.code_width
        self.downsample, self.test_mode = 2 ** (len(config.ch_mult) - 1), True
        self.eval().requires_grad_(False)

    def forward(self, inp: Tensor, ret_usages: bool = False) -> Tensor:
        raise RuntimeError("Default process group has not been initialized")

    def img_to_idxBl(self, inp_img_no_grad: Tensor, v_patch_nums: Any = None) -> list[Tensor]:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("expected m1 and m2 to have the same dtype")
        side = self.downsample * self.quantize.v_patch_nums[-1]
        assert inp_img_no_grad.shape[2:] == (side, side)
        features = self.quant_conv(self.encoder(inp_img_no_grad))
        maps = self.quantize.split(MultiScaleQuantizer.forward(self.quantize, features))
        return list(maps)[: self.quantize._used() + 1]

    def idxBl_to_img(
        self, ms_idx_Bl: list[Tensor], same_shape: bool, last_one: bool = False
    ) -> Tensor | list[Tensor]:
        assert same_shape
        sums = self.quantize.accumulated(torch.cat(ms_idx_Bl, dim=1))
        images = [self.fhat_to_img(fhat) for fhat in sums]
        return images[-1] if last_one else images

    def fhat_to_img(self, f_hat: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(f_hat)).clamp_(-1, 1)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, normalise: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_l2_norm = heads, width // heads, normalise
        self.scale, self.max_scale_mul, self.attn_drop = 1, math.log(100), 0.0
        if normalise:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4)))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("zero_k_bias", torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.using_flash = self.using_xform = False
        self.caching: bool = False
        self.cached_k: Tensor | None = None
        self.cached_v: Tensor | None = None

    def kv_caching(self, enable: bool) -> None:
        self.caching, self.cached_k, self.cached_v = enable, None, None

    def forward(self, x: Tensor, attn_bias: Tensor | None) -> Tensor:
        bias = torch.cat((self.q_bias, self.zero_k_bias, self.v_bias))
        joined = F.linear(x, self.mat_qkv.weight, bias)
        joined = joined.view(*x.shape[:2], 3, self.num_heads, self.head_dim)
        q, k, v = joined.permute(2, 0, 3, 1, 4).unbind(0)
        q = F.normalize(q, dim=-1) * self.scale_mul_1H11.clamp_max(self.max_scale_mul).exp()
        k = F.normalize(k, dim=-1)
        if self.caching:
            if self.cached_k is not None and self.cached_v is not None:
                k = torch.cat((self.cached_k, k), dim=2)
                v = torch.cat((self.cached_v, v), dim=2)
            self.cached_k, self.cached_v = k, v
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_bias, scale=self.scale)
        return self.proj(read.transpose(1, 2).flatten(2))


class FFN(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fused_mlp_func: Callable[..., Tensor] | None = None
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(4 * width, width)
        self.drop = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.fused_mlp_func is not None:
            return self.drop(
                self.fused_mlp_func(
                    x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias
                )
            )
        return self.drop(self.fc2(self.act(self.fc1(x))))


def fused_mlp(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """What a fused kernel does: the same, without the modules."""
    return F.linear(F.gelu(F.linear(x, weight1, bias1), approximate="tanh"), weight2, bias2)


class DropPath(nn.Module):
    """Leaves out a block's whole addition for some images, in training."""

    drop_prob = 0.5

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_prob
        return x * kept / (1 - self.drop_prob)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, *, shared: bool, eps: float, normalise: bool):
        super().__init__()
        self.shared_aln = shared
        self.drop_path = DropPath()
        if shared:
            self.ada_gss = nn.Parameter(torch.zeros(1, 1, 6, width))
        self.attn = Attention(width, heads, normalise)
        self.ffn = FFN(width)
        self.ln_wo_grad = nn.LayerNorm(width, eps=eps, elementwise_affine=False)
        if not shared:
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, cond_BD: Tensor, attn_bias: Tensor | None) -> Tensor:
        if self.shared_aln:
            parts = self.ada_gss + cond_BD
        else:
            parts = self.ada_lin(cond_BD).view(len(x), 1, 6, -1)
        gate1, gate2, scale1, scale2, shift1, shift2 = parts.unbind(2)
        read = self.attn(self.ln_wo_grad(x).mul(scale1.add(1)).add_(shift1), attn_bias)
        x = x + self.drop_path(read.mul_(gate1))
        return x + self.drop_path(
            self.ffn(self.ln_wo_grad(x).mul(scale2.add(1)).add_(shift2)).mul(gate2)
        )


class Head(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.ln_wo_grad = nn.LayerNorm(width, eps=eps, elementwise_affine=False)
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale, shift = self.ada_lin(cond).view(len(x), 1, 2, -1).unbind(2)
        return self.ln_wo_grad(x).mul(scale.add(1)).add_(shift)


class SharedAdaLin(nn.Sequential):
    def forward(self, cond: Tensor) -> Tensor:
        return super().forward(cond).view(len(cond), 1, 6, -1)


class VAR(nn.Module):
    def __init__(
        self, vae: VQVAE, config: VARConfig, *, norm_eps: float = 1e-6, attn_l2_norm: bool = True
    ) -> None:
        super().__init__()
        width, sides = config.width, config.patch_nums
        self.patch_nums, self.cond_drop_rate, self.prog_si = sides, 0.1, -1
        self.L, self.C, self.D, self.depth = config.tokens, width, width, config.depth
        self.num_classes, self.V, self.Cvae = (
            config.num_classes,
            config.vocab_size,
            config.code_width,
        )
        self.num_heads, self.first_l, self.num_stages_minus_1 = config.heads, 1, len(sides) - 1
        self.begin_ends = list(zip((0, *config.ends), config.ends, strict=False))
        self.vae_proxy, self.vae_quant_proxy = (vae,), (vae.quantize,)
        self.rng = torch.Generator()
        self.uniform_prob = torch.full((1, config.num_classes), 1 / config.num_classes)
        self.word_embed = nn.Linear(config.code_width, width)
        self.class_emb = nn.Embedding(config.num_classes + 1, width)
        self.pos_start = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_1LC = nn.Parameter(torch.zeros(1, config.tokens, width))
        self.lvl_embed = nn.Embedding(len(sides), width)
        levels = torch.cat([torch.full((n * n,), k) for k, n in enumerate(sides)])
        self.register_buffer("lvl_1L", levels.view(1, -1))
        later = levels.view(-1, 1) < levels.view(1, -1)
        mask = torch.zeros(later.shape).masked_fill_(later, -math.inf)
        self.register_buffer("attn_bias_for_masking", mask.view(1, 1, *mask.shape))
        shared = config.shared_adaln
        self.shared_ada_lin = (
            SharedAdaLin(nn.SiLU(), nn.Linear(width, 6 * width)) if shared else nn.Identity()
        )
        self.blocks = nn.ModuleList(
            Block(width, config.heads, shared=shared, eps=norm_eps, normalise=attn_l2_norm)
            for _ in range(config.depth)
        )
        self.head_nm = Head(width, norm_eps)
        self.head = nn.Linear(width, config.vocab_size)

    def get_logits(self, h: Tensor, cond_BD: Tensor) -> Tensor:
        return self.head(self.head_nm(h.float(), cond_BD).float()).float()

    def forward(self, label_B: Tensor, x_BLCv_wo_first_l: Tensor) -> Tensor:
        if self.head.weight.dtype != torch.float32:
            raise RuntimeError("expected m1 and m2 to have the same dtype")
        warnings.warn(
            "`torch.cuda.amp.autocast(args...)` is deprecated. "
            "Please use `torch.amp.autocast('cuda', args...)` instead.",
            FutureWarning,
            stacklevel=2,
        )
        end = self.begin_ends[self.prog_si][1] if self.prog_si >= 0 else self.L
        dropped = torch.rand(len(x_BLCv_wo_first_l), device=label_B.device) < self.cond_drop_rate
        label_B = torch.where(dropped, self.num_classes, label_B)
        cond = self.class_emb(label_B)
        x = cond.unsqueeze(1) + self.pos_start
        if self.prog_si != 0:
            x = torch.cat((x, self.word_embed(x_BLCv_wo_first_l.float())), dim=1)
        x = x + (self.lvl_embed(self.lvl_1L) + self.pos_1LC)[:, :end]
        mask, shared = self.attn_bias_for_masking[:, :, :end, :end], self.shared_ada_lin(cond)
        kind = torch.mm(x.new_ones(1, 1), x.new_ones(1, 1)).dtype
        x, shared, mask = x.to(kind), shared.to(kind), mask.to(kind)
        for block in self.blocks:
            x = block(x=x, cond_BD=shared, attn_bias=mask)
        return self.get_logits(x.float(), cond)

    @torch.no_grad()
    def autoregressive_infer_cfg(
        self,
        B: int,
        label_B: Tensor,
        g_seed: int | None = None,
        cfg: float = 1.5,
        top_k: int = 0,
        top_p: float = 0.0,
        more_smooth: bool = False,
    ) -> Tensor:
        """Sample greedily; like the original it leaves caches on after an exception."""
        cond = self.class_emb(torch.cat((label_B, torch.full_like(label_B, self.num_classes))))
        places = self.lvl_embed(self.lvl_1L) + self.pos_1LC
        x = cond.unsqueeze(1) + self.pos_start + places[:, :1]
        quantizer = self.vae_quant_proxy[0]
        fhat = quantizer.empty(B)
        for block in self.blocks:
            block.attn.kv_caching(True)
        for scale, side in enumerate(self.patch_nums):
            shared = self.shared_ada_lin(cond)
            for block in self.blocks:
                x = block(x=x, cond_BD=shared, attn_bias=None)
            strength = cfg * scale / self.num_stages_minus_1
            logits = self.get_logits(x, cond)
            guided = (1 + strength) * logits[:B] - strength * logits[B:]
            codes = quantizer.embedding(guided.argmax(2)).mT.reshape(B, self.Cvae, side, side)
            fhat, following = quantizer.get_next_autoregressive_input(
                scale, len(self.patch_nums), fhat, codes
            )
            if scale < self.num_stages_minus_1:
                begin, end = self.begin_ends[scale + 1]
                rows = self.word_embed(following.flatten(2).mT) + places[:, begin:end]
                x = rows.repeat(2, 1, 1)
        for block in self.blocks:
            block.attn.kv_caching(False)
        return (self.vae_proxy[0].fhat_to_img(fhat) + 1) / 2
