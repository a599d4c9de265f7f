"""Operations by kind, as PyTorch's users write them, for the comparison with PyTorch."""

import math

from with_torch import torch

F = torch.nn.functional


class Many(torch.nn.Module):
    """All operations of a table, on one input."""

    def __init__(self, table, modules=None):
        super().__init__()
        self.table = table
        self.modules_ = torch.nn.ModuleList(modules or ())

    def forward(self, x):
        return tuple(function(x) for function in self.table.values()) + tuple(module(x) for module in self.modules_)


def positive(x):
    return x.abs() + 0.1


def whole(x):
    """Whole numbers of 0 to 3, of the shape of x."""
    return (x.abs() * 3).floor().clamp(0, 3).to(torch.int64)


def distinct(x):
    """x with no two equal numbers along axis 2: PyTorch promises no order of equal ones."""
    return x.float() + torch.arange(7.0)[:, None] * 1e-3


def tokens(x):
    """x of (b, 4, 7, 9) as (b, 63, 4)."""
    return x.flatten(2).transpose(1, 2)


ACTIVATIONS = {
    name: getattr(F, name)
    for name in "relu relu6 silu mish softplus elu celu selu hardswish hardsigmoid hardtanh leaky_relu gelu softsign "
    "logsigmoid tanhshrink softshrink hardshrink sigmoid tanh".split()
} | {
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "elu 0.5": lambda x: F.elu(x, 0.5),
    "celu 0.5": lambda x: F.celu(x, 0.5),
    "leaky_relu 0.2": lambda x: F.leaky_relu(x, 0.2),
    "hardtanh 2": lambda x: F.hardtanh(x, -0.5, 2.0),
    "softplus 2": lambda x: F.softplus(x, 2.0, 1.0),
    "threshold": lambda x: F.threshold(x, 0.3, -2.0),
    "glu": lambda x: F.glu(x, 1),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=x.dtype)),
    "in place": lambda x: F.relu((x * 2).add_(1).mul_(0.5), inplace=True),
    "in place chain": lambda x: F.hardswish(F.silu(x + 1, inplace=True), inplace=True),
    "dropout": lambda x: F.dropout(x, 0.5, False) + 1,
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "softmax dtype": lambda x: F.softmax(x, 2, dtype=torch.float32),
}

ARITHMETIC = {
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.expm1(),
    "log": lambda x: positive(x).log(),
    "log2": lambda x: positive(x).log2(),
    "log10": lambda x: positive(x).log10(),
    "log1p": lambda x: positive(x).log1p(),
    "sqrt": lambda x: positive(x).sqrt(),
    "rsqrt": lambda x: positive(x).rsqrt(),
    "sin": lambda x: x.sin() + x.cos() + x.tan().clamp(-2, 2),
    "arcs": lambda x: x.tanh().asin() + x.tanh().acos() + x.atan(),
    "hyperbolic": lambda x: x.sinh() + x.cosh(),
    "erf": lambda x: x.erf() + x.erfc(),
    "square": lambda x: x.square(),
    "reciprocal": lambda x: positive(x).reciprocal(),
    "neg abs sign": lambda x: (-x).abs() + x.sign(),
    "floor ceil trunc": lambda x: x.floor() + 10 * x.ceil() + 100 * x.trunc(),
    "round": lambda x: (x * 4).round(),
    "round decimals": lambda x: x.float().round(decimals=1),
    "add alpha": lambda x: torch.add(x, x.flip(-1), alpha=2.5),
    "add scalar": lambda x: x + 2,
    "sub alpha": lambda x: torch.sub(x, x.roll(1, -1), alpha=0.5),
    "rsub": lambda x: 1.5 - x,
    "mul": lambda x: x * x.roll(1, 2) * 0.5,
    "div": lambda x: x / positive(x).roll(1, 2) / 3,
    "div of whole": lambda x: whole(x) / 2,
    "div floor": lambda x: torch.div(x, 0.7, rounding_mode="floor"),
    "div trunc": lambda x: torch.div(x, 0.7, rounding_mode="trunc"),
    "whole div floor": lambda x: torch.div(whole(x) - 2, 2, rounding_mode="floor"),
    "whole div trunc": lambda x: torch.div(whole(x) - 2, 2, rounding_mode="trunc"),
    "floor_divide": lambda x: (whole(x) - 3) // 2,
    "remainder": lambda x: x.float() % 0.7,
    "remainder whole": lambda x: (whole(x) - 2) % 3,
    "fmod": lambda x: torch.fmod(x.float(), 0.7),
    "pow 2": lambda x: x**2,
    "pow 3.0": lambda x: x**3.0,
    "pow half": lambda x: positive(x) ** 0.5,
    "pow tensor": lambda x: positive(x) ** x,
    "pow of number": lambda x: 2.0**x,
    "atan2": lambda x: torch.atan2(x, x.roll(1, -1)),
    "maximum": lambda x: torch.maximum(x, x.roll(1, -1)) + torch.minimum(x, x.roll(1, -2)),
    "clamp": lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0) + x.clamp(max=0.1),
    "clamp tensor": lambda x: torch.clamp(x, x.roll(1, -1), x.roll(1, -1) + 0.3),
    "clamp_min": lambda x: torch.clamp_min(x, 0.1) + torch.clamp_max(x, 0.2),
    "lerp": lambda x: torch.lerp(x, x.roll(1, -1), 0.3) + torch.lerp(x, x.roll(1, -1), x.sigmoid()),
    "addcmul": lambda x: torch.addcmul(x, x, x.roll(1, -1), value=0.3),
    "addcdiv": lambda x: torch.addcdiv(x, x, positive(x), value=0.3),
    "where": lambda x: torch.where(x > 0, x, x * 0.1) + torch.where(x < 0.5, 1.0, 0.0),
    "masked_fill": lambda x: x.masked_fill(x > 0.5, -3.0),
    "masked_fill tensor": lambda x: x.masked_fill(x > 0.5, torch.tensor(2.0, dtype=x.dtype)),
    "comparisons": lambda x: (
        (x > 0).float() + (x >= 0.1) * 2 + (x < 0.2) * 4 + (x <= 0.3) * 8 + (x == 0) * 16 + (x != 0)
    ),
    "logical": lambda x: (x > 0).logical_and(x < 1) | ~(x > -1) ^ (x > 0.2).logical_or(x < 0.1),
    "logical_not": lambda x: x.logical_not().logical_xor(x > 0),
    "bitwise": lambda x: (whole(x) & 1) + (whole(x) | 2) * 4 + (whole(x) ^ 3) * 16,
    "bitwise_not": lambda x: ~whole(x),
    "isnan": lambda x: (x / 0).isnan() | (x / 0).isinf() | x.isfinite(),
    "nan_to_num": lambda x: torch.nan_to_num(x.float().log(), nan=0.5, neginf=-7.0),
    "true or": lambda x: (x > 0) + (x > 1),
    "to": lambda x: x.to(torch.float16).to(x.dtype) + x.to(torch.int32) + (x > 0).to(x.dtype) + x.type_as(x),
    "to bool": lambda x: whole(x).bool(),
    "fill": lambda x: (
        torch.full_like(x, 2.5) + torch.zeros_like(x) + torch.ones_like(x) + x.new_zeros(1) + x.new_ones(1)
    ),
    "like dtype": lambda x: torch.zeros_like(x, dtype=torch.int64) + torch.full_like(x, 3, dtype=torch.int64),
    "logit": lambda x: x.sigmoid().logit(1e-3),
    "number beside": lambda x: x * torch.tensor(0.3) + torch.tensor(2),
    "whole and number": lambda x: whole(x) * 0.5 + whole(x) / torch.tensor(3),
    "size": lambda x: x * x.shape[0] + x.shape[0] / 2 + max(x.shape[0], 3),
}

SHAPES = {
    "view": lambda x: x.view(x.shape[0], 2, 2, -1).reshape(-1, 9),
    "view batch": lambda x: x.reshape(x.shape[0] * 4, 63).view(x.shape[0], -1, 9),
    "flatten": lambda x: x.flatten(1).unflatten(1, (4, -1)),
    "permute": lambda x: x.permute(0, 2, 3, 1).permute(0, -1, 1, 2).permute(2, 0, 3, 1),
    "transpose": lambda x: x.transpose(1, -1).swapaxes(0, 1) + 1,
    "t": lambda x: x.mT @ x + x[0, 0].t()[:, :1].mean(),
    "movedim": lambda x: x.movedim(1, -1).movedim((0, 1), (1, 0)),
    "unsqueeze": lambda x: x.unsqueeze(-1).unsqueeze(1).squeeze(1).squeeze(),
    "squeeze dims": lambda x: x.mean(1, keepdim=True).squeeze(1).unsqueeze(0).squeeze((0, 1)),
    "expand": lambda x: x[:, :1].expand(-1, 5, 7, 9) + x[:1, :1].expand(2, 1, 1, 7, 9).sum(0),
    "expand_as": lambda x: x[:, :1].expand_as(x).reshape_as(x) + x.mean((2, 3), keepdim=True).broadcast_to(x.shape),
    "repeat": lambda x: x.repeat(1, 2, 1, 3).repeat(1, 1, 1, 1, 1),
    "tile": lambda x: x.tile(2, 3) + torch.tile(x, (1, 1, 2, 3)),
    "repeat_interleave": lambda x: x.repeat_interleave(3, 1) + x.repeat_interleave(2, dim=1).repeat(1, 2, 1, 1)[:, :12],
    "cat": lambda x: torch.cat([x, x[:, :2], x.new_zeros(0), x * 2], 1),
    "stack": lambda x: torch.stack([x, x + 1], -1).sum(-2),
    "slice": lambda x: x[:, 1:3, ::2, -5:-1] + x[:, :2, 1::2, 2:6].mean(2, keepdim=True),
    "slice to the end": lambda x: x[:, -3:, 1:, 2:] + x[:, 1:, :-1, :-2],
    "empty slice": lambda x: torch.cat([x[:, 3:1], x], 1),
    "narrow": lambda x: x.narrow(2, 1, 4) + x.narrow(2, -5, 4),
    "select": lambda x: x[:, -1] + x.select(1, 0) + x[0, 1],
    "split": lambda x: x.split(3, 2)[2] + x.split([1, 3], 1)[0][:, :, :1],
    "chunk": lambda x: x.chunk(4, 3)[0] + x.chunk(4, -1)[1] + x.tensor_split(3, 3)[1] + x.tensor_split((2, 5), 3)[1],
    "unbind": lambda x: x.unbind(1)[2] + torch.unbind(x, -1)[0].sum(-1, keepdim=True)[:, :1],
    "pad": lambda x: F.pad(x, (1, 2, 0, 3)) + F.pad(x, (1, 2, 1, 2), value=1.5),
    "pad negative": lambda x: F.pad(x, (-1, 2, 1, -2, 1, 0)),
    "pad modes": lambda x: (
        F.pad(x, (2, 1, 1, 3), "reflect") + F.pad(x, (2, 1, 1, 3), "replicate") + F.pad(x, (2, 1, 1, 3), "circular")
    ),
    "pad one axis": lambda x: F.pad(x[:, :, 0], (3, 2), "reflect") + F.pad(x[:, :, 0], (3, 2), "replicate"),
    "roll": lambda x: x.roll((1, -2), (2, 3)) + x.roll(3, 1) + x[:1].roll(5),
    "flip": lambda x: x.flip((2, -1)) + x.flip(1),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "tril triu": lambda x: x.tril(-1) + x.triu(2) * 2 + x.tril() + x.triu(),
    "diagonal": lambda x: x.diagonal(1, 2, 3) + x.diagonal(dim1=-2, dim2=-1)[..., :7],
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2) + F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2).mean(),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "unfold": lambda x: x.unfold(2, 3, 2).unfold(3, 2, 1),
    "im2col": lambda x: F.unfold(x, (3, 2), dilation=2, padding=1, stride=2),
    "meshgrid": lambda x: x * torch.stack(torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")).sum(0),
    "arange": lambda x: (
        x * torch.arange(9) + torch.arange(1, 10) + torch.arange(0.0, 4.5, 0.5) + torch.arange(18, 0, -2)
    ),
    "arange of a size": lambda x: x.sum((1, 2, 3)) * torch.arange(x.shape[0]),
    "linspace": lambda x: x * torch.linspace(-1, 1, 9) + torch.eye(7, 9) + torch.full((7, 1), 0.5) + torch.ones(7, 9),
    "as_strided": lambda x: x.contiguous().as_strided((2, 3), (9, 2), 4),
    "copies": lambda x: x.clone().contiguous().detach() + x.clone(memory_format=torch.channels_last),
    "one_hot": lambda x: F.one_hot(whole(x), 4),
}


def _put(x):
    y = x.clone()
    y[:, 1] = 0.5
    y[:, :, 2:4] = x[:, :, 4:6]
    y[:, 0, :, 1] += 2
    return y


INDICES = {
    "index": lambda x: x[:, torch.tensor([2, 0, 2])] + x[:, [0, 1, 1]],
    "index two": lambda x: x[:, torch.tensor([0, 1]), torch.tensor([3, 2])],
    "index apart": lambda x: x[:, torch.tensor([0, 1]), :, torch.tensor([3, 2])],
    "index 2-d": lambda x: x[:, :, torch.tensor([[0, 1], [6, -1]])],
    "index first": lambda x: x[torch.tensor([1, 0])],
    "gather": lambda x: x.gather(2, whole(x)[:, :, :3]) + x.gather(1, whole(x)[:, :1, 2:5, 1:]).mean(),
    "take_along_dim": lambda x: x[0].take_along_dim(whole(x)[0, :, :3], 1),
    "index_select": lambda x: x.index_select(3, torch.tensor([1, 8, 1])),
    "embedding": lambda x: F.embedding(whole(x), torch.arange(12.0).view(4, 3), padding_idx=0),
    "scatter": lambda x: torch.zeros_like(x).scatter(1, whole(x)[:, :2], x).scatter(2, whole(x)[:, :, :1], 1.5),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(2, whole(x), x),
    "slice_scatter": lambda x: x.slice_scatter(x[:, :, :2] * 2, 2, 1, 5, 2).select_scatter(x[:, 0], 1, -1),
    "index_put": lambda x: x.index_put((torch.tensor([0, 1]), torch.tensor([1, 1])), x[0, 0] * 3),
    "masked by numbers": lambda x: x.masked_fill(x > 0.3, 1.0),
    "sort": lambda x: x.sort(2)[0] + x.sort(-1, descending=True)[0],
    "argsort": lambda x: distinct(x).argsort(2) + x.sort(stable=True, dim=2)[1],
    "topk": lambda x: x.topk(3, 2)[0] + distinct(x).topk(3, 2, largest=False)[1],
    "cumsum": lambda x: x.cumsum(2) + x.cumprod(3),
    "searchsorted": lambda x: (
        torch.searchsorted(torch.linspace(-1, 1, 7), x.float())
        + torch.bucketize(x.float(), torch.linspace(-1, 1, 7), right=True)
    ),
    "searchsorted rows": lambda x: torch.searchsorted(
        x.float().sort(-1)[0].contiguous(), x.float().contiguous(), right=True
    ),
    "tril_indices": lambda x: x[:, :, torch.tril_indices(3, 3)[0], torch.tril_indices(3, 3)[1]],
}

REDUCTIONS = {
    "mean": lambda x: x.mean((2, 3)) + x.mean(-1).mean(-1) + x.mean(),
    "mean keepdim": lambda x: x - x.mean((1, 2, 3), keepdim=True),
    "mean dtype": lambda x: x.mean(1, dtype=torch.float32),
    "sum": lambda x: x.sum(1) + x.sum() + (x > 0).sum(1) + whole(x).sum((0, 1), keepdim=True)[0],
    "prod": lambda x: x[:, :, :3].prod(2),
    "amax": lambda x: x.amax((1, 2)) + x.amin(-2)[:, 0] + x.amax(),
    "max": lambda x: x.max(1)[0] + x.max(1)[1] + x.max() + x.min(1, keepdim=True)[0][:, 0] + x.min(),
    "max of two": lambda x: torch.max(x, x.roll(1, -1)) + torch.min(x, x.roll(1, -2)),
    "argmax": lambda x: x.argmax(1) + x.argmin(1) + x.argmax(),
    "any": lambda x: (x > 1).any(1) | (x > 0).all(1) | (x > 9).any() | (x > 1).any(1, keepdim=True)[:, 0],
    "var": lambda x: x.var(1) + x.var((2, 3), unbiased=False).mean() + x.var(),
    "std": lambda x: x.std((2, 3), keepdim=True) + x.std(1, correction=0).mean(),
    "var_mean": lambda x: torch.var_mean(x, 2)[0] + torch.var_mean(x, 2, correction=0)[1] + torch.std_mean(x, 2)[0],
    "logsumexp": lambda x: x.logsumexp(1) + x.logsumexp((2, 3), keepdim=True)[:, 0],
    "norms": lambda x: (
        x.norm(dim=1)
        + torch.linalg.vector_norm(x, 1, dim=1)
        + torch.linalg.vector_norm(x, math.inf, dim=1)
        + torch.linalg.vector_norm(x, 3, dim=1)
        + torch.linalg.vector_norm(x, 0, dim=1)
        + torch.linalg.norm(x, dim=1)
    ),
    "normalize": lambda x: F.normalize(x, dim=1) + F.normalize(x, p=1.0, dim=2),
    "median": lambda x: x.median(1)[0] + x.median() + x.median(2, keepdim=True)[0][:, :, 0].mean(),
    "local response": lambda x: F.local_response_norm(x.float(), 3),
    "cosine": lambda x: F.cosine_similarity(x, x.roll(1, -1), dim=1),
    "count_nonzero": lambda x: (whole(x) == 0).count_nonzero(1) if hasattr(x, "count_nonzero") else x,
    "cdist": lambda x: (
        torch.cdist(x[:, 0].float(), x[:, 1].float()) + torch.cdist(x[:, 0].float(), x[:, 1].float(), p=1.0)
    ),
}

PRODUCTS = {
    "matmul": lambda x: x @ x.transpose(2, 3) + (x @ x[0, 0, 0])[..., None],
    "bmm": lambda x: (
        torch.bmm(x[:, 0], x[:, 1].mT) + torch.baddbmm(x[:, 0, :, :7], x[:, 0], x[:, 1].mT, beta=0.5, alpha=2)
    ),
    "mm": lambda x: (
        torch.mm(x[0, 0], x[0, 1].t()) + torch.addmm(x[0, 0, 0, :7], x[0, 0], x[0, 1].t(), beta=2, alpha=0.5)
    ),
    "mv": lambda x: torch.mv(x[0, 0], x[0, 0, 0]) + torch.dot(x[0, 0, 0], x[0, 0, 1]),
    "einsum": lambda x: (
        torch.einsum("bchw,bcvw->bhv", x, x) + torch.einsum("b c h w, b c h w -> b", x, x)[:, None, None]
    ),
    "attention": lambda x: F.scaled_dot_product_attention(x, x.flip(2), x.roll(1, 2)),
    "attention bool": lambda x: F.scaled_dot_product_attention(x, x.flip(2), x, attn_mask=x[..., :7] > -0.2),
    "attention float": lambda x: F.scaled_dot_product_attention(x, x.flip(2), x, attn_mask=x[..., :7]),
    "attention causal": lambda x: F.scaled_dot_product_attention(x, x.flip(2), x, is_causal=True, scale=0.3),
    "attention grouped": lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, :2].flip(2), enable_gqa=True),
    "layer_norm": lambda x: F.layer_norm(x, (9,)) + F.layer_norm(x, (7, 9), eps=1e-3),
    "rms_norm": lambda x: F.rms_norm(x, (9,)) + F.rms_norm(x, (9,), eps=1e-3),
    "group_norm": lambda x: F.group_norm(x, 2) + F.instance_norm(x),
}

POOLS = {
    "max": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max ceil": lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True),
    "max ceil pad": lambda x: F.max_pool2d(x, (3, 2), (2, 3), 1, ceil_mode=True),
    "max dilation": lambda x: F.max_pool2d(x, 2, 1, 1, dilation=2),
    "average": lambda x: F.avg_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average ceil": lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True),
    "average ceil pad": lambda x: (
        F.avg_pool2d(x, 3, 2, 1, ceil_mode=True) + F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
    ),
    "average divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "global": lambda x: F.adaptive_avg_pool2d(x, 1) + F.adaptive_avg_pool2d(x, (1, 1)),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (3, 4)) + F.adaptive_avg_pool2d(x, (7, 4))[:, :, :3],
    "adaptive none": lambda x: F.adaptive_avg_pool2d(x, (None, 3)),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, (3, 4)),
    "one axis": lambda x: (
        F.max_pool1d(x[:, 0], 2)
        + F.avg_pool1d(x[:, 0], 2, padding=0)
        + F.adaptive_avg_pool1d(x[:, 0], 4)
        + F.adaptive_max_pool1d(x[:, 0], 4)
    ),
    "three axes": lambda x: F.avg_pool3d(x[:, None].float(), 2) + F.max_pool3d(x[:, None], 2),
}

RESAMPLING = {
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest to": lambda x: F.interpolate(x, (5, 13)) + F.interpolate(x, (5, 13), mode="nearest-exact"),
    "nearest 1.5": lambda x: F.interpolate(x, scale_factor=1.5),
    "nearest recomputed": lambda x: F.interpolate(x, scale_factor=1.7, recompute_scale_factor=True),
    "bilinear": lambda x: F.interpolate(x, (5, 13), mode="bilinear"),
    "bilinear corners": lambda x: F.interpolate(x, (5, 13), mode="bilinear", align_corners=True),
    "bilinear 2.5": lambda x: F.interpolate(x, scale_factor=2.5, mode="bilinear"),
    "bicubic": lambda x: (
        F.interpolate(x, (5, 13), mode="bicubic") + F.interpolate(x, (5, 13), mode="bicubic", align_corners=True)
    ),
    "antialias": lambda x: (
        F.interpolate(x.float(), (4, 5), mode="bilinear", antialias=True)
        + F.interpolate(x.float(), (4, 5), mode="bicubic", antialias=True)
    ),
    "antialias larger": lambda x: (
        F.interpolate(x.float(), (11, 20), mode="bilinear", antialias=True)
        + F.interpolate(x.float(), (11, 20), mode="bicubic", antialias=True)
    ),
    "one axis": lambda x: F.interpolate(x[:, 0], 13) + F.interpolate(x[:, 0], 13, mode="linear"),
    "three axes": lambda x: (
        F.interpolate(x[:, None], (5, 6, 7), mode="trilinear") + F.interpolate(x[:, None], (5, 6, 7))
    ),
    "grid": lambda x: (
        F.grid_sample(x.float(), _grid(x), align_corners=False) + F.grid_sample(x.float(), _grid(x), align_corners=True)
    ),
    "grid modes": lambda x: (
        F.grid_sample(x.float(), _grid(x), "nearest", "zeros", False)
        + F.grid_sample(x.float(), _grid(x), "bilinear", "border", False)
        + F.grid_sample(x.float(), _grid(x), "bilinear", "reflection", False)
        + F.grid_sample(x.float(), _grid(x), "bilinear", "reflection", True)
    ),
    "affine grid": lambda x: (
        F.affine_grid(x[:, 0, :2, :3], (x.shape[0], 4, 5, 6), align_corners=False)
        + F.affine_grid(x[:, 0, :2, :3], (x.shape[0], 4, 5, 6), align_corners=True)
    ),
}


def _grid(x):
    return (x[:, :2].permute(0, 2, 3, 1) * 1.3).float().contiguous()


class Tied(torch.nn.Module):
    """Two layers of one weight, a buffer that is not kept, and constants."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(9, 9, bias=False), torch.nn.Linear(9, 9)
        self.second.weight = self.first.weight
        self.register_buffer("kept", torch.rand(7, 9))
        self.register_buffer("lost", torch.rand(1, 4, 1, 1), persistent=False)
        self.constant = torch.rand(9)
        self.number = torch.tensor(0.7)

    def forward(self, x):
        x = self.second(self.first(x)) * self.number + self.kept.to(x.dtype) * self.lost + self.constant
        return x + torch.tensor([0.5, 1.5, 2.5, 3.5], dtype=x.dtype).view(4, 1, 1)


class Flat(torch.nn.Module):
    """A module of (b, 4, n), given x as such."""

    def __init__(self, module, axes=3):
        super().__init__()
        self.module, self.axes = module, axes

    def forward(self, x):
        return self.module(x.flatten(2) if self.axes == 3 else x[:, :, None])


class Tokens(torch.nn.Module):
    """A module of tokens (b, n, 4)."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        result = self.module(tokens(x))
        return result[0] if isinstance(result, tuple) else result


class Self(torch.nn.Module):
    """Attention of tokens to each other."""

    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0] + self.attention(x, x, x)[0]


class Standardised(torch.nn.Conv2d):
    """A convolution whose weights are normalised, by statistics of a batch that are of weights."""

    def forward(self, x):
        weight = F.batch_norm(self.weight.view(1, 6, -1), None, None, training=True).view_as(self.weight)
        return F.conv2d(x, weight, self.bias, padding=1)


def layers():
    """Modules with weights, made anew: all convolutions, normalisations and layers of tokens."""
    nn = torch.nn
    made = [
        nn.Conv2d(4, 6, 3),
        nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), bias=False),
        nn.Conv2d(4, 8, 3, padding="same", groups=2),
        nn.Conv2d(4, 8, 2, padding="same", dilation=3, groups=4),
        nn.Conv2d(4, 4, 5, 2, 2, groups=4),
        nn.Conv2d(4, 4, 3, 1, "valid", dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4, eps=1e-3, affine=False)),
        nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)),
        nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
        nn.ConvTranspose2d(4, 6, (2, 3), (3, 1), groups=2, dilation=2, bias=False),
        Flat(nn.Sequential(nn.Conv1d(4, 6, 3, 2, 1), nn.BatchNorm1d(6))),
        Flat(nn.ConvTranspose1d(4, 6, 3, 2, 1)),
        Flat(nn.Sequential(nn.Conv3d(4, 6, 3, padding=1), nn.BatchNorm3d(6)), axes=5),
        Flat(nn.ConvTranspose3d(4, 2, 2, 2), axes=5),
        nn.GroupNorm(2, 4),
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(3, 6), nn.SiLU(), nn.Upsample(scale_factor=2)),
        nn.InstanceNorm2d(4, affine=True),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)),
        nn.PReLU(4),
        nn.Linear(9, 5),
        nn.Sequential(nn.Linear(9, 5, bias=False), nn.LayerNorm(5), nn.Dropout(0.5)),
        nn.LayerNorm((7, 9), bias=False),
        nn.RMSNorm(9),
        Tokens(Self()),
        Tokens(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)),
        Tokens(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=True, activation="gelu")),
        Standardised(4, 6, 3),
        Tied(),
    ]
    generator = torch.Generator().manual_seed(7)
    for module in made:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dtype.is_floating_point:
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.data = tensor.data + 0.5 * noise if tensor.ndim < 2 else tensor.data + 0.1 * (noise - 0.5)
    return made


TABLES = {
    "activations": ACTIVATIONS,
    "arithmetic": ARITHMETIC,
    "shapes": SHAPES,
    "indices": INDICES,
    "reductions": REDUCTIONS,
    "products": PRODUCTS,
    "pools": POOLS,
    "resampling": RESAMPLING,
}
