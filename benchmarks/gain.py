"""What the size of starting weights is worth in a short run: photos of People made again in their own pose, with GAIN and with 1.

    python benchmarks/gain.py --device cpu          # writes benchmarks/results/gain_cpu.json, about five minutes on one core
"""
import argparse, json, sys, tempfile
from dataclasses import asdict
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from spice.blocks import GAIN
from spice.core import get_device, writing
from spice.generator import generator_settings
from spice.loaders import Draw, collate
from spice.people import People
from spice.runs import Plan, ValidationPairs, log_rows, train
from spice.train import load_system

def errors(system, batch):
    "Mean absolute differences where a person is, of 2: of brightness, and of colour beside it"
    with torch.no_grad(): made = system.own_pose(batch)
    off, person = made - batch['source_image'], (batch['source_wheel'] > -1).any(1, keepdim=True)
    bright = off.mean(1, keepdim=True)
    mean = lambda o: float((o.abs()*person).sum()/(person.sum()*o.shape[1]))
    return dict(brightness=mean(bright), colour=mean(off - bright))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device')
    parser.add_argument('--steps', type=int, default=150)
    args = parser.parse_args()
    device, found = get_device(args.device), {}
    pairs = ValidationPairs(People(64, 'valid', samples=1, device=str(device)), 40)
    batch = Draw()(collate([pairs[i] for i in range(40)]))
    photo, person = batch['source_image'], (batch['source_wheel'] > -1).any(1, keepdim=True)
    grey = photo.mean(1, keepdim=True).expand_as(photo)
    found['grey photo'] = dict(brightness=0., colour=float(((photo - grey).abs()*person).sum()/(3*person.sum())))
    for gain in (GAIN, 1.):
        settings = dict(generator=asdict(generator_settings('narrow64', kernels=(3, 3), hidden=32, spectral_norm=False, gain=gain)), warm=True)
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(stages=('copy',), steps=(args.steps,), settings=settings, rates=dict(generator=1e-3), pool=300, epoch=50, ema=0., every=25,
                        samples=10_000, checkpoint=10_000, quiet=True)
            system = load_system(train(Path(folder)/'run', plan, device), device)
            last = log_rows(Path(folder)/'run'/'copy'/'log.csv')[-1]
        found[f'gain {gain:g}'] = errors(system, batch) | {k: last[k] for k in ('own_pix', 'own_percep')}
        print(f'gain {gain:g}, {args.steps} steps:', {k: round(v, 4) for k, v in found[f"gain {gain:g}"].items()}, flush=True)
    path = Path(__file__).parent/'results'/f'gain_{device.type}.json'
    with writing(path) as f: Path(f).write_text(json.dumps(found | dict(steps=args.steps, photos=args.steps*8), indent=1))
    print(f'Wrote {path.relative_to(Path(__file__).resolve().parent.parent)}')

if __name__ == '__main__': main()
