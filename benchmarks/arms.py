"""How often what is believed of hands, trunk and thighs is right, by the labels of street photos (chapter 15d).

    python benchmarks/arms.py FOLDER --json benchmarks/results/arms.json

FOLDER is a clone of Clothing Co-Parsing; every tenth of its 1,004 labelled photos is taken. `body` is what the fitted body says by itself, with what lies
around hands left out; `colours` adds colours, `all` also the arms that the detector says are hidden. A vertex on the person counts as believed from .5 on. Of the
hands' believed vertices `skin` lies on skin, gloves, rings, bracelets or watches; `skin_kept` is the share of those that are believed among all that
the body says are seen and that lie there; for trunk and thighs `cloth_kept` is the share believed among those on cloth, and `skin` what lies on skin.
"""
import argparse, json, sys, warnings
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import torch
from scipy.io import loadmat
from spice.core import ImageError, progress, to_tensor, writing
from spice.reposer import Reposer, cut_map
from spice.shown import HANDS, MOVERS, arm_odds, around_hands, believed, part_weights, sample, seen_vertices
from spice.sources import cut
from spice.surface import render_body

SIZE, SKIN, EMPTY = 384, (9, 18, 34, 41, 57), 0
PARTS = dict(hands=HANDS, belly=[list(MOVERS).index('belly')], thighs=[i for i, o in enumerate(MOVERS) if o.endswith('thigh')])

def labelled(root, tool):
    "Photos with the fitted body, its matte, hidden arms, and the labels"
    for path in progress(sorted((Path(root)/'annotations'/'pixel-level').glob('*.mat'))[9::10]):
        labels = torch.from_numpy(loadmat(path)['groundtruth'].astype(np.int64))
        try: seen = tool.see(Path(root)/'photos'/f'{path.stem}.jpg', person='largest')
        except ImageError: continue
        if tuple(labels.shape) != seen.photo.size[::-1]: continue
        photo, alpha = (to_tensor(cut(o.convert('RGB'), seen.box, (SIZE, SIZE))) for o in (seen.photo, seen.matte))
        surface = render_body(tool.body, seen.fits.rotmats, seen.fits.betas, seen.fits.camera.resize(SIZE), size=SIZE)
        yield photo, (alpha[:, :1] + 1)/2, surface, seen.hidden, cut_map(labels, seen.box, (SIZE, SIZE))

def counts(photo, matte, surface, hidden, labels):
    "For each way and part: believed, of these on skin, on cloth; seen by the body and on skin, on cloth"
    xy = surface.verts_px[0, :, :2].long().clamp(0, SIZE - 1)
    label, on = labels[xy[:, 1], xy[:, 0]], sample(matte, surface.verts_px[..., :2].mT[..., None], (SIZE, SIZE), 'zeros')[0, 0, :, 0] > .5
    skin, seen = torch.isin(label, torch.tensor(SKIN)), seen_vertices(surface)
    ways = dict(body=seen*~around_hands(surface), colours=believed(surface, arm_odds(photo, matte, surface))[0],
                all=believed(surface, arm_odds(photo, matte, surface, hidden))[0])
    cloth, out = ~skin & (label != EMPTY), {}
    for way, known in ways.items():
        for part, numbers in PARTS.items():
            mine = (part_weights(surface.body)[:, numbers].sum(1) > .5) & on
            there = [mine & (o[0] > .5) for o in (known, seen)]
            out[way, part] = np.array([int(o.sum()) for o in (there[0], *(a & b for a in there for b in (skin, cloth)))])
    return out

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root')
    parser.add_argument('--json')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    total, photos = {}, 0
    with torch.no_grad():
        for one in labelled(args.root, Reposer()):
            for key, count in counts(*one).items(): total[key] = total.get(key, 0) + count
            photos += 1
    rows = dict(command='python benchmarks/arms.py FOLDER --json benchmarks/results/arms.json', photos=photos)
    for (way, part), (all_, skin, cloth, skin_seen, cloth_seen) in total.items():
        row = dict(believed=int(all_), skin=skin/all_, skin_kept=skin/skin_seen, cloth_kept=cloth/cloth_seen)
        rows.setdefault(way, {})[part] = {k: round(float(v), 3) if k != 'believed' else v for k, v in row.items()}
    text = json.dumps(rows, indent=1)
    print(text)
    if args.json:
        with writing(args.json) as f: f.write_text(text + '\n')
