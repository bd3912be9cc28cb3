"""The same training step in eager PyTorch, as its user would write it: prints one JSON object.

The model, its initial weights' distribution, the batch, clipping and AdamW are those of `trainer/torch/examples/step_time.rs`;
the data are random tokens. Arguments are key=value: steps, threads, layers, heads, width, length, vocabulary,
micro_batches, micro_batch_size, device, fused (0 or 1: the optimizer's fused kernel instead of its default).
"""

import json
import math
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

WARM_UP_STEPS = 3


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


def main():
    settings = {"steps": 10, "threads": 1, "layers": 4, "heads": 4, "width": 128, "length": 256, "vocabulary": 4096}
    settings |= {"micro_batches": 4, "micro_batch_size": 4, "fused": 0, "device": "cpu"}
    for argument in sys.argv[1:]:
        key, value = argument.split("=")
        assert key in settings, f"unknown setting {key}: expected one of {', '.join(settings)}"
        settings[key] = value if key == "device" else int(value)
    s = type("Settings", (), settings)
    torch.set_num_threads(s.threads)
    torch.manual_seed(0)
    model = Gpt(s.layers, s.heads, s.width, s.vocabulary, s.length).to(s.device)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True if s.fused else None)
    batches = [torch.randint(s.vocabulary, (s.micro_batch_size, s.length + 1)) for _ in range(s.micro_batches)]
    if s.device != "cpu":
        batches = [ids.pin_memory() for ids in batches]

    seconds = []
    for step in range(WARM_UP_STEPS + s.steps):
        started = time.perf_counter()
        losses = []
        for ids in batches:
            ids = ids.to(s.device, non_blocking=True)
            logits = model(ids[:, :-1])
            loss = F.cross_entropy(logits.view(-1, s.vocabulary), ids[:, 1:].reshape(-1))
            (loss / s.micro_batches).backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20)
        optimizer.step()
        optimizer.zero_grad()
        if step >= WARM_UP_STEPS:
            seconds.append(time.perf_counter() - started)
    result = {"program": "eager PyTorch " + torch.__version__, "median_seconds": statistics.median(seconds), "best_seconds": min(seconds)}
    result |= {"steps": s.steps, "threads": s.threads, "device": s.device, "parameters": sum(p.numel() for p in model.parameters())}
    print(json.dumps(result | {"loss": sum(losses) / len(losses)}))


main()
