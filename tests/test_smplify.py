"""SMPLify: slopes, energies, solver, flags, films, datasets."""
import json, shutil, time
from pathlib import Path
from dataclasses import replace
import numpy as np
import pytest
import roma
import torch
from processes import Running, run
from spice.body import load_body
from spice.camera import Camera
from spice.core import DataError
from spice.sources import PeoplePhotos
from spice.data import Prepared, prepare
from spice.feet import foot_levers, foot_points, turn_feet
from spice.fits import FittedPool, best_path, fit_dataset, fit_piece, solve_band, spice_fit
from spice.keypoints import Keypoints
from spice.people import People
from spice.people.poses import sample_poses
from spice.energy import geman_mcclure
from spice.prior import fit_prior, pose_vectors
from spice.rig import CELLS, REACH, UNKNOWNS, Rig, Skin, State, outline_of, right_jacobian
from spice.energy import FitSettings
from spice.smplify import Fitter, facing, fit_errors, fit_keypoints, procrustes

@pytest.fixture(scope='module')
def fitter(): return Fitter(load_body('free'))

@pytest.fixture(scope='module')
def photos(): return People(256, 'test', device='cpu', samples=1, detail=1).photos(range(16))

def noisy(photos, seed=0, noise=2., dropped=.2):
    g, points = torch.Generator().manual_seed(seed), photos.points.clone()
    points[..., :2] += noise*torch.randn(len(points), 18, 2, generator=g)
    points[..., 2] *= torch.rand(points.shape[:2], generator=g) >= dropped
    return Keypoints(points, photos.size)

def random_state(n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    some = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    return State(roma.rotvec_to_rotmat(some(n, 3)), .4*some(n, 45), some(n, 10), torch.tensor([[.1, .2, 3.8]]).double().repeat(n, 1))

def test_energy_gradient_is_the_solvers():
    fitter = Fitter(load_body('free').double())
    state, g = random_state(), torch.Generator().manual_seed(1)
    points = torch.cat([256*torch.rand(3, 18, 2, generator=g, dtype=torch.float64), torch.rand(3, 18, 1, generator=g, dtype=torch.float64)], 2)
    camera = Camera(torch.full((3,), 5000.).double(), torch.full((3, 2), 128.).double(), torch.zeros(3, 3).double(), (256, 256))
    seen = fitter.look_at(Keypoints(points, (256, 256)), camera)
    step = torch.zeros(3, UNKNOWNS, dtype=torch.float64, requires_grad=True)
    fitter.energy(state.moved(step), seen)[0].sum().backward()
    total, H, gradient = fitter.normal(state, seen)
    assert torch.allclose(step.grad, gradient, atol=1e-6, rtol=1e-6)
    assert torch.allclose(H, H.mT) and torch.linalg.eigvalsh(H).min() > 0
    assert torch.allclose(total, fitter.energy(state, seen)[0])

def all_known(fitter, n, size=256, seed=1):
    "Wild keypoints, some outside the picture, depths and a matte"
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=g, dtype=fitter.body.rest.dtype)
    points, one = torch.cat([1.4*size*rand(n, 18, 2) - .2*size, rand(n, 18, 1)], 2), rand(n)*0 + 1
    camera, matte = Camera(400*one, one[:, None].expand(n, 2)*size/2, torch.zeros(n, 3).to(points), (size, size)), torch.zeros(n, 1, size, size).to(points)
    matte[..., 60:140, 60:140] = 1
    return fitter.look_at(Keypoints(points, (size, size)), camera, rand(n, 18, 3) - .5, matte)

@pytest.mark.parametrize('left', ['all', 'lean', 'outline', 'loose'])
def test_gradient_with_all_that_is_known(left):
    fitter = Fitter(load_body('free').double())
    state, seen = random_state(), all_known(fitter, 3)
    state.place[:, 2] = 1.3
    if left in ('outline', 'loose'): seen.lean = None
    if left in ('lean', 'loose'): seen.outline = None
    if left != 'loose' and left != 'all': seen.loose = seen.loose*0
    assert left != 'loose' or seen.loose.max() > .1
    step = torch.zeros(3, UNKNOWNS, dtype=torch.float64, requires_grad=True)
    fitter.energy(state.moved(step), seen)[0].sum().backward()
    total, H, gradient = fitter.normal(state, seen)
    assert torch.allclose(step.grad, gradient, atol=1e-6, rtol=1e-6)
    assert torch.allclose(total, fitter.energy(state, seen)[0]) and torch.linalg.eigvalsh(H).min() > 0

def test_skin_moves_as_its_slopes_say():
    skin, state = Skin(load_body('free').double(), 30), random_state(2)
    def see(step):
        (u, v), z = skin.seen(moved := state.moved(step), skin.pose(moved)[2])
        return torch.stack([u, v, z]).permute(2, 1, 0).flatten(1).sum(0)
    slopes = torch.autograd.functional.jacobian(see, torch.zeros(2, UNKNOWNS, dtype=torch.float64)).permute(1, 0, 2)
    assert torch.allclose(skin.derivative(state, deep=True)[2].flatten(1, 2), slopes, atol=1e-9)

@pytest.mark.parametrize('h, w', [(256, 256), (200, 120), (64, 300)])
def test_outline_against_all_pairs(h, w):
    g = torch.Generator().manual_seed(0)
    matte = torch.nn.functional.interpolate(torch.rand(2, 1, 8, 8, generator=g), (h, w), mode='bilinear')
    outline = outline_of(matte, Camera(torch.ones(2), torch.zeros(2, 2), torch.zeros(2, 3), (h, w)))
    n, rows, cols = outline.distance.shape
    assert max(rows, cols) == CELLS
    small = torch.nn.functional.adaptive_avg_pool2d(matte, (rows, cols))[:, 0] > .5
    cells = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing='ij'), 2).flatten(0, 1).float()
    for i in range(n):
        far = torch.cdist(cells, cells[small[i].flatten()]).amin(1).clamp(max=REACH)
        true = ((far - .5).clamp(min=0)*256/CELLS).view(rows, cols)
        assert (outline.distance[i] - true).abs()[far.view(rows, cols) < REACH - 1].max() < 1e-3

def test_right_jacobian_against_differences():
    v = torch.tensor([[.3, -.8, .5], [1e-5, 0, 0]], dtype=torch.float64)
    for i in range(3):
        d = torch.zeros(3, dtype=torch.float64)
        d[i] = 1e-6
        turned = roma.rotmat_to_rotvec(roma.rotvec_to_rotmat(v).mT@roma.rotvec_to_rotmat(v + d))/1e-6
        assert torch.allclose(right_jacobian(v)[..., i], turned, atol=1e-4)

def test_state_moved_and_minus_are_inverse():
    a, b = random_state(seed=1), random_state(seed=2)
    there = a.moved(b.minus(a))
    assert all(torch.allclose(getattr(there, k), getattr(b, k), atol=1e-9) for k in ('root', 'pose', 'betas', 'place'))

def test_geman_mcclure_by_hand():
    assert torch.allclose(geman_mcclure(torch.tensor([0., 1., 3.])), torch.tensor([0., .25, .375]))

def test_people_are_found(fitter, photos):
    fits = fit_keypoints(fitter.body, noisy(photos), fitter=fitter)
    e = fit_errors(fitter.body, fits, photos)
    assert e['reprojection'].mean() < 3 and e['joints'].mean() < 70 and e['aligned'].mean() < 50 and (e['facing'] < 45).all()
    assert fits.good.float().mean() > .8 and (fits.error < 4).all()

def test_batches_do_not_matter(fitter, photos):
    k = noisy(photos)
    whole, parts = fit_keypoints(fitter.body, k, fitter=fitter), fit_keypoints(fitter.body, k, fitter=fitter, batch=5)
    assert torch.allclose(whole.rotmats, parts.rotmats, atol=2e-3) and torch.equal(whole.good, parts.good)

@pytest.mark.parametrize('size', [64, 512])
def test_any_picture_size(fitter, photos, size):
    k, scale = noisy(photos[:4], dropped=0.), size/256
    points = k.points.clone()
    points[..., :2] *= scale
    fits = fit_keypoints(fitter.body, Keypoints(points, (size, size)), fitter=fitter)
    usual = fit_keypoints(fitter.body, k, fitter=fitter)
    assert torch.allclose(fits.error, usual.error, atol=.02) and torch.allclose(fits.rotmats, usual.rotmats, atol=.02)

def test_wild_keypoints_are_flagged_and_resisted(fitter, photos):
    k, g = noisy(photos, dropped=0.), torch.Generator().manual_seed(3)
    calm = fit_errors(fitter.body, fit_keypoints(fitter.body, k, fitter=fitter), photos)['joints']
    for i in range(len(photos)): k.points[i, torch.randperm(18, generator=g)[:4], :2] += 60*torch.randn(4, 2, generator=g)
    fits = fit_keypoints(fitter.body, k, fitter=fitter)
    wild = fit_errors(fitter.body, fits, photos)['joints']
    trusting = Fitter(fitter.body, settings=FitSettings(robust=100.))
    naive = fit_errors(fitter.body, fit_keypoints(fitter.body, k, fitter=trusting), photos)['joints']
    assert not fits.good.any()
    assert wild.mean() < .6*naive.mean() and calm.mean() < wild.mean()

@pytest.mark.parametrize('count, good', [(0, False), (1, False), (2, False), (5, False), (18, True)])
def test_few_keypoints(fitter, photos, count, good):
    k = noisy(photos[:2], dropped=0.)
    k.points[:, count:, 2] = 0
    fits = fit_keypoints(fitter.body, k, fitter=fitter)
    assert bool(fits.good.all()) == good and torch.isfinite(fits.rotmats).all() and torch.isfinite(fits.camera.translation).all()
    assert torch.isinf(fits.error).all() == (count == 0)

def test_missing_ones_have_no_say(fitter, photos):
    k = noisy(photos[:3])
    moved = Keypoints(torch.where(k.points[..., 2:] > 0, k.points, torch.tensor([-999., 999., 0.])), k.size)
    a, b = (fit_keypoints(fitter.body, o, fitter=fitter) for o in (k, moved))
    assert torch.equal(a.rotmats, b.rotmats)

def test_warm_start_stays_near(fitter, photos):
    k = noisy(photos)
    first = fit_keypoints(fitter.body, k, fitter=fitter)
    again = fit_keypoints(fitter.body, k, start=first, fitter=fitter)
    assert (again.energy <= first.energy + 1e-3).all()
    near_truth = fit_keypoints(fitter.body, k, start=photos, fitter=fitter)
    assert fit_errors(fitter.body, near_truth, photos)['joints'].mean() < 60

def test_bad_input(fitter, photos, bad_input):
    k = noisy(photos[:2])
    with pytest.raises(DataError, match='no keypoints'): fit_keypoints(fitter.body, Keypoints(torch.zeros(0, 18, 3), (256, 256)), fitter=fitter)
    k.points[0, 0, 0] = float('nan')
    with pytest.raises(DataError, match='NaN'): fit_keypoints(fitter.body, k, fitter=fitter)
    with pytest.raises(DataError, match='1 bodies to start from for 2'): fit_keypoints(fitter.body, noisy(photos[:2]), start=photos[:1], fitter=fitter)
    fits = fit_keypoints(fitter.body, noisy(photos[:2]), fitter=fitter)
    with pytest.raises(Exception, match='body'): fit_keypoints(fitter.body, noisy(photos[:2]), start=replace(fits, body='0'*16), fitter=fitter)

def test_procrustes_and_facing():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(4, 24, 3, generator=g)
    assert torch.allclose(procrustes(.7*a@roma.random_rotmat(4) + 3, a), a, atol=1e-4)
    R = torch.eye(3).repeat(2, 24, 1, 1)
    R[0, 0], R[1, 0] = torch.diag(torch.tensor([1., -1, -1])), torch.diag(torch.tensor([-1., -1, 1]))   # towards the camera, away from it
    assert torch.allclose(facing(R).abs(), torch.tensor([0., 180.]))

def test_constants_of_the_rig_follow_the_body():
    exact = Rig(load_body('free').double())
    assert exact.lever.dtype == torch.float64 and len(exact.pair_joint) == len(exact.pair_keypoint)

# what BlazePose adds

def believed(photos, body, seed=4):
    "3D joints as a detector gives them: flattened, 5 cm off"
    g, at = torch.Generator().manual_seed(seed), body.skeleton(photos.rotmats, photos.betas)[1]
    return (at - at[:, [8, 11]].mean(1, keepdim=True) + .05*torch.randn(len(at), 18, 3, generator=g))*torch.tensor([1., 1, .6])

def test_heads_face_where_the_face_points_say(fitter, photos):
    "Joints with the noise of a detector, face points with a third of it: believed as exact as they are, they turn the head"
    g, landmarks = torch.Generator().manual_seed(2), fitter.landmarks
    state = fitter.state_of(photos)
    at = landmarks.seen(state, landmarks.pose(state)[2])[0].permute(2, 1, 0)              # the places that BlazePose's points mean
    camera, face = photos.camera, [0, 14, 15, 16, 17]
    xy = at*camera.focal_xy[:, None] + camera.center[:, None]
    noise = torch.full((18, 1), 2.5)
    noise[face] = .8
    k = Keypoints(torch.cat([xy + noise*torch.randn(xy.shape, generator=g), torch.full_like(xy[..., :1], .99)], 2), photos.size)
    def off(face):
        own = Fitter(fitter.body, settings=FitSettings(face=face))
        fits = fit_keypoints(own.body, k, camera, fitter=own, joints3d=believed(photos, own.body))
        turn = lambda R: R[:, 0]@R[:, 3]@R[:, 6]@R[:, 9]@R[:, 12]@R[:, 15]
        return (turn(fits.rotmats)[..., 2]*turn(photos.rotmats)[..., 2]).sum(1).clamp(-1, 1).acos().rad2deg().mean()
    exact, plain = off(3.), off(1.)
    assert exact < .9*plain
    other = Fitter(fitter.body, settings=FitSettings(offsets=False))
    assert other.face == 1., 'where it is not known which places the points mean, they are not that exact'

def test_scores_of_one_and_zero_are_as_before(fitter, photos):
    "Trust, guesses and hanging limbs have no say in plain 2D"
    k = noisy(photos[:6])
    other = Fitter(fitter.body, settings=FitSettings(trust=1., beyond=1e9, hang=1e9, hidden=0., depth=0., offsets=False, outline=float('inf'), strict=(0., 0., 0.)))
    a, b = fit_keypoints(fitter.body, k, fitter=fitter), fit_keypoints(fitter.body, k, fitter=other)
    assert torch.equal(a.rotmats, b.rotmats) and torch.equal(a.good, b.good) and a.good.any()
    far = Keypoints(torch.where(k.points[..., 2:] > 0, k.points + torch.tensor([300., 0, 0]), k.points), k.size)      # outside, but known
    assert fitter.look_at(far, photos.camera[:6]).loose.max() == 0

def test_low_scores_count_less(fitter, photos):
    k = noisy(photos[:8], dropped=0.)
    k.points[:, 4, :2] += 60                                                                              # a wrist gone astray
    errors = []
    for score in (1., .2):
        k.points[:, 4, 2] = score
        errors.append(fit_errors(fitter.body, fit_keypoints(fitter.body, k, fitter=fitter), photos[:8])['reprojection'].mean())
    assert errors[1] < errors[0]

def test_guesses_outside_do_not_pull_and_limbs_hang(fitter, photos):
    k = noisy(photos[:6], dropped=0.)
    legs = [9, 10, 12, 13]
    size = (int(k.points[:, [8, 11], 1].max()) + 4, 256)
    k.points[:, legs, 2] = 0
    none = fit_keypoints(fitter.body, Keypoints(k.points, size), photos.camera[:6], fitter=fitter)
    results = []
    for shift in (0, 80):
        k.points[:, legs, 2], k.points[:, legs, 1] = .02, size[0] + 60. + shift
        results.append(fit_keypoints(fitter.body, Keypoints(k.points, size), photos.camera[:6], fitter=fitter))
    at = [fitter.body.skeleton(o.rotmats, o.betas)[0] for o in results]
    assert (at[0] - at[1]).norm(dim=2).mean() < .02                                                       # wherever they are guessed
    thigh = at[0][:, [4, 5]] - at[0][:, [1, 2]]
    assert (thigh[..., 1]/thigh.norm(dim=2)).acos().rad2deg().mean() < 15
    assert torch.isfinite(none.rotmats).all()

def test_depth_tells_front_from_back(fitter, photos):
    "Hips, shoulders and knees alone look alike from both sides"
    k, deep = noisy(photos, noise=1., dropped=0.), believed(photos, fitter.body)
    k.points[:, [0, 14, 15, 16, 17], 2] = 0
    k.points[:, :, 2] *= .99
    back = deep*torch.tensor([1., 1, -1])
    right = lambda f: (fit_errors(fitter.body, f, photos)['facing'] < 60).float().mean()
    told, lied = (fit_keypoints(fitter.body, k, fitter=fitter, joints3d=o) for o in (deep, back))
    assert right(told) > .9 and fit_errors(fitter.body, told, photos)['joints'].mean() < fit_errors(fitter.body, lied, photos)['joints'].mean() - 20

def test_unknown_depth_is_no_depth(fitter, photos):
    k = noisy(photos[:3])
    own = Fitter(fitter.body, settings=FitSettings(offsets=False, hidden=0.))
    nan = torch.full((3, 18, 3), float('nan'))
    a, b = fit_keypoints(own.body, k, fitter=own), fit_keypoints(own.body, k, fitter=own, joints3d=nan)
    assert torch.allclose(a.rotmats, b.rotmats, atol=1e-4) and torch.allclose(a.error, b.error, atol=1e-4)
    some = believed(photos[:3], fitter.body)
    some[:, 4] = float('nan')
    assert torch.isfinite(fit_keypoints(own.body, k, fitter=own, joints3d=some).rotmats).all()

def test_mattes_bound_the_body_and_empty_ones_do_not_harm(fitter, photos):
    k, person = noisy(photos), (photos.parsing > 0).float()[:, None]
    free, bound, nobody = (fit_keypoints(fitter.body, k, photos.camera, fitter=fitter, matte=o) for o in (None, person, person*0))
    def outside(fits):
        at = fitter.body(fits.rotmats, fits.betas).verts[:, fitter.skin.vertices] + fits.camera.translation[:, None]
        return outline_of(person, fits.camera).look_up(at[..., :2]/at[..., 2:])[0].mean()
    assert outside(bound) < .4*outside(free)
    assert torch.isfinite(nobody.rotmats).all() and (nobody.error - free.error).abs().max() < 1

def test_bad_depths_and_mattes(fitter, photos):
    k = noisy(photos[:2])
    with pytest.raises(DataError, match='joints3d of shape'): fit_keypoints(fitter.body, k, fitter=fitter, joints3d=torch.zeros(2, 17, 3))
    with pytest.raises(DataError, match='matte of shape'): fit_keypoints(fitter.body, k, fitter=fitter, matte=torch.zeros(2, 256, 256))
    with pytest.raises(DataError, match='feet of shape'): fit_keypoints(fitter.body, k, fitter=fitter, feet=torch.zeros(2, 4, 3))

# feet

def feet_at(body, rotmats, betas, camera, score=1.):
    "Where the camera sees heels and toes"
    legs = rotmats[:, :1]@rotmats[:, [1, 2]]@rotmats[:, [4, 5]]@rotmats[:, [7, 8]]
    at = body.skeleton(rotmats, betas)[0][:, [7, 8], None] + torch.einsum('nsij,nskj->nski', legs, foot_levers(body, betas))
    return torch.cat([camera.project(at.flatten(1, 2))[..., :2], torch.full((len(at), 4, 1), score)], 2).unflatten(1, (2, 2))

def bent(rotmats, by=(.6, .4, 0.)):
    rotmats = rotmats.clone()
    rotmats[:, [7, 8]] = rotmats[:, [7, 8]]@roma.rotvec_to_rotmat(torch.tensor(by))
    return rotmats

def test_feet_turn_to_where_they_were_found(fitter, photos):
    "The more surely they were found, the more"
    true, body = bent(photos.rotmats), fitter.body
    apart = [roma.rotmat_geodesic_distance(turn_feet(body, photos.rotmats, photos.betas, photos.camera,
                                                     feet_at(body, true, photos.betas, photos.camera, score))[:, [7, 8]], true[:, [7, 8]]).mean()
             for score in (0., .2, 1.)]
    assert apart[0] > .7 and apart[2] < .25 and apart[0] > apart[1] > apart[2]

def test_heels_and_toes_lie_on_the_feet(fitter):
    rest, (left, right) = fitter.body.rest, foot_points(fitter.body)
    joints = fitter.body.rest_joints
    for (heel, toe), ankle in ((left, 7), (right, 8)):
        assert abs(rest[heel, 0] - joints[ankle, 0]) < .05 and abs(rest[toe, 0] - joints[ankle, 0]) < .05
        assert rest[toe, 2] - rest[heel, 2] > .2 and rest[heel, 1] < joints[ankle, 1] - .03

def test_a_fit_is_the_same_but_for_its_ankles(fitter, photos):
    k = noisy(photos)
    plain = fit_keypoints(fitter.body, k, photos.camera, fitter=fitter)
    feet = feet_at(fitter.body, bent(plain.rotmats), plain.betas, plain.camera)
    turned = fit_keypoints(fitter.body, k, photos.camera, fitter=fitter, feet=feet)
    others = [i for i in range(24) if i not in (7, 8)]
    assert torch.equal(turned.rotmats[:, others], plain.rotmats[:, others]) and torch.equal(turned.betas, plain.betas)
    assert (turned.rotmats[:, [7, 8]] - bent(plain.rotmats)[:, [7, 8]]).abs().mean() < .1

def test_datasets_fit_the_feet_that_they_know(fitter, tmp_path):
    prepare(PeoplePhotos(64, train=2, valid=1, test=1), tmp_path)
    data = Prepared(tmp_path)
    def fitted():
        fit_piece(data, fitter, 0)
        with np.load(tmp_path/'fits'/'00000.npz') as z: return {k: torch.tensor(z[k]) for k in z}
    (tmp_path/'fits').mkdir(exist_ok=True)
    plain = fitted()
    camera = Camera(*(plain[k] for k in ('focal', 'center', 'translation')), data.size)
    data.landmarks = torch.full((len(data), 33, 4), torch.nan)
    data.landmarks[:, [[29, 31], [30, 32]], :3] = feet_at(fitter.body, bent(plain['rotmats']), plain['betas'], camera)
    known = fitted()
    assert (known['rotmats'][:, [7, 8]] - plain['rotmats'][:, [7, 8]]).abs().mean() > .1
    assert torch.equal(known['rotmats'][:, :7], plain['rotmats'][:, :7])

@pytest.mark.long
def test_more_gaussians_help(fitter):
    "The shipped prior's 24 Gaussians against SMPLify's number, 8, fitted to the same poses"
    photos = People(256, 'test', device='cpu', samples=1, detail=1).photos(range(64))
    few = Fitter(fitter.body, fit_prior(pose_vectors(sample_poses(12000, seed=11)), 8))
    off = [fit_errors(fitter.body, fit_keypoints(fitter.body, noisy(photos), fitter=o), photos)['joints'].mean() for o in (fitter, few)]
    assert off[0] < off[1] - 5

# films

def test_best_path_is_the_least_of_all():
    g = torch.Generator().manual_seed(0)
    energy, change = torch.rand(5, 3, generator=g), torch.rand(4, 3, 3, generator=g)
    cost = lambda p: sum(energy[t, i] for t, i in enumerate(p)) + sum(change[t, p[t], p[t + 1]] for t in range(4))
    every = [[int(o) for o in np.base_repr(i, 3).zfill(5)] for i in range(3**5)]
    assert best_path(energy, change) == min(every, key=cost)

def test_band_on_one_frame():
    A, b = torch.eye(4)[None]*2, torch.ones(1, 4)
    assert torch.allclose(solve_band(A, torch.zeros(1, 2, 4), b), torch.full((1, 4), .5))

def test_smoothing_has_the_gradient_of_its_cost(fitter):
    "At a smooth optimum of keypoints that are exact, nothing pulls"
    film = People(128, 'test', device='cpu', samples=1, detail=1).film(2, 'walk', 4)
    state = fitter.state_of(film)
    seen = fitter.look_at(film.keypoints, film.camera)
    still = state[[0, 0, 0, 0]]
    same = seen[[0, 0, 0, 0]]
    moved = fitter.smooth(still, same, 1., 6)
    assert all(torch.allclose(getattr(moved, k)[0], getattr(moved, k)[3], atol=2e-3) for k in ('pose', 'betas', 'place'))

def test_a_film_is_steadier_than_its_frames(fitter):
    film = People(128, 'test', device='cpu', samples=1, detail=1).film(2, 'walk', 24)
    k = noisy(film, noise=2.)
    alone, together = fit_keypoints(fitter.body, k, film.camera, fitter=fitter), fitter.fit_film(k, film.camera)
    def shake(o): return fitter.body.skeleton(o.rotmats, o.betas)[0].diff(n=2, dim=0).norm(dim=2).mean()
    assert shake(together) < .5*shake(alone)
    assert fit_errors(fitter.body, together, film)['joints'].mean() < fit_errors(fitter.body, alone, film)['joints'].mean() + 5

class Stubborn(FittedPool):
    "Nobody can be fitted at first"
    def photos(self, count, step):
        self.asked.append(step)
        self.fitter.settings = self.usual if step > 10**9 else replace(self.usual, worst=0.)
        return super().photos(count, step)

def test_a_pool_replaces_a_batch_that_cannot_be_fitted(fitter):
    own = Fitter(fitter.body)
    Stubborn.asked, Stubborn.usual = [], own.settings
    pool = Stubborn(People(64, 'train', samples=1, detail=1, device='cpu'), 2, batch=2, fitter=own)
    assert Stubborn.asked == [1, 1 + 10**9] and torch.isfinite(pool.store['rotmats']).all()
    Stubborn.usual = replace(own.settings, worst=0.)
    with pytest.raises(DataError, match='ten times in a row'): pool.renew(2)

# datasets

@pytest.fixture(scope='module')
def folder(tmp_path_factory): return prepare(PeoplePhotos(64, train=12, valid=2, test=2), tmp_path_factory.mktemp('fits')/'people')

@pytest.fixture
def small_pieces(monkeypatch): monkeypatch.setattr('spice.fits.PIECE', 8)

def copy(folder, to):
    return Path(shutil.copytree(folder, to))

def test_two_processes_make_the_table_of_one(folder, fitter, tmp_path, small_pieces):
    a, b = copy(folder, tmp_path/'a'), copy(folder, tmp_path/'b')
    one = fit_dataset(a, fitter)
    assert fit_dataset(b, fitter, process=1, of=2) is None
    assert (b/'bodies.npz').read_bytes() == (folder/'bodies.npz').read_bytes()                            # untouched until all is there
    two = fit_dataset(b, fitter, process=0, of=2)
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert (a/'bodies.npz').read_bytes() == (b/'bodies.npz').read_bytes()
    with np.load(a/'bodies_truth.npz') as f: assert str(f['how']) == 'truth'

def test_killed_and_started_again(folder, tmp_path):
    a, b = copy(folder, tmp_path/'a'), copy(folder, tmp_path/'b')
    code = 'import sys, torch; torch.set_num_threads(int(sys.argv[2])); import spice.fits as f; f.PIECE = 4; f.fit_dataset(sys.argv[1])'
    first = Running(code, a, 1)
    while not list(a.glob('fits/*.npz')) and first.returncode is None: time.sleep(.02)
    first.kill()
    for folder, threads in ((a, 2), (b, 1)): assert run(code, folder, threads).returncode == 0            # any number gives the same
    x, y = Prepared(a).bodies, Prepared(b).bodies
    assert all(torch.equal(x[k], y[k]) for k in ('rotmats', 'betas', 'translation', 'error', 'good'))

def test_other_settings_are_refused(folder, fitter, tmp_path):
    a = copy(folder, tmp_path/'a')
    fit_dataset(a, fitter)
    other = Fitter(fitter.body, settings=FitSettings(noise=4.))
    with pytest.raises(DataError, match='Give --again'): fit_dataset(a, other)
    assert fit_dataset(a, other, again=True)['good'].shape == (32,)
    with pytest.raises(DataError, match='process 2 of 2'): fit_dataset(a, fitter, process=2, of=2)

def test_depths_and_mattes_of_a_dataset_are_used(folder, fitter, tmp_path):
    from PIL import Image
    plain, rich = copy(folder, tmp_path/'a'), copy(folder, tmp_path/'b')
    for o in (plain, rich): shutil.rmtree(o/'mattes')
    data = Prepared(rich)
    assert data.joints3d is None and data.matte(0) is None
    with np.load(rich/'keypoints.npz') as f: table = dict(f)
    at = fitter.body.skeleton(data.bodies['rotmats'], data.bodies['betas'])[1]
    table['joints3d'] = (at - at[:, [8, 11]].mean(1, keepdim=True)).numpy()
    np.savez(rich/'keypoints.npz', **table)
    (rich/'mattes').mkdir()
    for i in range(0, 32, 2): Image.new('L', (64, 64), 255).save(rich/'mattes'/data.path(i).name)
    data = Prepared(rich)
    assert data.joints3d.shape == (32, 18, 3) and data.matte(0).shape == (1, 64, 64) and data.matte(0).min() == 1 and data.matte(1) is None
    a, b = fit_dataset(plain, fitter), fit_dataset(rich, fitter)
    assert not np.array_equal(a['rotmats'], b['rotmats'])
    plans = [json.loads((o/'fits'/'plan.json').read_text()) for o in (plain, rich)]
    assert 'mattes' not in plans[0] and {'joints3d', 'mattes'} <= set(plans[1]) and plans[0]['fingerprint'] != plans[1]['fingerprint']
    Image.new('L', (64, 64), 254).save(rich/'mattes'/data.path(0).name)
    with pytest.raises(DataError, match='Give --again'): fit_dataset(rich, fitter)

def test_command(folder, tmp_path, capsys, monkeypatch):
    a = copy(folder, tmp_path/'a')
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '1')
    spice_fit(str(a), body='free')
    said = capsys.readouterr().out
    assert '32 fits' in said and 'median' in said and (a/'fits.png').is_file()
    assert json.loads((a/'fits'/'plan.json').read_text())['body'] == Prepared(a).bodies['body']
