"""How fast pseudo-pairs are found, and how many of the true winners the shortlist holds (chapters 54 and 54c).

    python benchmarks/parsing.py                            # two thousand maps, about two minutes on one core
    python benchmarks/parsing.py --count 400 --json rows.json
    python benchmarks/parsing.py --run _ckpt/parsing        # a run of `spice_train --system parsing --preset tiny`: what its joint stage does to maps

People at 64 pixels. The maps are all different for the share of winners; for the time they are repeated, with other groups, up to 5,000.
Times are CPU seconds of one thread, so that other work on the machine does not count.
"""
import argparse, json, time
from dataclasses import replace
from pathlib import Path
import numpy as np
import torch
from common import writing
from spice.systems.pseudo_pairs import PseudoPairs, part_labels
from spice.people import People
from spice.runs import Plan
from spice.train import make_system

def timed(f):
    "What `f` gives, and its CPU seconds"
    start = time.process_time()
    return f(), time.process_time() - start

@torch.no_grad()
def right(system, batch):
    "Percent of the target body's pixels whose label is right in the map that is made"
    made, truth = system.eval()(batch)['parsing'].argmax(1), batch['target_parsing']
    system.train()
    return 100*float((made == truth)[truth > 0].float().mean())

def joint(run, add, steps=20):
    "The joint stage, from the weights after the stage before, with and without the cross-entropy of Eq. (2)"
    for ce in (0., 10.):
        system = make_system('parsing', 'tiny').read_weights(Path(run)/'appearance'/'last'/'model.safetensors')
        loaders = system.loaders(Plan('parsing', pool=100, bs=8, epoch=steps), torch.device('cpu'))
        seen = loaders.valid.one_batch()
        stage = system.stages()['joint']
        system.enter('joint', replace(stage.weights, ce=ce)).train()
        adam = torch.optim.Adam([dict(params=p, lr=rate) for p, rate in zip(system.groups(), stage.rates.values())], betas=stage.betas)
        if not ce: add('right labels before', right(system, seen), '%')
        for batch in loaders.train:
            adam.zero_grad()
            system.step(batch).total.backward()
            adam.step()
        add(f'right labels after {steps} joint steps, ce {ce:g}', right(system, seen), '%')

def main():
    parser = argparse.ArgumentParser(description='How fast pseudo-pairs are found')
    parser.add_argument('--count', type=int, default=2000, help='maps that are different')
    parser.add_argument('--json', metavar='FILE', help='also write the rows to this file')
    parser.add_argument('--run', metavar='FOLDER', help='a trained folder: look at its joint stage instead')
    args, rows = parser.parse_args(), []
    torch.set_num_threads(1)
    def add(name, value, unit):
        rows.append(dict(name=name, value=float(f'{value:.5g}'), unit=unit))
        print(f'{name}: {value:.4g} {unit}', flush=True)
    if args.run: joint(args.run, add)
    else: pairs(args.count, add)
    if args.json:
        with writing(args.json) as f: Path(f).write_text(json.dumps(rows, indent=1))

def pairs(n, add):
    "How fast, and how many of the winners"
    people = People(64, 'train', samples=1, device='cpu')
    photos = [people.photos(np.arange(i, min(i + 50, n))) for i in range(0, n, 50)]
    parsing, points = (torch.cat([getattr(o, k) for o in photos]) for k in ('parsing', 'points'))
    few, took = timed(lambda: PseudoPairs(parsing, points, torch.arange(n)))
    asked = torch.arange(0, n, max(1, n//200))[:200]
    (_, found), _ = timed(lambda: few.best(asked))
    (_, least), whole = timed(lambda: few.best(asked, everybody=True))
    add('maps for the winners', n, 'maps')
    add('winners of 200 found among 50', 100*float((found == least).float().mean()), '%')
    add('exhaustive search, one query', 1000*whole/len(asked), 'ms')
    times = torch.arange(5000) % n
    many, took = timed(lambda: PseudoPairs(part_labels(parsing[times], points[times]), points[times], torch.arange(5000)))
    add('reading 5,000 maps', took, 's')
    _, took = timed(lambda: [many.best(o) for o in torch.arange(5000).split(50)])
    add('searching 5,000 maps', took, 's')

if __name__ == '__main__': main()
