"""What it costs to repose a person: milliseconds, images a second and peak memory of local attention and of whole generators, forward alone and with the
gradients, by preset, batch, precision and device.

    python benchmarks/generator.py                    # everything, on the fastest device
    python benchmarks/generator.py --quick --device cpu --json rows.json

A row `attention ... blocks` is the same layer read literally, as the tests' oracle does it: every block is built, each corner gathered by itself; `grid`
builds them with grid_sample instead. The generators have SPICE's spectral norm. On CUDA there are rows in bfloat16 and channels-last (`bf16`), and compiled ones;
on CPUs in 32 bits. `encoded` has the photo encoded before, as in a video. Random weights and inputs: the time does not depend on them.
"""
import contextlib
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tests'))
import torch
from common import Bench
import gfla
from spice.attention import LocalAttention
from spice.generator import Generator, generator_settings

LEVELS = {'/8': (256, 32, 3), '/4': (128, 64, 5)} # channels, size of the map, kernel

def half(device):
    "Mixed precision in bfloat16 where there is hardware for it"
    return torch.autocast('cuda', torch.bfloat16) if device.type == 'cuda' else contextlib.nullcontext()

def forward(f, device):
    "A call without gradients"
    def run():
        with torch.no_grad(), half(device): return f()
    return run

def both(f, parameters, device):
    "A call and its gradients"
    def run():
        with half(device): result = f()
        torch.autograd.grad(result.float().square().mean(), parameters, allow_unused=True)
    return run

def layers(bench, batch):
    "Local attention at each level of a picture of 256 pixels, and what it replaces"
    device = bench.device
    for level, (c, n, k) in LEVELS.items():
        layer = LocalAttention(c, k).to(device)
        source, target, flow = (torch.randn(batch, m, n, n, device=device) for m in (c, c, 2))
        first, _, last, _ = layer.fully_connect_layer
        weights, inputs = (first.weight, first.bias, last.weight, last.bias), [o.requires_grad_() for o in (source, target, flow)]
        for name, f in {'': lambda: layer(source, target, flow), ', blocks': lambda: gfla.attention(weights, source, target, flow),
                        ', grid': lambda: gfla.attention(weights, source, target, flow, grid=True)}.items():
            for what, g in {'': forward(f, device), ' + backward': both(f, [*inputs, *weights], device)}.items():
                bench.time(f'attention {level}{name}{what}', g, n, batch)
                bench.memory(f'attention {level}{name}{what}', g, n, batch)

def generators(bench, preset, batch):
    "A whole generator"
    device, s = bench.device, generator_settings(preset)
    cuda, (h, w) = device.type == 'cuda', s.size
    net = Generator(s).to(device, memory_format=torch.channels_last if cuda else torch.contiguous_format)
    photo, *heats = (torch.rand(batch, c, h, w, device=device) for c in (3, s.keypoints, s.keypoints))
    name, size = f"{preset}{', bf16' if cuda else ''}", f'{h}x{w}'
    net.eval()
    with torch.no_grad(), half(device): encoded = net.encode_source(photo)
    calls = {name: forward(lambda: net(photo, *heats), device), f'{name}, encoded': forward(lambda: net(None, *heats, photo, encoded), device)}
    if cuda:
        compiled = torch.compile(net, fullgraph=True, mode='reduce-overhead')
        calls[f'{name}, compiled'] = forward(lambda: compiled(photo, *heats), device)
    for label, f in calls.items():
        ms = bench.time(label, f, size, batch)
        bench.row(label, 1000*batch/ms, 'img/s', size, batch)
        bench.memory(label, f, size, batch)
    if bench.quick and not cuda and preset == 'fashion': return
    net.train()
    train = both(lambda: net(photo, *heats).image, list(net.parameters()), device)
    bench.time(f'{name} + backward', train, size, batch)
    bench.memory(f'{name} + backward', train, size, batch)

def main():
    bench = Bench('What it costs to repose a person')
    cuda = bench.device.type == 'cuda'
    for batch in bench.pick([1, 8, 64] if cuda else [1, 4], quick=[1]): layers(bench, batch)
    for preset in ('fashion', 'market', 'narrow128', 'narrow64'):
        for batch in bench.pick([1, 8, 64] if cuda else [1, 4], quick=[1]): generators(bench, preset, batch)
    bench.save()

if __name__ == '__main__': main()
