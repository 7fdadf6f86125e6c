"""How much of the fitted feet lies on the person, with and without heels and toes (chapter 07d), on the test photos of a prepared dataset.

    python benchmarks/feet.py _data/ccp256 --json benchmarks/results/feet.json
    python benchmarks/feet.py --beside 120                    # BESIDE_FEET, measured anew on People's training split

The dataset has BlazePose's points and mattes. For each good fit whose feet are in the picture: the share of the fitted feet's pixels that are the person's by the matte.
"""
import argparse, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from spice.blazepose import HEELS_AND_TOES, BlazePose
from spice.core import progress, to_pil, writing
from spice.data import Prepared
from spice.feet import foot_points
from spice.keypoints import Keypoints
from spice.people import People, free_body
from spice.shown import MOVERS, shows
from spice.smplify import Fitter, fit_keypoints
from spice.surface import render_body

FEET, LEAST = [k for k, o in enumerate(MOVERS) if o.endswith('foot')], 20 # parts; pixels of them in the picture

def shares(data, rows, fits):
    "The share of each person's fitted feet; those who show none, or have a bad fit, are left out"
    found = {}
    for i in progress(range(len(rows))):
        if not fits.good[i]: continue
        feet = shows(render_body(free_body('cpu'), fits.rotmats[i:i+1], fits.betas[i:i+1], fits.camera[i:i+1]), FEET)[0]
        if feet.sum() >= LEAST: found[rows[i]] = float(data.matte(rows[i])[0][feet].gt(.5).float().mean())
    return found

def beside(count, sure=.5):
    "Prints where BlazePose's points lie, in metres from heel and toe in the frame of a left foot, and how far off they are then, a coordinate"
    body, people, finder = free_body('cpu'), People(512, 'train', device='cpu', samples=1, detail=1), BlazePose(threads=1)
    rows = {0: [], 1: []}
    for i in progress(range(count)):
        photo = people.photos([i])
        for one in finder.look(to_pil(photo.image)[0])[:1]:
            R, verts = photo.rotmats[0], body(photo.rotmats, photo.betas).verts[0]
            for side, vertices in enumerate(foot_points(body)):
                turn = R[0]@R[1 + side]@R[4 + side]@R[7 + side]
                for k, vertex in enumerate(vertices):
                    landmark, at = HEELS_AND_TOES[side][k], verts[vertex]
                    if one.visible[landmark] < sure: continue
                    off = torch.tensor(one.points[landmark]) - photo.camera.project(at[None, None])[0, 0, :2]
                    metres = off/photo.camera.focal_xy[0]*(at + photo.camera.translation[0])[2]
                    rows[k].append((turn[:2]*torch.tensor([1. - 2*side, 1, 1]), metres.float()))
    for name, pairs in zip(('heel', 'toe'), rows.values()):
        turns, metres = (torch.cat(o) for o in zip(*pairs))
        shift = torch.linalg.lstsq(turns, metres[:, None]).solution[:, 0]
        print(f'{name}: {len(pairs)} feet, {[round(float(o), 3) for o in shift]}, {float((metres - turns@shift).abs().mean()):.3f} off')

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', nargs='?', default='')
    parser.add_argument('--json')
    parser.add_argument('--beside', type=int, default=0, help='so many of People')
    args = parser.parse_args()
    if args.beside: sys.exit(beside(args.beside))
    data, fitter = Prepared(args.data), Fitter(free_body('cpu'))
    rows = [data.index[o] for o in data.splits['test']]
    more = dict(joints3d=data.joints3d[rows], matte=torch.stack([data.matte(i) for i in rows]), fitter=fitter)
    fit = lambda **o: shares(data, rows, fit_keypoints(fitter.body, Keypoints(data.points[rows], data.size), **more, **o))
    guessed, known = fit(), fit(feet=data.landmarks[rows][:, HEELS_AND_TOES, :3])
    both = sorted(guessed.keys() & known.keys())
    result = dict(command='python benchmarks/feet.py _data/ccp256 --json benchmarks/results/feet.json', photos=len(both),
                  **{name: round(sum(o[i] for i in both)/len(both), 3) for name, o in dict(guessed=guessed, found=known).items()})
    print(json.dumps(result, indent=1))
    if args.json:
        with writing(args.json) as path: path.write_text(json.dumps(result, indent=1) + '\n')
