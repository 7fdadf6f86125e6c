"The sample of eight people and the drawing of SPICE: made again by their scripts, and read."
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from spice.body import load_body
from spice.core import DataError, packaged
from spice.sample import load_sample, save_sample

ROOT = Path(__file__).parent.parent

def script(name, *args):
    out = subprocess.run([sys.executable, ROOT/'scripts'/name, *map(str, args)], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr

def test_script_makes_the_same_people_again(tmp_path):
    script('make_sample.py', '--out', tmp_path/'sample.npz')
    for old, new in zip(load_sample(), load_sample(path=tmp_path/'sample.npz')):
        for name in ('points', 'rotmats', 'betas'): assert torch.allclose(getattr(old, name), getattr(new, name), atol=1e-3, rtol=1e-4), name
        for name in ('focal', 'center', 'translation'): assert torch.allclose(getattr(old.camera, name), getattr(new.camera, name), rtol=1e-3, atol=1e-3), name
        assert (old.image - new.image).abs().mean() < .002                # another JPEG library may differ in a step here and there

def test_file_is_small(): assert packaged('sample_people.npz').stat().st_size < 400_000

def test_written_and_read_again(tmp_path):
    shots = load_sample()
    save_sample(tmp_path/'again.npz', list(shots))
    for old, new in zip(shots, load_sample(path=tmp_path/'again.npz')):
        assert torch.equal(old.rotmats, new.rotmats) and old.camera.size == new.camera.size
        assert (old.image - new.image).abs().mean() < .01                 # JPEG twice

def test_smaller_photos_keep_what_is_known():
    large, small = load_sample(), load_sample(64)
    for a, b in zip(large, small):
        assert b.image.shape == (8, 3, 64, 64) and torch.allclose(a.points[..., :2], 2*b.points[..., :2], atol=1e-4)
        for photos in (a, b):
            assert (photos.camera.project(load_body('free').skeleton(photos.rotmats, photos.betas)[1]) - photos.points)[..., :2].abs().max() < .01

def test_eight_differ_and_partners_share_poses():
    source, target, third = load_sample()
    away = lambda a, b: (a.rotmats - b.rotmats).abs().mean((1, 2, 3))
    partner = [1, 0, 3, 2, 5, 4, 7, 6]
    for photos in (source, target, third):
        assert (away(photos, photos[partner]) < .02).all()
        assert (photos.image - photos[partner].image).abs().mean((1, 2, 3)).min() > .05
    assert away(source, target).min() > .03 and away(target, third).min() > .03

def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path/'half.npz').write_bytes(packaged('sample_people.npz').read_bytes()[:20_000])
    with pytest.raises(DataError, match='half.npz'): load_sample(path=tmp_path/'half.npz')

def test_drawing_is_what_the_script_draws(tmp_path):
    script('draw_spice.py', '--out', tmp_path/'spice.svg')
    drawing = (tmp_path/'spice.svg').read_text()
    assert drawing == (ROOT/'nbs'/'images'/'spice.svg').read_text() and len(drawing) < 30_000
