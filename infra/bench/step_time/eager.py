"""The same training step in eager PyTorch, as its user would write it: prints one JSON object.

The model, its initial weights' distribution, the batch, clipping and AdamW are those of `trainer/torch/examples/step_time.rs`;
the data are random. Arguments are key=value: kind (gpt, resnet, mlp), layers, heads, width, length, vocabulary, image_size,
steps, threads, micro_batches, micro_batch_size, device, fused (0 or 1: the optimizer's fused kernel instead of its default),
channels_last (0 or 1: weights and pictures in that layout, which forebay gives to what flows between them alone),
world (that many processes under DistributedDataParallel over Gloo, which share the micro-batches).
"""

import contextlib
import json
import os
import socket
import statistics
import sys
import time

import torch
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from models import build

WARM_UP_STEPS = 3
SETTINGS = {"kind": "gpt", "steps": 10, "threads": 1, "layers": 4, "heads": 4, "width": 128, "length": 256, "vocabulary": 4096}
SETTINGS |= {"image_size": 64, "micro_batches": 4, "micro_batch_size": 4, "fused": 0, "channels_last": 0, "device": "cpu", "world": 1}


def train(rank, s, port):
    torch.set_num_threads(s.threads)
    torch.manual_seed(0)
    model, batch = build(s)
    model = model.to(s.device)
    if s.channels_last:
        model = model.to(memory_format=torch.channels_last)
    parameters = sum(p.numel() for p in model.parameters())
    net = model
    if s.world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        distributed.init_process_group("gloo", rank=rank, world_size=s.world)
        net = DistributedDataParallel(model, gradient_as_bucket_view=True)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True if s.fused else None)
    mine = s.micro_batches // s.world
    batches = [batch() for _ in range(mine)]
    if s.channels_last:
        batches = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in batches]
    if s.device != "cpu":
        batches = [(x.pin_memory(), y.pin_memory()) for x, y in batches]

    seconds = []
    for step in range(WARM_UP_STEPS + s.steps):
        started = time.perf_counter()
        losses = []
        for index, (x, y) in enumerate(batches):
            x, y = x.to(s.device, non_blocking=True), y.to(s.device, non_blocking=True)
            # Gradients are reduced with the last backward pass.
            alone = net.no_sync() if s.world > 1 and index + 1 < mine else contextlib.nullcontext()
            with alone:
                logits = net(x)
                loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), y)
                (loss / mine).backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 20)
        optimizer.step()
        optimizer.zero_grad()
        if step >= WARM_UP_STEPS:
            seconds.append(time.perf_counter() - started)
    if s.world > 1:
        distributed.destroy_process_group()
    if rank == 0:
        name = f"{'eager' if s.world == 1 else 'DDP'} PyTorch {torch.__version__}{', fused' if s.fused else ''}"
        result = {"program": name, "median_seconds": statistics.median(seconds), "best_seconds": min(seconds), "steps": s.steps}
        result |= {"threads": s.threads, "device": s.device, "parameters": parameters, "loss": sum(losses) / len(losses)}
        print(json.dumps(result), flush=True)


class Settings(dict):
    __getattr__ = dict.__getitem__


def main():
    settings = Settings(SETTINGS)
    for argument in sys.argv[1:]:
        key, value = argument.split("=")
        assert key in settings, f"unknown setting {key}: expected one of {', '.join(settings)}"
        settings[key] = value if key in ("device", "kind") else int(value)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    if settings.world == 1:
        train(0, settings, port)
    else:
        torch.multiprocessing.spawn(train, (settings, port), nprocs=settings.world)


if __name__ == "__main__":
    main()
