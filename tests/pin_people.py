"""Writes tests/people_pinned.npz: ten photos' numbers and maps, as they must stay. Run it only when People are meant to change: python tests/pin_people.py"""
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from spice.people import People

FILE = Path(__file__).with_name('people_pinned.npz')

def ten(device='cpu'):
    "The ten pinned photos"
    return People(64, 'test', crop='mixed', device=device).photos(np.arange(0, 1000, 100), np.arange(10))

def numbers(photos):
    "What is compared, as arrays"
    camera = photos.camera
    return dict(points=photos.points, seen=photos.seen, rotmats=photos.rotmats, betas=photos.betas, focal=camera.focal, center=camera.center, translation=camera.translation,
                parsing=photos.parsing.byte(), parts=photos.surface.parts.byte(), image=((photos.image + 1)*127.5).round().byte(), attributes=photos.attributes)

if __name__ == '__main__':
    np.savez_compressed(FILE, **{k: v.numpy() for k, v in numbers(ten()).items()})
    print(FILE, FILE.stat().st_size)
