"""A stand-in for the official RAR objects: their names, signatures and habits, by description.

Written from a list of what the published objects (arXiv 2411.00776) are seen to do, for tests of
models that users hand over. What does not matter to a caller is ours.
"""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig


class PretrainedTokenizer(MaskGITVQGAN):
    def __init__(self, config: MaskGITVQGANConfig) -> None:
        super().__init__(config)
        del self.config
        self.levels = len(config.ch_mult) - 1
        self.eval().requires_grad_(False)

    def forward(self, *inputs: Any) -> Tensor:
        raise NotImplementedError('Module is missing the required "forward" function')

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Accept any size, as the original does."""
        return self.quantize(self.encoder(x))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(self.quantize.embed(codes)).clamp(0, 1)

    decode_tokens = decode


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.dim = heads, width // heads, width
        self.scale, self.fused_attn = self.head_dim**-0.5, True
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(self.head_dim, eps=eps)
        self.k_norm = nn.LayerNorm(self.head_dim, eps=eps)
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(0.1)
        self.kv_cache: bool = False
        self.k_cache: Tensor | None = None
        self.v_cache: Tensor | None = None

    def reset_kv_cache(self) -> None:
        self.k_cache = self.v_cache = None

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        joined = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, self.head_dim)
        q, k, v = joined.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.kv_cache:
            if self.k_cache is not None and self.v_cache is not None:
                k = torch.cat((self.k_cache, k), dim=2)
                v = torch.cat((self.v_cache, v), dim=2)
            self.k_cache, self.v_cache = k, v
        rate = self.attn_drop.p if self.training else 0.0
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=rate)
        return self.proj_drop(self.proj(read.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(0.1)
        self.norm = nn.Identity()
        self.fc2 = nn.Linear(hidden, width)
        self.drop2 = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.norm(self.drop1(self.act(self.fc1(x))))))


def adaptive(width: int, parts: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, eps)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden)
        self.adaLN_modulation = adaptive(width, 6)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, c: Any = None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1, attn_mask=attn_mask)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class FinalNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=eps, elementwise_affine=False)
        self.adaLN_modulation = adaptive(width, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.adaLN_modulation(c).chunk(2, dim=-1)
        return self.norm_final(x) * (1 + scale) + shift


class RAR(nn.Module):
    def __init__(self, config: RARConfig, *, eps: float = 1e-6) -> None:
        super().__init__()
        width, tokens = config.width, config.num_tokens
        self.config = SimpleNamespace(model=SimpleNamespace(generator=config))
        self.image_seq_len, self.target_codebook_size = tokens, config.vocab_size
        self.condition_num_classes = config.num_classes
        self.none_condition_id = config.vocab_size + 1 + config.num_classes
        self.random_ratio, self.use_checkpoint = 0.0, False
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + 1024, width))
        self.target_aware_pos_embed = nn.Parameter(torch.zeros(1, tokens + 1024, width))
        self.timesteps_embeddings = nn.Parameter(torch.zeros(1, tokens + 100, width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_width, eps) for _ in range(config.depth)
        )
        self.embeddings = nn.Embedding(config.vocab_size + config.num_classes + 2, width)
        self.adaln_before_head = FinalNorm(width, eps)
        self.lm_head = nn.Linear(width, config.vocab_size)
        mask = torch.full((tokens + 1024, tokens + 1024), -math.inf).triu(1)
        self.register_buffer("attn_mask", mask, persistent=False)

    def set_random_ratio(self, new_ratio: float) -> None:
        self.random_ratio = new_ratio

    def enable_kv_cache(self) -> None:
        for block in self.blocks:
            block.attn.kv_cache = True
            block.attn.reset_kv_cache()

    def disable_kv_cache(self) -> None:
        for block in self.blocks:
            block.attn.kv_cache = False
            block.attn.reset_kv_cache()

    def preprocess_condition(self, condition: Tensor, cond_drop_prob: float = 0.0) -> Tensor:
        dropped = torch.rand(condition.shape, device=condition.device) < cond_drop_prob
        shifted = condition + self.target_codebook_size + 1
        return torch.where(dropped, self.none_condition_id, shifted)

    def get_none_condition(self, condition: Tensor) -> Tensor:
        return torch.full_like(condition, self.none_condition_id)

    def sample_orders(self, x: Tensor) -> Tensor:
        length = self.image_seq_len
        orders = [
            torch.randperm(length) if random.random() < self.random_ratio else torch.arange(length)
            for _ in range(len(x))
        ]
        return torch.stack(orders).to(x.device)

    def forward(self, input_ids: Tensor, condition: Tensor, return_labels: bool = False) -> Any:
        return self.forward_fn(input_ids, condition, return_labels, self.sample_orders(input_ids))

    def forward_fn(
        self,
        input_ids: Tensor,
        condition: Tensor,
        return_labels: bool = False,
        orders: Tensor | None = None,
        is_sampling: bool = False,
    ) -> Any:
        rows, known = input_ids.shape
        if orders is None:
            orders = torch.arange(self.image_seq_len, device=input_ids.device).expand(rows, -1)
        if not is_sampling:
            input_ids = input_ids.gather(1, orders)
        class_embedding = self.embeddings(condition.view(rows, 1))
        x = torch.cat(
            (self.cls_token.expand(rows, -1, -1), class_embedding, self.embeddings(input_ids)), 1
        )
        places = self.pos_embed.expand(rows, -1, -1)
        targets = self.target_aware_pos_embed.expand(rows, -1, -1)
        index = (orders + 2).unsqueeze(2).expand(-1, -1, x.shape[2])
        own = torch.cat((places[:, :2], places.gather(1, index)), dim=1)
        aimed = F.pad(targets.gather(1, index), (0, 0, 1, 1))
        length = known + 2
        x = x + own[:, :length] + aimed[:, :length]
        c = class_embedding + self.timesteps_embeddings[:, :length]
        mask: Tensor | None = self.attn_mask[:length, :length]
        attention = self.blocks[0].attn
        filled = attention.kv_cache and attention.k_cache is not None
        if filled:
            x, c, mask = x[:, -1:], c[:, -1:], None
        for block in self.blocks:
            if self.use_checkpoint:
                x = checkpoint(block.forward, x, mask, c, use_reentrant=False)
            else:
                x = block(x, attn_mask=mask, c=c)
        if not attention.kv_cache:
            x, c = x[:, 1:], c[:, 1:]
        logits = self.lm_head(self.adaln_before_head(x, c))
        return (logits, input_ids) if return_labels else logits

    @torch.no_grad()
    def generate(
        self,
        condition: Tensor,
        guidance_scale: float,
        randomize_temperature: float,
        guidance_scale_pow: float,
        kv_cache: bool = True,
        **kwargs: Any,
    ) -> Tensor:
        """Sample; like the original it leaves caches on after an exception."""
        y = self.preprocess_condition(condition)
        ids = condition.new_empty(len(y), 0)
        if kv_cache:
            self.enable_kv_cache()
        for step in range(self.image_seq_len):
            part = torch.tensor(step / self.image_seq_len) ** guidance_scale_pow
            scale = (guidance_scale - 1) * (1 - torch.cos(math.pi * part)) / 2 + 1
            rows, conditions = torch.cat((ids, ids)), torch.cat((y, self.get_none_condition(y)))
            logits = self.forward_fn(rows, conditions, is_sampling=True)[:, -1]
            logits = logits[len(y) :] + (logits[: len(y)] - logits[len(y) :]) * scale
            odds = (logits / randomize_temperature).softmax(1)
            ids = torch.cat((ids, torch.multinomial(odds, 1)), dim=1)
        self.disable_kv_cache()
        return ids
