"""How far what is filled in behind a person is from the truth, on street photos (chapter 16c).

    python benchmarks/background.py _data/ccp256 --json benchmarks/results/background.json

In each test photo of a prepared dataset with mattes a hole of the person's shape is cut beside the person, a quarter of the picture to the left and to the right, where the
photo shows what the hole hides; the person stays and is not copied. Mean errors in levels of 255: `rim` within six pixels of the hole's edge, `whole` in all of it;
`steps` is without the step of `without_step`. Holes of fewer than 1,000 pixels are passed over.
"""
import argparse, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from spice import background
from spice.core import progress, writing
from spice.data import Prepared
from spice.places import grow
from spice.rounds import read_album
from spice.shown import near_distance

LEAST, RIM = 1000, 6 # pixels

def holes(matte):
    "The person's shape beside the person, left and right [1, 1, h, w]"
    aside = matte.shape[3]//4
    for way in (-aside, aside):
        hole = torch.roll(matte, way, 3)*(1 - grow((matte > .02).to(matte), RIM))
        hole[..., slice(aside) if way > 0 else slice(-aside, None)] = 0
        if (hole > .5).sum() >= LEAST: yield hole

def errors(photo, matte, hole):
    "Mean errors near the edge and in the whole hole"
    inside = hole[0] > .5
    near = inside & (near_distance(~inside, RIM) <= RIM)
    off = (background.fill_behind(photo, hole, matte) - photo).abs().mean(1)*127.5
    return torch.stack([off[o].mean() for o in (near, inside)])

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data')
    parser.add_argument('--count', type=int, default=100, help='photos')
    parser.add_argument('--json')
    args = parser.parse_args()
    album, usual, found = read_album(Prepared(args.data), 'test'), background.without_step, dict(filled=[], steps=[])
    for i in progress(range(min(args.count, len(album)))):
        photo, matte = album.pictures([i], torch.device('cpu'))
        for hole in holes(matte):
            for name, step in dict(filled=usual, steps=lambda part, filled, smooth: filled).items():
                background.without_step = step
                found[name].append(errors(photo, matte, hole))
    result = {name: dict(zip(('rim', 'whole'), (round(float(v), 2) for v in torch.stack(rows).mean(0)))) for name, rows in found.items()}
    result = dict(command='python benchmarks/background.py _data/ccp256 --json benchmarks/results/background.json', holes=len(found['steps']), **result)
    print(json.dumps(result, indent=1))
    if args.json:
        with writing(args.json) as path: path.write_text(json.dumps(result, indent=1) + '\n')
