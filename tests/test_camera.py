"Cameras against formulas written out in NumPy, and what bad input gets."
import math
import numpy as np
import pytest
import roma
import torch
from spice.body import load_body, rest_pose
from spice.camera import FOCAL_224, Camera, frame_body, points_to_view, spin_focal, world_to_view
from spice.core import DataError
from spice.keypoints import FLIP, Keypoints

def cameras(b=4, size=(96, 128)):
    near = torch.rand(b, 3) + torch.tensor([-.5, -.5, 3.])
    return Camera(100 + 50*torch.rand(b), torch.tensor([size[1]/2, size[0]/2]) + torch.randn(b, 2), near, size)

def people(b=4, n=18): return torch.randn(b, n, 3)*.4

def test_project_is_the_pinhole():
    camera, p = cameras(), people()
    seen = camera.project(p).numpy()
    for i in range(4):
        f, (cx, cy), t = camera.focal[i].item(), camera.center[i].numpy(), camera.translation[i].numpy()
        q = p[i].numpy().astype(np.float64) + t
        np.testing.assert_allclose(seen[i], np.stack([f*q[:, 0]/q[:, 2] + cx, f*q[:, 1]/q[:, 2] + cy, q[:, 2]], 1), rtol=1e-5, atol=1e-4)

def test_project_is_differentiable():
    camera = cameras(2)
    camera.translation.requires_grad_()
    p = people(2).requires_grad_()
    camera.project(p).sum().backward()
    assert torch.isfinite(p.grad).all() and camera.translation.grad.abs().min() > 0

def test_one_camera_for_many():
    camera, p = cameras(1), people(5)
    assert torch.equal(camera.project(p)[3:4], camera.project(p[3:4]))

def test_behind_the_camera_is_finite():
    camera = cameras(1)
    seen = camera.project(torch.tensor([[[0., 0, -10], [1, 1, -camera.translation[0, 2].item()], [.1, .2, -3.5]]]))
    assert torch.isfinite(seen).all() and (seen[0, :2, 2] <= 1e-6).all()

@pytest.mark.parametrize('size', [224, 256, (256, 176), (128, 64), (100, 300)])
def test_weak_perspective(size):
    weak = torch.tensor([[.9, .05, .1], [.4, -.3, .2], [1.3, 0, 0]])
    camera = Camera.from_weak(weak, size)
    h, w = camera.size
    n = max(h, w)
    assert torch.allclose(camera.to_weak(), weak, atol=1e-5)
    assert torch.allclose(camera.translation[:, 2], 2*FOCAL_224/(224*weak[:, 0]), rtol=1e-6)      # as SPIN writes it
    assert spin_focal(size) == pytest.approx(5000*n/224)
    p = people(3)*torch.tensor([1, 1, 0.])                                                         # a flat person: exact
    xy = camera.project(p)[..., :2]
    assert torch.allclose(xy, (weak[:, None, :1]*(p[..., :2] + weak[:, None, 1:]))*n/2 + torch.tensor([w/2, h/2]), atol=1e-3)

def test_weak_numbers_of_a_cropped_camera():
    weak = torch.tensor([[.8, .1, -.2]])
    camera = Camera.from_weak(weak, 256).crop((32, 16, 224, 208))
    p = people(1)*torch.tensor([1, 1, .2])
    again = Camera.from_weak(camera.to_weak(), camera.size)
    assert (again.project(p) - camera.project(p))[..., :2].abs().max() < .5                        # other focal length, same look

MOVES = [('crop', [(5, -7, 70, 90)]), ('resize', [(192, 256)]), ('resize', [(31, 200)]), ('resize', [64]), ('flip', [])]

@pytest.mark.parametrize('name, args', MOVES)
def test_camera_moves_as_keypoints_do(name, args):
    camera, p = cameras(), people()
    kps = Keypoints(torch.cat([camera.project(p)[..., :2], torch.ones(4, 18, 1)], -1), camera.size)
    moved = getattr(camera, name)(*args)
    q = p*torch.tensor([-1, 1, 1]) if name == 'flip' else p
    other = getattr(kps, name)(*args)
    xy = other.xy[:, list(FLIP)] if name == 'flip' else other.xy                  # the mirror swaps names too
    assert moved.size == other.size
    assert torch.allclose(moved.project(q)[..., :2], xy, atol=1e-3)
    assert torch.allclose(moved.project(q)[..., 2], camera.project(p)[..., 2])

def test_moves_can_be_undone():
    camera, p = cameras(), people()
    h, w = camera.size
    for back in (camera.flip().flip(), camera.resize((200, 77)).resize((h, w)), camera.crop((3, 4, 50, 60)).crop((-3, -4, w - 3, h - 4))):
        assert torch.allclose(back.project(p), camera.project(p), atol=1e-3) and back.size == (h, w)
    assert camera.resize(camera.size).focal.ndim == 1 and camera.resize((200, 77)).focal.shape == (4, 2)

def test_stretched_camera_goes_on():
    camera, p = cameras().resize((50, 200)), people()
    x = camera.crop((10, 5, 60, 45)).flip()[1:3].project(p[1:3]*torch.tensor([-1., 1, 1]))[..., 0]
    assert torch.allclose(x, 50 - (camera.project(p)[1:3, :, 0] - 10), atol=1e-3)
    assert camera.to_weak().shape == (4, 3)

def test_pick_and_move():
    camera = cameras(4)
    assert len(camera[1:3]) == 2 and len(camera[torch.tensor([True, False, False, False])]) == 1
    assert torch.equal(camera[[2]].focal, camera.focal[2:3]) and camera.to('cpu').size == camera.size
    assert '4' in repr(camera) and '128 x 96' in repr(camera)

def test_upright_person():
    rotmats = torch.cat([rest_pose(2)[:, :1], roma.random_rotmat((2, 23))], 1)
    turned = world_to_view(rotmats)
    assert torch.equal(turned[:, 1:], rotmats[:, 1:])
    assert torch.allclose(turned[:, 0], roma.rotvec_to_rotmat(torch.tensor([math.pi, 0, 0])).expand(2, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(turned[:, 0]), torch.ones(2))
    assert torch.equal(points_to_view(torch.tensor([1., 2, 3])), torch.tensor([1., -2, -3]))

def test_pose_and_points_turn_alike():
    body = load_body('free')
    world = torch.cat([roma.random_rotmat((2, 1)), rest_pose(2)[:, 1:]], 1)
    a, _ = body.skeleton(world, torch.zeros(2, 10))
    b, _ = body.skeleton(world_to_view(world), torch.zeros(2, 10))
    assert torch.allclose(points_to_view(a - a[:, :1]), b - b[:, :1], atol=1e-5)

@pytest.mark.parametrize('size', [256, (256, 176), (64, 128)])
@pytest.mark.parametrize('focal', [None, 1000., 200.])
@pytest.mark.parametrize('fill', [.9, .5])
def test_frame_body(size, focal, fill):
    p = torch.randn(3, 500, 3)*torch.tensor([.25, .45, .15]) + torch.tensor([1., -2, .5])
    camera = frame_body(p, size, fill, focal)
    seen = camera.project(p)
    low, high, frame = seen[..., :2].amin(1), seen[..., :2].amax(1), torch.tensor(camera.size[::-1])
    assert torch.allclose(((high - low)/frame).amax(1), torch.full((3,), fill), atol=2e-3)
    assert torch.allclose((low + high)/2, (frame/2).expand(3, 2), atol=.2)
    assert (seen[..., 2] > 0).all()

def test_frame_body_takes_a_lens_each():
    p = people(3, 100)
    focal = torch.tensor([300., 1000, 5000])
    camera = frame_body(p, 128, focal=focal)
    assert torch.equal(camera.focal, focal) and (camera.translation[1:, 2] > camera.translation[:-1, 2]).all()

BAD = [
    (lambda: Camera(torch.ones(2), torch.ones(2, 3), torch.ones(2, 3), (8, 8)), 'center of shape [2, 3]'),
    (lambda: Camera(torch.ones(2, 3), torch.ones(2, 2), torch.ones(2, 3), (8, 8)), 'focal of shape [2, 3]'),
    (lambda: Camera(torch.ones(2), torch.ones(2, 2), torch.ones(1, 3), (8, 8)), 'translation of shape [1, 3]'),
    (lambda: Camera(torch.ones(1), torch.ones(1, 2), torch.ones(1, 3), (0, 8)), 'no picture size'),
    (lambda: cameras(2).project(torch.ones(3, 5, 3)), 'points of shape [3, 5, 3] for 2 cameras'),
    (lambda: cameras(2).project(torch.ones(2, 5, 2)), 'points of shape [2, 5, 2]'),
    (lambda: cameras(2).crop((1, 2, 3)), 'no box'),
    (lambda: cameras(2).crop((10, 10, 5, 20)), 'no picture size'),
    (lambda: cameras(2).resize((-3, 4)), 'no picture size'),
    (lambda: Camera.from_weak(torch.ones(2, 4)), 'weak-perspective numbers of shape [2, 4]'),
    (lambda: frame_body(people(), 64, fill=0.), 'fill is 0'),
]

@pytest.mark.parametrize('make, message', BAD, ids=[m for _, m in BAD])
def test_bad_input(bad_input, make, message):
    with pytest.raises(DataError) as e: make()
    assert message in str(e.value) and '\n' not in str(e.value)
