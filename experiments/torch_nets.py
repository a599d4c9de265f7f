"""The networks of the field in PyTorch, with its names: what the converter is tested and the benchmark run against."""

import torch
from torch import nn
from torch.nn import functional


class BasicBlock(nn.Module):
    def __init__(self, features_in, features, stride, option_a):
        super().__init__()
        self.conv1 = nn.Conv2d(features_in, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.stride, self.pad = stride, features - features_in
        self.downsample = None
        if (stride > 1 or self.pad) and not option_a:
            projection = nn.Conv2d(features_in, features, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(features))

    def forward(self, x):
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.pad:
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, self.pad // 2, self.pad - self.pad // 2))
        return functional.relu(out + x)


class CifarResNet(nn.Module):
    def __init__(self, depth, option_a=False, channels=3, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        features_in = 16
        for i, features in enumerate((16, 32, 64), start=1):
            blocks = []
            for j in range((depth - 2) // 6):
                blocks.append(BasicBlock(features_in, features, 2 if i > 1 and j == 0 else 1, option_a))
                features_in = features
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        head = nn.Linear(64, num_classes)
        setattr(self, "linear" if option_a else "fc", head)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x))).mean((2, 3))
        return (self.linear if hasattr(self, "linear") else self.fc)(x)


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))


def randomise(net, seed=0):
    """`net` in evaluation mode, with batch statistics as if it were trained."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 1.2, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
    return net.eval()
