"What a named pose says about a person, and what stays as it is in the photo"
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ImageDraw

import spice.video # noqa: F401
from spice.camera import world_to_view
from spice.contact import follow, penetration, turn_about
from spice.core import DataError, seeded
from spice.gestures import GESTURES, LOOKS, MOTION_PARTS, NECK, POSE_PARTS, heading, joints_of, named_turns, said, standing, with_parts
from spice.infer import demo_person, repose, spice_repose
from spice.keypoints import Keypoints
from spice.people.poses import POSES
from spice.pose_editor import bend, limb_of
from spice.reposer import Reposer
from spice.rig import ACTIVE
from spice.sources import cut
from spice.train import make_system

@pytest.fixture(scope='module')
def person(): return demo_person(23, 128, 60.)

@pytest.fixture(scope='module')
def tool():
    with seeded(0): return Reposer(make_system('guided', 'tiny'), device='cpu')

@pytest.fixture(scope='module')
def seen(tool, person): return tool.see(person[0], person[1]['keypoints'], matte=person[1]['matte'])

@pytest.fixture(scope='module')
def other(tool):
    photo, known = demo_person(11, 128, 60.)
    return tool.see(photo, **known)

def global_turns(R): return follow(R, R.new_zeros(len(R), 24, 3))[0]

@pytest.mark.parametrize('name', GESTURES)
def test_a_gesture_moves_arms_only(tool, seen, name):
    aim, own = tool.aim(name, seen), seen.fits
    arms = joints_of(GESTURES[name])
    others = [j for j in range(24) if j not in arms]
    assert torch.allclose(aim.rotmats[:, others], own.rotmats[:, others], atol=1e-6)
    assert (aim.rotmats[:, arms] - own.rotmats[:, arms]).abs().max() > .1
    before = penetration(world_to_view(own.rotmats), tool.body, own.betas)[0, 0]
    assert penetration(world_to_view(aim.rotmats), tool.body, own.betas)[0, 0] < max(.01, before + .002)

def test_a_gesture_that_fits_leaves_the_rest_of_the_photo(tool, seen, person):
    aim = tool.aim('hands_on_hips', seen)
    assert torch.allclose(aim.camera.translation, seen.fits.camera.translation, atol=1e-5)
    portrait = tool.portrait(seen)
    made, = portrait.picture(aim.rotmats, aim.camera, 128)
    photo, stays = np.asarray(cut(seen.photo, seen.box, (128, 128))), portrait.stays[0, 0].numpy()
    assert .2 < (stays == 1).mean() < .95
    assert np.array_equal(np.asarray(made)[stays == 1], photo[stays == 1]) and not np.array_equal(np.asarray(made), photo)
    pasted = np.asarray(portrait.pasted(aim.rotmats, aim.camera))
    assert pasted.shape == np.asarray(seen.photo).shape and np.array_equal(pasted[-20:], np.asarray(seen.photo)[-20:])

def test_nothing_stays_where_everything_moves(tool, seen):
    portrait, aim = tool.portrait(seen), tool.aim('walk', seen, parts='all')
    portrait.picture(aim.rotmats, aim.camera, 128)
    assert not portrait.stays.any()

@pytest.mark.parametrize('name', [o for o in POSES if o not in GESTURES])
def test_other_poses_keep_where_people_face_and_look(tool, seen, name):
    own, new = world_to_view(seen.fits.rotmats), world_to_view(tool.aim(name, seen).rotmats)
    whole = world_to_view(tool.aim(name, seen, parts='all').rotmats)
    turned = (heading(new) - heading(own) - heading(whole) + math.pi) % (2*math.pi) - math.pi
    mirrored = (heading(new) - heading(own) + heading(whole) + math.pi) % (2*math.pi) - math.pi
    assert min(turned.abs(), mirrored.abs()) < .02
    between = global_turns(own)[:, 15].mT@global_turns(new)[:, 15]
    angle = ((between[0].trace() - 1)/2).clamp(-1, 1).acos()
    assert angle > .2 if name in LOOKS else angle < .02 or _at_the_limit(new)

def _at_the_limit(R):
    turns = global_turns(R)
    return abs(((turns[:, 9].mT@turns[:, 15])[0].trace() - 1)/2 - math.cos(NECK)) < 1e-3

def test_who_looks_around_turns_towards_the_camera(tool, seen):
    own = world_to_view(seen.fits.rotmats)
    flipped = own.clone()
    flipped[:, 0] = turn_about(torch.tensor([[0., 1, 0]]), -2*heading(own))@own[:, 0]
    for R in (own, flipped):
        assert abs(heading(R)) > .3
        looks = global_turns(said('turning', R, tool.body, seen.fits.betas))[0, 15, :, 2]
        assert looks[2] > .5, 'away from the camera'

def moved_arm(tool, seen):
    moved = (tool.aim('wave', seen).rotmats - seen.fits.rotmats).abs().amax((0, 2, 3)) > 1e-4
    arm, = [o for o in ('left_arm', 'right_arm') if set(moved.nonzero()[:, 0].tolist()) <= set(POSE_PARTS[o]) and moved.any()]
    return arm

def test_a_hidden_arm_leaves_it_to_the_other(tool):
    photo, known = demo_person(6, 128, 0.)
    front = tool.see(photo, known['keypoints'], matte=known['matte'])
    for hidden, arm in (((False, False), 'left_arm'), ((True, False), 'right_arm'), ((True, True), 'left_arm'), ((False, True), 'left_arm')):
        assert moved_arm(tool, replace(front, hidden=torch.tensor([hidden]))) == arm, hidden

@pytest.mark.parametrize('joint, arm', [(20, 'right_arm'), (21, 'left_arm')])
def test_the_hand_with_a_bag_stays(tool, joint, arm):
    photo, known = demo_person(6, 128, 0.)
    front = tool.see(photo, known['keypoints'], matte=known['matte'])
    fits, (left, top, right, _) = front.fits, front.box
    hand = fits.camera.project(tool.body.skeleton(fits.rotmats, fits.betas)[0])[0, joint, :2]*(right - left)/tool.size[0]
    x, y = hand[0] + left, hand[1] + top
    matte = front.matte.copy()
    ImageDraw.Draw(matte).rectangle([*map(float, (x - 12, y + 3, x + 12, y + 26))], fill=255)
    assert moved_arm(tool, replace(front, matte=matte)) == arm

def test_parts_of_another_pose(tool, seen, other):
    own, theirs = seen.fits.rotmats, other.fits.rotmats
    legs = tool.aim(theirs, seen, parts='legs, head').rotmats
    taken = [j for o in ('legs', 'head') for j in POSE_PARTS[o]]
    for j in range(24): assert torch.equal(legs[:, j], (theirs if j in taken else own)[:, j]), j
    assert torch.equal(tool.aim(theirs, seen).rotmats, tool.aim(theirs, seen, parts='all').rotmats)
    joints = tool.aim(other.keypoints, seen, parts='arms').rotmats
    assert torch.equal(joints[:, POSE_PARTS['legs']], own[:, POSE_PARTS['legs']])
    assert not torch.equal(joints[:, POSE_PARTS['arms']], own[:, POSE_PARTS['arms']])
    assert torch.equal(with_parts(own, theirs, None), theirs)

def test_systems_of_the_papers_take_whole_poses(person):
    with seeded(0): spice = Reposer(make_system('spice', 'tiny'), device='cpu')
    known = dict(keypoints=person[1]['keypoints'])
    seen = spice.see(person[0].resize(spice.size[::-1]), known['keypoints'].resize(spice.size))
    whole = named_turns('wave', spice.body, seen.fits.betas)
    assert torch.equal(spice.aim('wave', seen).rotmats, whole)

@pytest.mark.parametrize('parts', ['nose', 'arms,nose', '', ',', 3, ['arms'], 'ALL'])
def test_no_part(tool, person, parts):
    with pytest.raises(DataError, match='Take all, or some of left_arm'): repose(person[0], 'walk', tool, parts=parts, **person[1])

def test_parts_beside_joints_as_they_are(tool, person, other):
    with pytest.raises(DataError, match='parts beside retarget=False'):
        repose(person[0], other.keypoints, tool, parts='arms', retarget=False, **person[1])

def test_the_command(tmp_path, person):
    person[0].save(tmp_path/'me.png')
    with pytest.raises(DataError, match='Take all, or some of left_arm'):
        spice_repose(str(tmp_path/'me.png'), 'wave', str(tmp_path/'out'), parts='nose')
    assert not (tmp_path/'out'/'me_wave.png').exists()

@pytest.mark.parametrize('joint, limb', [(4, 'right_arm'), (6, 'left_arm'), (10, 'right_leg'), (12, 'left_leg')])
def test_a_pulled_hand_moves_its_arm_only(tool, seen, joint, limb):
    own = seen.fits
    points = tool.joints_at(own.rotmats, own.betas, own.camera).clone()
    points[..., 2] = .1
    points[0, joint] += points.new_tensor([6., -4, .9])
    now, limb_of_it = own, limb_of(joint)
    rotmats, camera = bend(tool.fitter, now, Keypoints(points, tool.size), 24, limb_of_it)
    still = [j for j in range(24) if j not in POSE_PARTS[limb]]
    assert (rotmats[:, still] - own.rotmats[:, still]).abs().max() == 0
    assert (camera.translation - own.camera.translation).abs().max() == 0
    found = tool.joints_at(rotmats, own.betas, camera)[0, joint, :2]
    far = (tool.joints_at(own.rotmats, own.betas, own.camera)[0, joint, :2] - points[0, joint, :2]).norm()
    assert (found - points[0, joint, :2]).norm() < .5*far
    portrait = tool.portrait(seen)
    portrait.picture(rotmats, camera, 128)
    assert (portrait.stays == 1).float().mean() > .05

def test_a_pulled_neck_moves_all():
    assert limb_of(1) == limb_of(0) == limb_of(11) == ACTIVE

@pytest.mark.parametrize('name, part', MOTION_PARTS.items())
def test_a_motion_begins_with_the_photo_and_moves_what_its_name_says(tool, seen, name, part):
    aims, own = tool.named_motion(name, seen, 12), seen.fits
    assert (aims.rotmats[[0, -1]] - own.rotmats).abs().max() < 1e-4
    moved = (aims.rotmats - own.rotmats).abs().amax((0, 2, 3)) > 1e-4
    parts = {part} if part == 'legs' else {'left_arm', 'right_arm'}
    assert any(set(moved.nonzero()[:, 0].tolist()) <= set(POSE_PARTS[o]) for o in parts) and moved.any()
    if part != 'legs': assert torch.allclose(aims.camera.translation, own.camera.translation.expand(len(aims), 3), atol=1e-3)
    portrait = tool.portrait(seen)
    first, = portrait.picture(aims[0].rotmats, aims[0].camera, 128)
    assert np.abs(np.asarray(first, int) - np.asarray(cut(seen.photo, seen.box, (128, 128))))[10:-10, 14:-3].max() <= 1

def test_who_sits_gets_up_to_walk(tool):
    photo, known = demo_person(3, 128, 60.)
    sitting = tool.see(photo, known['keypoints'], matte=known['matte'])
    assert not standing(world_to_view(sitting.fits.rotmats))
    aims = tool.named_motion('walk', sitting, 12)
    assert standing(world_to_view(aims.rotmats)).all()

@pytest.mark.parametrize('name', ['wave', 'walk'])
def test_feet_at_the_photos_edge_stay_there(tool, seen, name):
    "There is no place further away with more room below"
    own, size = seen.fits.camera, tool.size[0]
    low = own.project(tool.body(seen.fits.rotmats, seen.fits.betas).verts)[0, :, 1].max()
    down = own.translation.clone()
    down[:, 1] += (.995*size - low)*own.translation[0, 2]/own.focal_xy[0, 0]
    at_edge = replace(seen, fits=replace(seen.fits, camera=replace(own, translation=down)))
    assert abs(float(tool.aim(name, at_edge).camera.translation[0, 2]/down[0, 2]) - 1) < .13
