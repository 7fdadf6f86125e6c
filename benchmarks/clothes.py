"""What the network of chapter 16f finds in labelled street photos that it has not seen: labels, bags, and how far down cloth joins legs.

    python benchmarks/clothes.py CLONE --json benchmarks/results/clothes.json

CLONE is a clone of Clothing Co-Parsing; every tenth of its 1,004 labelled photos was kept aside. `overlap`: of the pixels that are a label or are said to be it,
the share that are both. `bags`: in how many photos there is one (60 pixels of 192 x 192 or more), in how many of these more than half of it is found and more than half
of what is found is one (`right`), nothing is found (`none`), and in how many photos without one something is (`false`). `legs`: in how many photos cloth joins the legs by the
true labels, in how many of these it does by the network's (`found`), and in how many others (`false`).
"""
import argparse, json, sys, warnings
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import torch
import torch.nn.functional as F
from scipy.io import loadmat
from spice.bags import bags_of
from spice.clothes import CLOTHES_SIZE, WORN_LABELS, between_legs, cloth_on_legs, clothes_table
from spice.core import ImageError, progress, writing
from spice.guided_system import LEG_PARTS
from spice.infer import Reposer
from spice.reposer import cut_map
from spice.shown import shows

LEAST = 60 # pixels

def one_photo(tool, path, photo, table):
    "Pixels in both and in either of each label, bag counts, and whether legs are joined: true, found"
    labels = torch.from_numpy(table[loadmat(path)['groundtruth'].astype(np.int64)].astype(np.int64))
    seen = tool.see(photo, person='largest')
    if tuple(labels.shape) != seen.photo.size[::-1]: return None
    portrait, true = tool.portrait(seen), cut_map(labels, seen.box, (CLOTHES_SIZE,)*2)
    picture, matte, surface, worn = portrait.look()
    found, exact = (F.one_hot(o, len(WORN_LABELS)).bool().flatten(0, 1) for o in (worn[0].argmax(0), true))
    overlap = torch.stack([(found & exact).sum(0), (found | exact).sum(0)]).numpy()
    bag, mine = true == WORN_LABELS.index('bag'), torch.zeros_like(true, dtype=torch.bool)
    for o in bags_of(picture, matte, surface, worn)[0]: mine |= o.where
    there, some, both = bag.sum() >= LEAST, mine.any(), (bag & mine).sum()
    right = there and both > bag.sum()/2 and both > mine.sum()/2
    joints = surface.camera.project(tool.body.skeleton(seen.fits.rotmats, seen.fits.betas)[0])[..., :2]
    down, legs = between_legs(surface.mask, joints)[1][0], shows(surface, LEG_PARTS)[0]
    truth = F.one_hot(true, len(WORN_LABELS)).movedim(2, 0).float()
    joined = [cloth_on_legs(o, m, legs, down)[0] > 0 for o, m in ((truth, (true > 0).float()), (worn[0], matte[0, 0]))]
    return overlap, np.array([there, right, there and not some, not there and some], int), np.array(joined)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root')
    parser.add_argument('--json')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    root, tool, rows = Path(args.root), Reposer(), []
    table = clothes_table([str(o[0]) for o in loadmat(root/'label_list.mat')['label_list'][0]])
    with torch.no_grad():
        for path in progress([o for o in sorted((root/'annotations'/'pixel-level').glob('*.mat')) if int(o.stem) % 10 == 0]):
            try: rows.append(one_photo(tool, path, root/'photos'/f'{path.stem}.jpg', table))
            except ImageError: continue
    rows = [o for o in rows if o is not None]
    overlap, bags, joined = (sum(o[0] for o in rows), sum(o[1] for o in rows), np.array([o[2] for o in rows]))
    true, found = joined.T
    out = dict(photos=len(rows), overlap={o: round(a/b, 3) for o, a, b in zip(WORN_LABELS, *overlap.tolist())},
               bags=dict(zip(('photos', 'right', 'none', 'false'), bags.tolist())),
               legs=dict(joined=int(true.sum()), found=int((true & found).sum()), false=int((~true & found).sum())))
    print(json.dumps(out, indent=1))
    if args.json:
        with writing(args.json) as f: f.write_text(json.dumps(out, indent=1) + '\n', encoding='utf-8')
