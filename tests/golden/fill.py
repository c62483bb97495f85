"""Deterministic weights that need no weight file.

Every floating point entry of a model's state dict is filled from its own
random stream.  The stream is seeded with the CRC-32 of the entry's full key
(UTF-8), so the value depends only on the key name and the shape -- not on the
order of the entries, the model size around it, or the library that builds it.

    noise(key, shape) = Generator(PCG64(crc32(key))).standard_normal(shape, float32)

The first rule that matches decides what is written (n = the noise above):

    1. key's last component is in KEEP            -> left as the constructor made it
    2. last component is "scale_mul_1H11"         -> log(4) + 0.5 n
                                                     and, only when the key starts with
                                                     "blocks.0.", flat element 0 := 5.0
                                                     (this exceeds the cap ln(100))
    3. condition / token tables: last two components are
       "class_emb.weight" or "embeddings.weight"  -> 1.0 n
    4. codebook ("embedding.weight"), level table
       ("lvl_embed.weight") and learned positional
       parameters (see EMBED)                     -> 0.5 n
    5. at most one axis, last component "weight"  -> 1 + 0.1 n   (norm gains)
    6. at most one axis, anything else            -> 0.1 n       (biases)
    7. two or more axes                           -> n / sqrt(prod(shape[1:]))

Integer entries are never touched.  All arithmetic is float32.
"""

import math
import zlib

import numpy as np
import torch

# non-learned buffers that some state dicts carry
KEEP = frozenset({"attn_bias_for_masking", "lvl_1L", "zero_k_bias", "ema_vocab_hit_SV"})

# learned positional / start / modulation parameters (matched on the last component)
EMBED = frozenset(
    {
        "pos_start",
        "pos_1LC",
        "ada_gss",
        "cls_token",
        "pos_embed",
        "target_aware_pos_embed",
        "timesteps_embeddings",
    }
)
# embedding tables (matched on the last two components)
UNIT_TABLES = frozenset({"class_emb.weight", "embeddings.weight"})
HALF_TABLES = frozenset({"lvl_embed.weight", "embedding.weight"})


def noise(key, shape):
    gen = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode("utf-8"))))
    return gen.standard_normal(size=tuple(shape), dtype=np.float32)


def value_for(key, shape):
    """float32 array for `key`, or None when the entry must be left alone."""
    parts = key.split(".")
    last, last_two = parts[-1], ".".join(parts[-2:])
    if last in KEEP:
        return None
    n = noise(key, shape)
    if last == "scale_mul_1H11":
        out = np.float32(math.log(4.0)) + np.float32(0.5) * n
        if key.startswith("blocks.0."):
            out.reshape(-1)[0] = np.float32(5.0)
        return out
    if last_two in UNIT_TABLES:
        return n
    if last in EMBED or last_two in HALF_TABLES:
        return np.float32(0.5) * n
    if len(shape) <= 1:
        if last == "weight":
            return np.float32(1.0) + np.float32(0.1) * n
        return np.float32(0.1) * n
    fan_in = int(np.prod(shape[1:]))
    return n / np.float32(math.sqrt(fan_in))


@torch.no_grad()
def fill_state_dict(model):
    """Overwrite the model's weights in place and return the model."""
    for key, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        array = value_for(key, tensor.shape)
        if array is not None:
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return model


def random_image(seed, batch, size, low=0.0, high=1.0):
    """Smooth random test image batch, float32 [batch, 3, size, size] in [low, high].

    A coarse 8x8 uniform grid is repeated to full size (nearest neighbour) and
    mixed with pixel noise: 0.75 * coarse + 0.25 * fine, then mapped to the range.
    """
    gen = np.random.Generator(np.random.PCG64(seed))
    coarse = gen.random((batch, 3, 8, 8), dtype=np.float32)
    fine = gen.random((batch, 3, size, size), dtype=np.float32)
    rep = size // 8
    coarse = coarse.repeat(rep, axis=2).repeat(rep, axis=3)
    img = np.float32(0.75) * coarse + np.float32(0.25) * fine
    return torch.from_numpy(np.float32(low) + np.float32(high - low) * img)
