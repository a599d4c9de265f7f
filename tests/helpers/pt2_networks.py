"""Small networks of the kinds that are exported, for images of 32 x 32 in [0, 1], with seeded weights."""

import math

from with_torch import CifarResNet, WideResNet, randomise, torch

nn, F = torch.nn, torch.nn.functional


class Normalised(nn.Module):
    """A network behind its normalisation, as it is exported."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor([0.49, 0.48, 0.45]).view(3, 1, 1))
        self.std = torch.tensor([0.25, 0.24, 0.26]).view(3, 1, 1)

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


class Dense(nn.Module):
    """Blocks of normalisation before convolution, whose inputs are joined, and averages between them."""

    def __init__(self, growth=8):
        super().__init__()
        self.stem, width, layers = nn.Conv2d(3, 16, 3, padding=1, bias=False), 16, []
        for stage in range(2):
            for _ in range(3):
                layers.append(
                    nn.Sequential(
                        nn.BatchNorm2d(width),
                        nn.ReLU(inplace=True),
                        nn.Conv2d(width, 4 * growth, 1, bias=False),
                        nn.BatchNorm2d(4 * growth),
                        nn.ReLU(inplace=True),
                        nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
                    )
                )
                width += growth
            if not stage:
                layers.append(
                    nn.Sequential(
                        nn.BatchNorm2d(width),
                        nn.ReLU(inplace=True),
                        nn.Conv2d(width, width // 2, 1, bias=False),
                        nn.AvgPool2d(2, 2),
                    )
                )
                width //= 2
        self.layers = nn.ModuleList(layers)
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 10)

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        for layer in self.layers:
            y = layer(x)
            x = y if y.shape[2] != x.shape[2] else torch.cat([x, y], 1)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.norm(x)), (1, 1)).flatten(1))


class Squeeze(nn.Module):
    """A gate of channels by their means."""

    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))))


class Efficient(nn.Module):
    """Blocks that widen, convolve each channel alone, gate and narrow again."""

    def __init__(self):
        super().__init__()

        def normed(*args, **kwargs):
            conv = nn.Conv2d(*args, bias=False, **kwargs)
            return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels, eps=1e-3))

        self.stem, self.blocks = normed(3, 16, kernel_size=3, stride=2, padding=1), nn.ModuleList()
        for width, kernel, stride in ((16, 3, 1), (24, 5, 2), (24, 3, 1)):
            before = 16 if len(self.blocks) < 2 else 24
            self.blocks.append(
                nn.Sequential(
                    normed(before, 4 * before, kernel_size=1),
                    nn.SiLU(inplace=True),
                    normed(
                        4 * before,
                        4 * before,
                        kernel_size=kernel,
                        stride=stride,
                        padding=kernel // 2,
                        groups=4 * before,
                    ),
                    nn.SiLU(inplace=True),
                    Squeeze(4 * before),
                    normed(4 * before, width, kernel_size=1),
                )
            )
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        x = F.silu(self.stem(x))
        for block in self.blocks:
            y = block(x)
            x = x + y if y.shape == x.shape else y
        return self.head(F.dropout(x.mean((2, 3)), 0.2, self.training))


class ImageNorm(nn.LayerNorm):
    """Layer normalisation of the channels of images."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Next(nn.Module):
    """7x7 convolutions of each channel alone, layer normalisation, and products at each pixel."""

    def __init__(self, width=24):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, 4), ImageNorm(width, eps=1e-6))
        self.depthwise = nn.ModuleList(nn.Conv2d(width, width, 7, padding=3, groups=width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(2))
        self.scale = nn.Parameter(torch.full((2, width), 0.3))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        for i in range(2):
            y = self.norms[i](self.depthwise[i](x).permute(0, 2, 3, 1))
            y = self.down[i](F.gelu(self.up[i](y))) * self.scale[i]
            x = x + y.permute(0, 3, 1, 2)
        return self.head(self.norm(x.mean((-2, -1))))


class Attention(nn.Module):
    """Attention of tokens to each other, with a bias by their places if `places` says where they are."""

    def __init__(self, width, heads, places=None):
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads
        if places is not None:
            self.register_buffer("places", places)
            self.table = nn.Parameter(0.3 * torch.randn(int(places.max()) + 1, heads))

    def forward(self, x, mask=None):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = None
        if hasattr(self, "places"):
            bias = self.table[self.places.view(-1)].view(n, n, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
            if mask is not None:
                shares = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1) + bias
                shares = shares.view(b // len(mask), len(mask), self.heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
                y = shares.view(-1, self.heads, n, n).softmax(-1) @ v
                return self.out(y.transpose(1, 2).reshape(b, n, c))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(y.transpose(1, 2).reshape(b, n, c))


def places_of(size, others=0):
    """For each pair of places in a square, an index of their distance. `others` are tokens in front of them."""
    at = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
    away = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + size - 1
    number = away[..., 0] * (2 * size - 1) + away[..., 1]
    return F.pad(number, (others, 0, others, 0), value=(2 * size - 1) ** 2)


class Vision(nn.Module):
    """A transformer of patches: with a class token, or as BEiT with biases by places and scaled branches."""

    def __init__(self, width=24, beit=False):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.place = None if beit else nn.Parameter(torch.randn(1, 17, width))
        self.attention = nn.ModuleList(Attention(width, 3, places_of(4, 1) if beit else None) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(4))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(2))
        self.scale = nn.Parameter(torch.full((4, width), 0.5)) if beit else None
        self.norm, self.head, self.beit = nn.LayerNorm(width), nn.Linear(width, 10), beit

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x if self.place is None else x + self.place
        for i in range(2):
            y = self.attention[i](self.norms[2 * i](x))
            x = x + (y if self.scale is None else self.scale[2 * i] * y)
            y = self.down[i](F.gelu(self.up[i](self.norms[2 * i + 1](x))))
            x = x + (y if self.scale is None else self.scale[2 * i + 1] * y)
        x = self.norm(x[:, 1:].mean(1)) if self.beit else self.norm(x)[:, 0]
        return self.head(x)


class Windows(nn.Module):
    """Attention within windows, which are shifted in every other block, and neighbours joined between stages."""

    def __init__(self, width=16, window=4):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.attention = nn.ModuleList(Attention(width, 2, places_of(window)) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(2)
        )
        self.join, self.joined = nn.Linear(4 * width, 2 * width, bias=False), nn.LayerNorm(4 * width)
        self.norm, self.head, self.window = nn.LayerNorm(2 * width), nn.Linear(2 * width, 10), window
        self.register_buffer("mask", self._mask(8, window), persistent=False)

    @staticmethod
    def _mask(size, window):
        number = torch.zeros(1, size, size, 1)
        parts = (slice(0, -window), slice(-window, -window // 2), slice(-window // 2, None))
        for i, rows in enumerate(parts):
            for j, columns in enumerate(parts):
                number[:, rows, columns] = 3 * i + j
        number = Windows.cut(number, window).view(-1, window * window)
        apart = number.unsqueeze(1) - number.unsqueeze(2)
        return apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)

    @staticmethod
    def cut(x, window):
        b, h, w, c = x.shape
        x = x.view(b, h // window, window, w // window, window, c).permute(0, 1, 3, 2, 4, 5)
        return x.contiguous().view(-1, window, window, c)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        for i in range(2):
            y = self.norms[2 * i](x)
            y = torch.roll(y, (-2, -2), (1, 2)) if i else y
            y = self.cut(y, self.window).view(-1, self.window**2, c)
            y = self.attention[i](y, self.mask if i else None).view(-1, self.window, self.window, c)
            y = y.view(b, h // self.window, w // self.window, self.window, self.window, c)
            y = y.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, h, w, c)
            x = x + (torch.roll(y, (2, 2), (1, 2)) if i else y)
            x = x + self.mlp[i](self.norms[2 * i + 1](x))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        x = self.norm(self.join(self.joined(x)))
        return self.head(x.mean((1, 2)))


class Residual(nn.Module):
    """A block of the denoiser, which receives the noise level as shift and scale."""

    def __init__(self, before, width, told):
        super().__init__()
        self.first, self.second = nn.Conv2d(before, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(4, before), nn.GroupNorm(4, width)])
        self.told, self.skip = nn.Linear(told, 2 * width), nn.Conv2d(before, width, 1)

    def forward(self, x, told):
        scale, shift = self.told(F.silu(told))[..., None, None].chunk(2, 1)
        y = self.first(F.silu(self.norms[0](x)))
        y = self.norms[1](y) * (1 + scale) + shift
        return self.skip(x) + self.second(F.silu(y))


class Denoiser(nn.Module):
    """A U-Net of (x, sigma) with waves of the noise level, and attention in its middle."""

    def __init__(self, width=16):
        super().__init__()
        self.width, self.told = width, nn.Sequential(nn.Linear(width, 32), nn.SiLU(), nn.Linear(32, 32))
        self.stem, self.down = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, 2, 1)
        self.inward, self.middle = Residual(width, width, 32), Residual(width, width, 32)
        self.norm, self.attention = nn.GroupNorm(4, width), Attention(width, 2)
        self.outward, self.out = Residual(2 * width, width, 32), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x, sigma):
        waves = torch.exp(-math.log(10_000) * torch.arange(self.width // 2, dtype=torch.float32) / (self.width // 2))
        angles = torch.log(sigma)[:, None].float() * waves[None]
        told = self.told(torch.cat([torch.cos(angles), torch.sin(angles)], -1))
        first = self.inward(self.stem(x), told)
        y = self.middle(self.down(first), told)
        b, c, h, w = y.shape
        y = y + self.attention(self.norm(y).reshape(b, c, h * w).permute(0, 2, 1)).permute(0, 2, 1).reshape(b, c, h, w)
        y = torch.cat([F.interpolate(y, scale_factor=2, mode="nearest"), first], 1)
        return x - sigma[:, None, None, None] * self.out(self.outward(y, told))


def perturbed(net):
    """`net` with no weight equal to 0 or 1, so that every branch has an effect, and with statistics of some images."""
    generator = torch.Generator().manual_seed(1)
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for tensor in net.parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.data += (0.1 if tensor.ndim == 1 else 0.02) * noise
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        net.train()
        with torch.no_grad():
            net(torch.rand(16, 3, 32, 32, generator=generator))
    return net.eval()


MAKERS = {
    "resnet": lambda: CifarResNet(8),
    "wide_resnet": lambda: WideResNet(10, 2),
    "densenet": Dense,
    "efficientnet": Efficient,
    "convnext": Next,
    "vit": Vision,
    "beit": lambda: Vision(beit=True),
    "swin": Windows,
}


def network(name):
    """A classifier of images (b, 3, 32, 32) in [0, 1], in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = MAKERS[name]()
        net = randomise(net) if name in ("resnet", "wide_resnet") else net
        return perturbed(Normalised(net))


def denoiser():
    """A denoiser of (images, sigma)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = Denoiser()
        for tensor in net.parameters():
            tensor.data += 0.02 * torch.randn(tensor.shape)
        return net.eval()
