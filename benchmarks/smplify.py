"""How many bodies a second are fitted to keypoints, by batch and device, and how good the fits are.

    python benchmarks/smplify.py                    # everything, on the fastest device
    python benchmarks/smplify.py --quick --device cpu --json rows.json

The people are bodies in People's poses, seen by People's cameras at 256x256; their keypoints are 2 pixels off per axis and a fifth is missing. A row `fit` starts from the library of
poses, `fit deep` knows 3D joints as well and `fit matte` the person's matte besides, `again` starts from the fits themselves (as for the next frame of a film), `adam` is the same
energy with 100 steps of Adam from the first start.
"""
import torch
from common import Bench
from spice.body import load_body
from spice.keypoints import Keypoints
from spice.people import People
from spice.rig import UNKNOWNS
from spice.smplify import Fitter, fit_errors, fit_keypoints

def disturbed(points, seed=0):
    "Keypoints 2 pixels off, a fifth missing"
    g, points = torch.Generator().manual_seed(seed), points.clone()
    points[..., :2] += 2*torch.randn(*points.shape[:2], 2, generator=g)
    points[..., 2] *= torch.rand(points.shape[:2], generator=g) >= .2
    return points

def adam(fitter, seen, begin, steps=100):
    "SPIN's solver on the same energy"
    step = torch.zeros(len(begin), UNKNOWNS, device=begin.betas.device, requires_grad=True)
    how = torch.optim.Adam([step], .02)
    for _ in range(steps):
        how.zero_grad()
        fitter.energy(begin.moved(step), seen)[0].sum().backward()
        how.step()

def main():
    bench = Bench('How many bodies a second are fitted')
    device = bench.device
    fitter = Fitter(load_body('free').to(device))
    photos = People(256, 'test', samples=1, detail=1, device='cpu').photos(range(64), [0]*64)
    believed, person = fitter.body.cpu().skeleton(photos.rotmats, photos.betas)[1], (photos.parsing > 0).float()[:, None]
    fitter.body.to(device)
    for batch in bench.pick([1, 64, 128, 512, 2048], quick=[1, 64]):
        rows = torch.arange(batch) % 64
        points = disturbed(photos.points[rows], seed=batch).to(device)
        keypoints, camera = Keypoints(points, photos.size), photos.camera[rows].to(device)
        fits = fit_keypoints(fitter.body, keypoints, camera, fitter=fitter, batch=batch)
        bench.rate('fit', size=256, batch=batch, f=lambda: fitter.fit(keypoints, camera), unit='fits/s')
        bench.rate('again', size=256, batch=batch, f=lambda: fitter.fit(keypoints, camera, fits), unit='fits/s')
        bench.memory('fit', size=256, batch=batch, f=lambda: fitter.fit(keypoints, camera))
        deep, matte = believed[rows].to(device), person[rows].to(device)
        bench.rate('fit deep', size=256, batch=batch, f=lambda: fitter.fit(keypoints, camera, joints3d=deep), unit='fits/s')
        bench.rate('fit matte', size=256, batch=batch, f=lambda: fitter.fit(keypoints, camera, joints3d=deep, matte=matte), unit='fits/s')
        if batch == 64:
            seen = fitter.look_at(keypoints, camera)
            bench.rate('adam', size=256, batch=batch, f=lambda: adam(fitter, seen, fitter.starts(seen, 1)), unit='fits/s')
            found = fit_errors(fitter.body, fits, photos.to(device))
            print(', '.join(f'{k} {float(v.mean()):.1f}' for k, v in found.items()), f'; faced right {float((found["facing"] < 45).float().mean()):.0%}')
    bench.save()

if __name__ == '__main__': main()
