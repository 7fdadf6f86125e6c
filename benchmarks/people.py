"""How fast People are made: photos a second and peak memory by size, batch and device.

    python benchmarks/people.py                    # everything, on the fastest device
    python benchmarks/people.py --quick --device cpu --json rows.json

A row counts everything: posing, dressing, rendering with its shadow map, and the truth that every photo carries. Outfits are made before the clock starts,
as in training, where each is used many times. The rows below it say where the time goes.
"""
import numpy as np
import torch
from common import Bench
from spice.people.dressing import dress
from spice.people import People, free_body, gather_outfits
from spice.people.poses import draw_rows, get, settle

def main():
    bench = Bench('How fast People are made')
    on_gpu = bench.device.type == 'cuda'
    for size in bench.pick([64, 128, 256], quick=[64, 256]):
        people = People(size, 'valid', device=str(bench.device))
        for b in bench.pick([1, 8, 64] if on_gpu else [1, 8, 16], quick=[8]):
            make = lambda: people.photos(np.arange(b))
            bench.rate('photos', make, size, b, least=2)
            bench.memory('photos', make, size, b)
    parts(bench, people, 8)
    bench.save()

@torch.no_grad()
def parts(bench, people, b):
    "The steps before the camera"
    body, (outfits, views) = free_body(str(bench.device)), people.seeds(np.arange(b), 0)
    worn, cuts, _, _ = gather_outfits(outfits, bench.device)
    betas, rows = torch.tensor([o['body'] for o in worn], device=bench.device), draw_rows(views).to(bench.device)
    rotmats, height = settle(rows, body, betas, gap=.015)
    bench.time('poses, hands out of the body', lambda: settle(rows, body, betas, gap=.015), people.size[0], b)
    bench.time('clothes and hair', lambda: dress(body, rotmats, betas, cuts, people.detail, height, get(rows, 'seated')[:, 0]), people.size[0], b)

if __name__ == '__main__': main()
