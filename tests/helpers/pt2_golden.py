"""Writes the golden archives: `python tests/helpers/pt2_golden.py`. They can be read without PyTorch.

The archives have no stack traces, and so no path of this machine.
"""

import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "convert" / "golden"
MODELS = """
import torch
from torch import nn
F = nn.functional


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.deep = nn.Conv2d(4, 4, 3, 2, 1, groups=4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x - self.mean)), inplace=True)
        return self.head(F.adaptive_avg_pool2d(F.silu(self.deep(x)), 1).flatten(1))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.qkv, self.head = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 3)
        self.register_buffer("scale", torch.tensor(0.7), persistent=False)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return self.head((x + F.scaled_dot_product_attention(q, k, v) * self.scale)[:, 0])
"""
NAMES = {"convolutions": ("Convolutions", "functional"), "tokens": ("Tokens", "as exported")}


def images():
    """The images of the golden logits."""
    return np.random.default_rng(0).uniform(size=(3, 8, 8, 3)).astype(np.float32)


def main():
    sys.path.insert(0, str(Path(__file__).parent))
    import torch
    from pt2_files import exported, in_form, save

    models = {}
    exec(compile(MODELS, "models.py", "exec"), models)
    FOLDER.mkdir(exist_ok=True)
    logits = {}
    for name, (kind, form) in NAMES.items():
        torch.manual_seed(0)
        model = models[kind]()
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dtype.is_floating_point:
                tensor.data += 0.1 * torch.rand(tensor.shape)
        extra = {"class_names__json": '["a", "b", "c"]', "sigma": "0.25"} if name == "tokens" else {}
        program = in_form(exported(model.eval(), (torch.rand(2, 3, 8, 8),)), form)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        save(program, FOLDER / f"{name}.pt2", **extra)
        with torch.no_grad():
            logits[name] = model(torch.tensor(images()).permute(0, 3, 1, 2)).numpy()
    np.savez(FOLDER / "logits.npz", **logits)


if __name__ == "__main__":
    main()
