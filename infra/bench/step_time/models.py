"""The models of `trainer/torch/src/model` in PyTorch, as its user would write them, and the inputs of a micro-batch."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, layers, heads, width):
        super().__init__()
        hidden = math.ceil(math.ceil(8 * width / 3) / 32) * 32
        self.heads = heads
        self.attention_norm = nn.RMSNorm(width, eps=1e-5)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.RMSNorm(width, eps=1e-5)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        for linear in (self.query_key_value, self.gate_up):
            nn.init.normal_(linear.weight, std=0.02)
        for linear in (self.attention_out, self.down):
            nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * layers))

    def attend(self, x, rotation):
        samples, tokens, width = x.shape
        head_width = width // self.heads
        query_key, value = self.query_key_value(x).split((2 * width, width), dim=-1)
        pairs = torch.view_as_complex(query_key.view(samples, tokens, 2 * self.heads, head_width // 2, 2))
        rotated = torch.view_as_real(pairs * rotation).view(samples, tokens, 2 * self.heads, head_width)
        query, key = rotated.transpose(1, 2).chunk(2, dim=1)
        value = value.view(samples, tokens, self.heads, head_width).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.attention_out(mixed.transpose(1, 2).reshape(samples, tokens, width))

    def forward(self, x, rotation):
        x = x + self.attend(self.attention_norm(x), rotation)
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Gpt(nn.Module):
    def __init__(self, layers, heads, width, vocabulary, length):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(layers, heads, width) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        head_width = width // heads
        frequencies = 10_000.0 ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
        self.register_buffer("rotation", torch.polar(torch.ones_like(angles), angles).to(torch.complex64).unsqueeze(1))

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.rotation)
        return F.linear(self.norm(x), self.embedding.weight)


class Residual(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.second_norm.weight)
        reshapes = stride != 1 or channels != width
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)) if reshapes else nn.Identity()

    def forward(self, x):
        inner = F.relu(self.first_norm(self.first(x)), inplace=True)
        return F.relu(self.second_norm(self.second(inner)) + self.shortcut(x), inplace=True)


def resnet18(classes):
    stages, channels = [], 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stages.append(Residual(channels, width, 2 if stage and not block else 1))
            channels = width
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def mlp(width, side, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * side * side, width), nn.ReLU(inplace=True), nn.Linear(width, classes))


def build(s):
    """The model, and a function that makes a micro-batch of inputs and targets."""
    if s.kind == "gpt":
        def tokens():
            ids = torch.randint(s.vocabulary, (s.micro_batch_size, s.length + 1))
            return ids[:, :-1], ids[:, 1:].reshape(-1)

        return Gpt(s.layers, s.heads, s.width, s.vocabulary, s.length), tokens
    model = resnet18(10) if s.kind == "resnet" else mlp(s.width, s.image_size, 10)
    shape = (s.micro_batch_size, 3, s.image_size, s.image_size)
    return model, lambda: (torch.rand(shape) * 2 - 1, torch.randint(10, (s.micro_batch_size,)))
