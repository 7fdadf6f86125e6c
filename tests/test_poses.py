"""Poses: chance by number, feet on the floor, hands out of the body, motions."""
import numpy as np
import pytest
import torch
from spice.body import JOINTS, load_body
from spice.contact import penetration, turn_about
from spice.core import DataError
from spice.people.motions import MOTIONS, motion
from spice.people.poses import (POSES, bells, chance, draw_rows, draw_yaw, get, limb, mirror, pose_row, pose_rows, sample_poses, settle, shake,
                         shape_of, smallest_turn, solve, turn, two_bones)

PINNED = [[0.445048719515, 0.912896642333], [0.480820411354, 0.649496703759], [0.373381956114, 0.335941674696]]

@pytest.fixture(scope='module')
def body(): return load_body('free')

def people(n, seed=0): return torch.as_tensor(bells(np.arange(n) + seed*1000, 'test people', 10, limit=2.2), dtype=torch.float32)

def test_chance_is_pinned():
    "The numbers of a seed never change: photos depend on them"
    assert chance([0, 1, 2**50], 'pin', 2).round(12).tolist() == PINNED

def test_chance_is_even_and_independent():
    u = chance(np.arange(50_000), 'even', 3)
    assert (np.histogram(u, 20, (0, 1))[0]/7500 - 1).__abs__().max() < .06
    assert np.abs(np.corrcoef(u.T) - np.eye(3)).max() < .02

def test_turns_against_roma():
    roma = pytest.importorskip('roma')
    degrees = torch.randn(20, 3)*60
    expected = roma.euler_to_rotmat('YXZ', degrees[:, [1, 0, 2]], degrees=True)
    assert (turn(degrees) - expected).abs().max() < 1e-5
    axis, angle = torch.nn.functional.normalize(torch.randn(20, 3), dim=1), torch.randn(20)
    assert (turn_about(axis, angle) - roma.rotvec_to_rotmat(axis*angle[:, None])).abs().max() < 1e-5

def test_smallest_turn_is_small():
    a, b = torch.randn(2, 50, 3)
    R = smallest_turn(a, b)
    assert torch.nn.functional.cosine_similarity((R@a[..., None])[..., 0], b).min() > 1 - 1e-5
    angle = torch.arccos(((R.diagonal(dim1=1, dim2=2).sum(1) - 1)/2).clamp(-1, 1))
    between = torch.arccos(torch.nn.functional.cosine_similarity(a, b).clamp(-1, 1))
    assert (angle - between).abs().max() < 2e-3

def test_two_bones_reach_or_stretch():
    target = torch.randn(100, 3)*.5
    l1, l2 = torch.full((100,), .4), torch.full((100,), .35)
    u, f = two_bones(target, l1, l2, torch.randn(100, 3))
    end, d = .4*u + .35*f, target.norm(dim=1)
    near = (d > .08) & (d < .74)
    assert near.sum() > 30 and (end - target)[near].norm(dim=1).max() < 1e-4
    assert (end.norm(dim=1)[d > .76] > .74).all()

@pytest.mark.parametrize('name', POSES)
def test_every_pose_stands(body, name):
    "Rotations are rotations, hands out of the body, and the feet that should be on the floor are"
    betas, row = people(4), pose_rows([name]*4)
    R, height = settle(row, body, betas)
    assert (R@R.mT - torch.eye(3)).abs().max() < 1e-4 and (torch.linalg.det(R) - 1).abs().max() < 1e-4
    assert penetration(R, body, betas).max() < .01
    posed = body(R, betas)
    floor, weights = posed.joints[:, 0, 1] - height, body.smpl.lbs_weights
    for side, (ankle, toes) in enumerate(((7, 10), (8, 11))):
        foot = weights[:, [ankle, toes]].sum(1) > .6
        low = posed.verts[:, foot, 1].amin(1) - floor
        if row[0, :].numel() and get(row, 'free')[0, side] < .5: assert low.abs().max() < .03, (name, low)
        else: assert low.min() > -.03

def test_feet_stay_on_the_floor_by_chance(body):
    "For shaken poses of all kinds of people"
    rows = draw_rows(np.arange(120))
    betas = people(120)
    R, height = solve(rows, shape_of(body, betas))
    posed = body(R, betas)
    low = posed.verts[..., 1].amin(1) - (posed.joints[:, 0, 1] - height)
    assert low.abs().median() < .006 and low.abs().max() < .05

def test_self_penetration_of_500(body):
    betas = people(500, 3)
    R, _ = settle(draw_rows(np.arange(500) + 10_000), body, betas)
    assert penetration(R, body, betas).max() < .01

def test_mirror_mirrors_the_body(body):
    "The mirrored row is the mirrored person"
    rows = pose_rows(['hand_on_hip', 'walk', 'throw', 'sit_crossed'])
    joints = lambda r: body.skeleton(solve(r, shape_of(body, torch.zeros(len(r), 10)))[0], torch.zeros(len(r), 10))[0]
    swap = [JOINTS.index(o.replace('left', '#').replace('right', 'left').replace('#', 'right')) for o in JOINTS]
    assert (joints(mirror(rows))[:, swap]*torch.tensor([-1., 1, 1]) - joints(rows)).abs().max() < .01

def test_a_photo_does_not_know_its_batch(body):
    one, many = sample_poses(3, seed=5, body=body), sample_poses(20, seed=5, body=body)
    assert (one - many[:3]).abs().max() < 1e-5

def test_yaw_keeps_its_limit():
    assert np.abs(draw_yaw(np.arange(2000), 30.)).max() <= 30
    free = np.abs(draw_yaw(np.arange(5000)))
    assert free.max() > 175 and .5 < (free < 35).mean() < .66

def test_shaking_leaves_touches_alone():
    rows = shake(pose_rows(['hands_on_hips']*10), np.arange(10))
    assert (get(rows, 'touch') == get(pose_rows(['hands_on_hips']*10), 'touch')).all()
    assert get(rows, 'upper').std(0).min() > .01

@pytest.mark.parametrize('name', MOTIONS)
def test_motions_move_smoothly(body, name):
    rows = motion(name, 72)
    R, height = solve(rows, shape_of(body, torch.zeros(72, 10)))
    joints = body.skeleton(R, torch.zeros(72, 10))[0]
    seconds = MOTIONS[name][-1][0]/71
    assert joints.diff(dim=0).norm(dim=-1).max()/seconds < 6                 # metres a second: the hand of a quick wave
    assert height.diff().abs().max() < .06

def test_bad_names(bad_input):
    with pytest.raises(DataError, match="no pose 'moonwalk'"): pose_row('moonwalk')
    with pytest.raises(DataError, match="no motion 'moonwalk'"): motion('moonwalk')
    with pytest.raises(DataError, match='motion of 1 frames'): motion('walk', 1)

def test_limb_gives_the_directions():
    down, out = torch.tensor([[0., -1, 0]]), torch.tensor([[1., 0, 0]])
    upper, lower = torch.nn.functional.normalize(torch.randn(30, 3), dim=1), torch.nn.functional.normalize(torch.randn(30, 3), dim=1)
    first, second = limb(upper, lower, down.expand(30, 3), down.expand(30, 3), out[0], torch.tensor([0., 0, -1]))
    assert ((first@down[0]) - upper).abs().max() < 1e-4
    assert ((first@second@down[0]) - lower).abs().max() < 1e-4
