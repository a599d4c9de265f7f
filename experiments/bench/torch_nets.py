"""The usual networks in PyTorch, with their names there, for tests of the converter and for the benchmark."""

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


class Bottleneck(nn.Module):
    def __init__(self, features_in, inner, features, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(features_in, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, features, 1, bias=False), nn.BatchNorm2d(features)
        self.downsample = None
        if stride > 1 or features != features_in:
            projection = nn.Conv2d(features_in, features, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(features))

    def forward(self, x):
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(functional.relu(self.bn2(self.conv2(out)))))
        return functional.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """The ResNets of torchvision. bottleneck=2 gives the wide ones, stem=3 the CIFAR stem, stem_norm=False DDRS's."""

    def __init__(self, blocks, bottleneck=None, stem=7, num_classes=1000, stem_norm=True):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, stem, 2 if stem == 7 else 1, stem // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64) if stem_norm else nn.Identity()
        features_in = 64
        for i, depth in enumerate(blocks):
            width, layer = 64 * 2**i, []
            for j in range(depth):
                stride = 2 if i and j == 0 else 1
                if bottleneck is None:
                    layer.append(BasicBlock(features_in, width, stride, option_a=False))
                    features_in = width
                else:
                    layer.append(Bottleneck(features_in, bottleneck * width, 4 * width, stride))
                    features_in = 4 * width
            setattr(self, f"layer{i + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(features_in, num_classes)
        self.pools = stem == 7

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        if self.pools:
            x = functional.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))
        return self.fc(x)


class PreActivationBlock(nn.Module):
    def __init__(self, features_in, features, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(features_in)
        self.conv1 = nn.Conv2d(features_in, features, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.convShortcut = None
        if features != features_in:
            self.convShortcut = nn.Conv2d(features_in, features, 1, stride, bias=False)

    def forward(self, x):
        active = functional.relu(self.bn1(x))
        out = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class WideResNet(nn.Module):
    """The wide ResNets of CIFAR, as most programs in PyTorch name their parts."""

    def __init__(self, depth=40, widen=2, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        features_in = 16
        for i in (1, 2, 3):
            features, blocks = 8 * 2**i * widen, []
            for j in range((depth - 4) // 6):
                blocks.append(PreActivationBlock(features_in, features, 2 if i > 1 and j == 0 else 1))
                features_in = features
            setattr(self, f"block{i}", nn.ModuleDict({"layer": nn.Sequential(*blocks)}))
        self.bn1 = nn.BatchNorm2d(features_in)
        self.fc = nn.Linear(features_in, num_classes)

    def forward(self, x):
        x = self.conv1(x)
        for block in (self.block1, self.block2, self.block3):
            x = block["layer"](x)
        return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))


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
    """`net` in evaluation mode, with random batch statistics, as a trained network has."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 1.2, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
    return net.eval()


class Noisy(nn.Module):
    """The logits of `net` at noisy copies of one image, normalised as CIFAR-10, by their standard normal noise."""

    def __init__(self, net, image, sigma):
        super().__init__()
        self.net, self.image, self.sigma = net, image, sigma
        self.mean = torch.tensor([0.4914, 0.4822, 0.4465])[:, None, None]
        self.std = torch.tensor([0.2023, 0.1994, 0.2010])[:, None, None]

    def forward(self, noise):
        return self.net((self.image + self.sigma * noise - self.mean) / self.std)


def noisy_cifar_resnet(depth, sigma=0.25):
    """A randomised CIFAR ResNet at noisy copies of a random image, as a function of the noise."""
    return Noisy(randomise(CifarResNet(depth)), torch.rand(3, 32, 32), sigma).eval()
