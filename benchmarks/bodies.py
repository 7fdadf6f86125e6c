"""How good bodies are that are fitted to what BlazePose sees of People, whole and cut off, and what each part of its knowledge is worth.

    python benchmarks/bodies.py --photos 300          # writes benchmarks/results/bodies.json, about ten minutes on one core
    python benchmarks/bodies.py --photos 8 --json rows.json
    python benchmarks/bodies.py --lines               # LIMBS and BLAZEPOSE of chapter 08, measured anew on People's training split

Photos of People's test split are rendered at 512 and cut: the whole photo for everybody; for every second one also from the head to the knees, to the hips, and to the middle of the chest.
All are resized to 256. BlazePose finds joints, depths and matte; nothing else of the photo is used. The truth is exact. A fit counts as bad if the joints in the picture are off by more
than 100 mm (both centred on their mean) or if the body faces another way (more than 45 degrees).
"""
import argparse, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from spice.blazepose import BlazePose, Found
from spice.body import PARENTS, load_body
from spice.camera import Camera
from spice.core import progress, to_pil, to_tensor, writing
from spice.energy import BLAZEPOSE, LIMB_LEANS, FitSettings
from spice.keypoints import Keypoints
from spice.matte import matte
from spice.people import People
from spice.rig import BARE, outline_of
from spice.smplify import Fitter, facing, fit_keypoints, procrustes

SIZE, KINDS = 256, ('whole', 'to the knees', 'to the hips', 'to the chest')
PARTS = {'2D, score > 0.3': dict(), 'visibility': dict(soft=True), '3D joints': dict(deep=True), 'matte': dict(cut=True),
         'all': dict(soft=True, deep=True, cut=True), 'all, plain face': dict(soft=True, deep=True, cut=True, face=1.)}

def boxes(points, person):
    "The four squares (left, top, side) of one photo, from its joints [18, 3] and mask [h, w]"
    ys, xs = person.nonzero().T.float()
    top, neck, hips, knees = float(ys.min()) - 6, points[1], points[[8, 11]].mean(0), points[[9, 12]].mean(0)
    ends = dict(zip(KINDS[1:], (max(knees[1], hips[1] + 30), hips[1] + 6, neck[1] + .45*max(hips[1] - neck[1], 60))))
    found = {'whole': (0., 0., float(person.shape[0]))}
    for kind, bottom in ends.items():
        side, middle = float(bottom) - top, float((xs.min() + xs.max())/2 if kind == 'to the knees' else (neck[0] + hips[0])/2)
        found[kind] = (middle - side/2, top, side)
    return found

def look(split, count, finder):
    "What BlazePose sees of People, and the truth; a dictionary of tensors"
    people, rows = People(512, split, device='cpu', samples=1, detail=1), []
    for i in progress(range(count), text='photos'):
        photo = people.photos([i])
        image = to_pil(photo.image)[0]
        for kind, (left, top, side) in boxes(photo.points[0], photo.parsing[0] > 0).items():
            if kind != 'whole' and i % 2: continue
            box, scale = (left, top, left + side, top + side), SIZE/side
            cut = to_pil(torch.nn.functional.pad(photo.image, [512]*4, mode='replicate'))[0].resize((SIZE, SIZE), 2, [512 + o for o in box], 3.) \
                if kind != 'whole' else image.resize((SIZE, SIZE), 4)
            someone = finder.look(cut)
            if not someone: continue
            found = Found(someone[:1], (SIZE, SIZE), least=0.)
            camera = photo.camera
            rows.append(dict(kind=torch.tensor([KINDS.index(kind)]), points=found.points, joints3d=found.joints3d,
                             matte=to_tensor(matte(cut, someone[0]).convert('RGB'))[:, :1]/2 + .5,
                             person=_cut_mask(photo.parsing > 0, left, top, side), rotmats=photo.rotmats, betas=photo.betas,
                             focal=camera.focal*scale, center=(camera.center - torch.tensor([[left, top]]))*scale, translation=camera.translation))
    return {k: torch.cat([r[k] for r in rows]) for k in rows[0]}

def _cut_mask(mask, left, top, side):
    "A mask [1, 512, 512], cut and resized as its photo was"
    at = (torch.arange(SIZE) + .5)*side/SIZE
    x, y = (left + at)/256 - 1, (top + at)/256 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing='xy'), 2)[None]
    return torch.nn.functional.grid_sample(mask[None].float(), grid, align_corners=False)

class Truth:
    "The true bodies, with what the measures need"
    def __init__(self, seen, body):
        self.rotmats, self.betas = seen['rotmats'], seen['betas']
        self.camera = Camera(seen['focal'], seen['center'], seen['translation'], (SIZE, SIZE))
        self.joints, self.keypoints = body.skeleton(self.rotmats, self.betas)
        self.at = self.camera.project(self.keypoints)[..., :2]
        self.inside = ((self.at > 0) & (self.at < SIZE)).all(2).float()

def errors(fits, truth, seen, body):
    "Each [n]: pixels at 256, mm, degrees"
    joints, keypoints = body.skeleton(fits.rotmats, fits.betas)
    inside = truth.inside
    mean = lambda a, w: (a*w).sum(1)/w.sum(1).clamp(min=1)
    middle = lambda a: a - (a*inside[..., None]).sum(1, keepdim=True)/inside.sum(1).clamp(min=1)[:, None, None]
    off, apart = (fits.camera.project(keypoints)[..., :2] - truth.at).norm(dim=2), (middle(keypoints) - middle(truth.keypoints)).norm(dim=2)*1000
    trunk = [2, 5, 8, 11]
    return dict(reprojection=mean(off, inside), trunk=mean(off[:, trunk], inside[:, trunk]), joints=mean(apart, inside), outside=mean(apart, 1 - inside),
                whole=((joints - joints[:, :1]) - (truth.joints - truth.joints[:, :1])).norm(dim=2).mean(1)*1000,
                aligned=(procrustes(joints, truth.joints) - truth.joints).norm(dim=2).mean(1)*1000,
                head=heads(fits.rotmats).mul(heads(truth.rotmats)).sum(1).clamp(-1, 1).acos().rad2deg(),
                facing=((facing(fits.rotmats) - facing(truth.rotmats) + 180) % 360 - 180).abs(), sticking=sticking_out(fits, seen, body))

def heads(rotmats):
    "Where heads face [n, 3]"
    joint, turn = 15, torch.eye(3)
    while joint >= 0: joint, turn = PARENTS[joint], rotmats[:, joint]@turn
    return turn[..., 2]

def sticking_out(fits, seen, body):
    "The share of skin (without fingers and feet) that is more than 2 pixels outside the true person"
    skin, out = (body.smpl.lbs_weights[:, list(BARE)].sum(1) < .3).nonzero()[::12, 0], []
    outline = outline_of(seen['person'], fits.camera)
    for i in range(0, len(fits), 100):
        part = slice(i, i + 100)
        at = body(fits.rotmats[part], fits.betas[part]).verts[:, skin] + fits.camera.translation[part, None]
        out.append((outline[part].look_up(at[..., :2]/at[..., 2:])[0] > 2).float().mean(1))
    return torch.cat(out)

def row(part, kind, e, good):
    "One row of the table"
    bad, mean = (e['joints'] > 100) | (e['facing'] > 45), lambda k: round(float(e[k].mean()), 4)
    return dict(part=part, kind=kind, photos=len(good), **{k: mean(k) for k in ('reprojection', 'trunk', 'joints', 'outside', 'whole', 'aligned', 'head', 'sticking')},
                facing=round(float((e['facing'] < 45).float().mean()), 4), good=round(float(good.float().mean()), 4), bad=round(float(bad.float().mean()), 4),
                bad_kept=round(float(bad[good].float().mean()), 4), caught=round(int((bad & ~good).sum())/max(1, int(bad.sum())), 4))

@torch.no_grad()
def compare(seen, body):
    "Rows for all parts and kinds"
    truth, rows = Truth(seen, body), []
    for part, has in progress(PARTS.items(), text='parts'):
        points, fitter = seen['points'].clone(), Fitter(body, settings=FitSettings(face=has.get('face', FitSettings.face)))
        if 'soft' not in has: points[..., 2] = (points[..., 2] > .3).float()
        fits = fit_keypoints(body, Keypoints(points, (SIZE, SIZE)), fitter=fitter, joints3d=seen['joints3d'] if 'deep' in has else None,
                             matte=seen['matte'] if 'cut' in has else None)
        e = errors(fits, truth, seen, body)
        for i, kind in enumerate(KINDS):
            of = seen['kind'] == i
            rows.append(row(part, kind, {k: v[of] for k, v in e.items()}, fits.good[of]))
    return rows

@torch.no_grad()
def lines(seen, body):
    "Print the tables of chapter 08 as this split has them"
    truth, sure = Truth(seen, body), seen['points'][..., 2]
    sine = lambda a, s, e: (a[:, e, 2] - a[:, s, 2])/(a[:, e] - a[:, s]).norm(dim=1)
    for s, e in LIMB_LEANS:
        m = torch.minimum(sure[:, s], sure[:, e]) > .8
        x, y = sine(truth.keypoints, s, e)[m], sine(seen['joints3d'], s, e)[m]
        A, w = torch.stack([x, torch.ones_like(x)], 1), torch.ones_like(x)
        for _ in range(10):
            line = torch.linalg.lstsq(A*w[:, None].sqrt(), y[:, None]*w[:, None].sqrt())[0][:, 0]
            off = y - A@line
            spread = 1.48*off.abs().median()
            w = (1 + (off/(2.5*spread))**2)**-2
        print((s, e), f'slope {line[0]:.2f}, offset {line[1]:.2f}, deviation {spread/line[0]:.2f}; {len(x)} limbs')
    turns = [seen['rotmats'][:, 0]]
    for j in range(1, 24): turns.append(turns[PARENTS[j]]@seen['rotmats'][:, j])
    metre = truth.camera.focal[:, None]/(truth.keypoints + truth.camera.translation[:, None])[..., 2]           # pixels
    for k, (joint, _) in BLAZEPOSE.items():
        A, y, x = turns[joint][:, :2], (seen['points'][:, k, :2] - truth.at[:, k])/metre[:, k, None], torch.zeros(3)
        w = ((sure[:, k] > .9) & (seen['kind'] < 2)).float()
        for _ in range(20):
            far = w/(1 + ((y - A@x).norm(dim=1)/.03)**2)**2
            x = torch.linalg.solve((far[:, None, None]*(A.mT@A)).sum(0) + 1e-3*torch.eye(3), (far[:, None, None]*(A.mT@y[..., None])).sum(0))[:, 0]
        off = [float((y - A@v).norm(dim=1)[w > 0].median()*1000) for v in (x*0, x)]
        print(k, f'on joint {joint}: {[round(float(o), 3) for o in x]}, median {off[0]:.0f} -> {off[1]:.0f} mm')

def main():
    p = argparse.ArgumentParser(description='Bodies from what BlazePose sees of People')
    p.add_argument('--photos', type=int, default=300)
    p.add_argument('--lines', action='store_true', help='measure the tables of chapter 08 instead')
    p.add_argument('--json', default=str(Path(__file__).parent/'results'/'bodies.json'))
    args, body = p.parse_args(), load_body('free')
    seen = look('train' if args.lines else 'test', args.photos, BlazePose(threads=1))
    if args.lines: return lines(seen, body)
    rows = compare(seen, body)
    for r in rows: print(r)
    with writing(Path(args.json)) as f: Path(f).write_text(json.dumps(dict(photos=args.photos, found=len(seen['kind']), rows=rows), indent=1))

if __name__ == '__main__': main()
