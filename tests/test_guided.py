"Places, the guided network, round trips: oracles, batches, other bodies, files, and a training that is killed."
import argparse
import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
import torch.nn.functional as F
from helpers import fake_smpl

import spice.counterparts as counterpart_module
import spice.places as places
from spice.body import load_body, rest_pose
from spice.camera import frame_body, world_to_view
from spice.core import DataError
from spice.data import prepare
from spice.guided import CHANNELS, Guided, GuidedNet, GuidedSettings, part_colours
from spice.people import People, free_body
from spice.counterparts import COUNTERPARTS, closest_points, closest_shares, counterparts
from spice.places import (CONTINUED_LIMB, UNSEEN_FAMILY, Carrier, bleed, coarse_parts, continue_limbs, distance, rigid_motions,
                          round_limbs, spread)
from spice.people.poses import pose_rows, settle
from spice.rounds import Album, Rounds, SamplePool, TruePairs, people_album, round_trip
from spice.shown import MOVERS, grow, sample
from spice.sources import PeoplePhotos
from spice.surface import render_body, vertex_normals
from spice.train import load_system

SCRIPT = Path(__file__).parent.parent/'scripts'/'train_photos.py'

@pytest.fixture(scope='module')
def scene():
    "Two people at 128 pixels, their mattes and bodies, and two new poses"
    torch.manual_seed(0)
    body, photos = free_body('cpu'), People(128, 'test', poses='everyday', yaw=30, samples=1, device='cpu').photos([6, 14], 0)
    matte = (photos.parsing > 0).float()[:, None]
    with torch.no_grad():
        rotmats = world_to_view(settle(pose_rows(['wave', 'walk']), body, photos.betas)[0])
        return body, photos, matte, rotmats, render_body(body, rotmats, photos.betas, photos.camera)

def test_a_limb_is_continued_between_what_is_shown(scene):
    body, photos, _, _, _ = scene
    xy, (left, _, right, _) = photos.surface.verts_px[:1, :, :2], (o[0] for o in round_limbs(body))
    shown = torch.zeros(1, len(body.rest))
    front = left[body.rest[left, 2] > body.rest[left, 2].median()]
    shown[0, front] = 1
    shown[0, right[:5]] = 1                                                              # less than a tenth
    own = torch.cat([xy, shown[..., None]], 2)
    table = continue_limbs(photos.surface, own)
    low, high = xy[0, front].amin(0), xy[0, front].amax(0)
    assert (table[0, left, 2] == 1).all() and torch.equal(own, torch.cat([xy, shown[..., None]], 2))
    assert ((table[0, left, :2] > low - .1) & (table[0, left, :2] < high + .1)).all()    # never beyond what is shown
    rest = torch.ones(len(body.rest), dtype=torch.bool)
    rest[left] = False
    assert torch.equal(table[:, rest], own[:, rest])                                     # the other limbs and the trunk
    assert (xy[0, left] - table[0, left, :2]).norm(dim=1)[shown[0, left] > .5].max() == 0

def test_continued_limbs_come_before_mirrors_and_not_without_them(scene):
    body, photos, matte, _, target = scene
    with torch.no_grad(): alone, carrier = (Carrier(photos.image, matte, photos.surface, mirrors=o) for o in (False, True))
    assert alone.table.shape[1] == 1 and carrier.table.shape[1] == len(COUNTERPARTS) + 1
    assert torch.equal(alone.table[:, 0], carrier.table[:, 0])
    more = (carrier.table[:, -1, :, 2] > .5) & (carrier.table[:, 0, :, 2] <= .5)
    assert more.any() and not (carrier.table[:, 1:-1, :, 2] > 0)[more[:, None].expand(-1, 5, -1)].any()
    kinds = carrier.places(target).kind
    assert (kinds == CONTINUED_LIMB).any() and not (alone.places(target).kind == CONTINUED_LIMB).any()

def test_closest_shares_against_a_dense_search():
    points, corners = torch.randn(60, 3), torch.randn(60, 3, 3)
    i, j = torch.meshgrid(torch.arange(101), torch.arange(101), indexing='ij')
    grid = torch.stack([i, j, 100 - i - j], -1)[i + j <= 100]/100                                   # all shares in hundredths
    best = ((grid@corners) - points[:, None]).norm(dim=2).amin(1)
    shares = closest_shares(points, corners)
    found = ((corners*shares[..., None]).sum(1) - points).norm(dim=1)
    torch.testing.assert_close(shares.sum(1), torch.ones(60))
    assert (shares >= 0).all() and (found <= best + 1e-5).all() and (best - found).max() < .05

def test_closest_points_respect_the_side():
    "Two sheets 2 cm apart: a point between them goes to the sheet that faces its way, though the other is nearer"
    sheet = torch.tensor([[0., 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    verts = torch.cat([sheet, sheet + torch.tensor([0, 0, .02])])
    faces = torch.tensor([[0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6]])
    normals = vertex_normals(verts[None], faces)[0]
    corners, shares = closest_points(torch.tensor([[.3, .3, .012]]), torch.tensor([[0., 0, -1]]), verts, normals, faces)
    place = (verts[corners]*shares[..., None]).sum(1)
    torch.testing.assert_close(place, torch.tensor([[.3, .3, 0.]]))

def test_counterparts_of_another_body(tmp_path, monkeypatch):
    "Any body in SMPL's form, from its file; kept in the cache folder, made again if that is broken"
    monkeypatch.setenv('SPICE_HOME', str(tmp_path))
    fake_smpl(tmp_path/'smpl.pkl')
    body = load_body(tmp_path/'smpl.pkl')
    found = counterparts(body)
    assert found.corners.shape == (len(COUNTERPARTS), 6890, 3) and found.exists[0].all()
    used = torch.zeros(6890, dtype=torch.bool).index_fill(0, body.faces.view(-1), True)
    place = found.of(body.rest[None])[0, 2]
    off = (place - body.rest*torch.tensor([-1, 1, 1])).norm(dim=1)[used & found.exists[2]]
    assert off.median() < .01, 'left and right'
    kept = tmp_path/'counterparts'/f'{body.hash}.npz'
    assert kept.is_file()
    counterpart_module._KNOWN.clear()
    calls = []
    monkeypatch.setattr(counterpart_module, 'make_counterparts', lambda o: calls.append(1) or found)
    torch.testing.assert_close(counterparts(body).shares, found.shares)
    assert not calls, 'read from the cache'
    kept.write_bytes(kept.read_bytes()[:1000])
    counterpart_module._KNOWN.clear()
    counterparts(body)
    assert calls == [1], 'a damaged file is made again'

def test_bleed_keeps_the_person_and_ignores_the_street():
    image, matte = torch.rand(1, 3, 40, 30), torch.zeros(1, 1, 40, 30)
    matte[..., 10:30, 8:20] = 1
    other = torch.where(matte > 0, image, torch.rand(1, 3, 40, 30))
    torch.testing.assert_close(bleed(image, matte), bleed(other, matte))
    assert torch.equal(bleed(image, matte)*matte, image*matte)
    flat = torch.full((1, 3, 40, 30), .25)
    torch.testing.assert_close(bleed(flat, matte), flat)

def test_distance_and_spread_against_loops():
    mask = torch.rand(2, 12, 12) < .1
    mask[:, 3, 4] = True
    cells = torch.stack(torch.meshgrid(torch.arange(12.), torch.arange(12.), indexing='ij'), -1).view(-1, 2)
    values = torch.rand(2, 3, 12, 12)
    far, mean = distance(mask), spread(values, mask)
    for b in range(2):
        away = torch.cdist(cells, cells[mask[b].view(-1)])
        torch.testing.assert_close(far[b].view(-1), away.amin(1))
        weight = (away.square() + .25).pow(-1.25)
        expected = (values[b][:, mask[b]]@weight.T/weight.sum(1)).view(3, 12, 12)
        torch.testing.assert_close(mean[b], torch.where(mask[b], values[b], expected), atol=1e-4, rtol=1e-3)

def test_rigid_motions_are_the_best():
    "No other turn, with or without a reflection, brings the points closer"
    weights = torch.rand(50, 15)
    target = torch.randn(1, 50, 2)*torch.tensor([2., 5])
    source = target@torch.tensor([[.6, .8], [-.8, .6]]) + .3*torch.randn(1, 50, 2)
    A, c = rigid_motions(source, target, weights, torch.ones(1))
    part = list(places.MOVERS).index('chest')
    error = lambda M, s: ((target[0]@M.T + s - source[0]).square().sum(1)*weights[:, part]).sum()
    best = error(A[0, part], c[0, part])
    for angle in torch.linspace(-.2, .2, 9):
        turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
        M = turn@A[0, part]
        mean = (weights[:, part:part + 1]*(source[0] - target[0]@M.T)).sum(0)/weights[:, part].sum()
        assert error(M, mean) >= best - 1e-4

def test_a_batch_is_its_people_one_by_one(scene):
    body, photos, matte, rotmats, target = scene
    with torch.no_grad():
        both = Carrier(photos.image, matte, photos.surface).places(target)
        for i in range(2):
            one = slice(i, i + 1)
            alone = Carrier(photos.image[one], matte[one], render_body(body, photos.rotmats[one], photos.betas[one], photos.camera[one]))
            found = alone.places(render_body(body, rotmats[one], photos.betas[one], photos.camera[one]))
            assert (found.kind == both.kind[one]).float().mean() > .999
            torch.testing.assert_close(found.trust, both.trust[one], atol=2e-3, rtol=0)

def test_places_do_not_depend_on_the_photo_s_size(scene):
    body, photos, matte, _, target = scene
    large, large_matte = (F.interpolate(o, (512, 512), mode='bilinear') for o in (photos.image, matte))
    with torch.no_grad():
        small, big = Carrier(photos.image, matte, photos.surface), Carrier(large, large_matte, photos.surface)
        a, b = small.places(target), big.places(target)
    assert (a.kind == b.kind).float().mean() > .97
    same = (a.kind == 1) & (b.kind == 1)
    torch.testing.assert_close(a.place.movedim(1, -1)[same], b.place.movedim(1, -1)[same])

def test_no_face_on_the_back_of_a_head(scene):
    body, photos, matte, _, _ = scene
    about = torch.diag(torch.tensor([-1., 1, -1]))
    with torch.no_grad():
        away = torch.cat([(about@photos.rotmats[:, 0])[:, None], photos.rotmats[:, 1:]], 1)
        target = render_body(body, away, photos.betas, photos.camera)
        found = Carrier(photos.image, matte, photos.surface).places(target)
    head, torso = target.parts >= 23, (target.parts == 1) | (target.parts == 2)
    assert not (found.turned[:, 0].bool() & head).any()
    assert (found.kind[torso] > 0).float().mean() > .8, 'a back is dressed as the front'

def test_nothing_of_another_family_is_carried(scene):
    "Where the photo shows an arm, the air beside a trunk shows nothing"
    body, photos, matte, _, _ = scene
    arms = pose_rows(['arms_wide', 'stand'])
    with torch.no_grad():
        wide, narrow = (world_to_view(settle(o, body, photos.betas[:1])[0]) for o in (arms[:1], arms[1:]))
        camera = frame_body(body(wide, photos.betas[:1]).verts, 128)
        source, target = (render_body(body, o, photos.betas[:1], camera) for o in (wide, narrow))
        naked = source.mask[:, None].float()                                                        # nobody wears anything
        carrier = Carrier(source.wheel, naked, source)
        found = carrier.places(target)
        beyond = carrier.carry_matte(found)*(~target.mask)[:, None]
    assert beyond.sum() < .06*target.mask.sum()

@pytest.mark.parametrize('apart', [.1, .3])
def test_nothing_joins_two_shoes(apart):
    "Feet that stood together and now stand apart do not carry each other's leather"
    body, betas = free_body('cpu'), torch.zeros(1, 10)
    def legs(angle):
        R = rest_pose()
        R[:, [1, 2]] = roma.rotvec_to_rotmat(torch.tensor([[0, 0, angle], [0, 0, -angle]]))
        return world_to_view(R)
    camera = frame_body(body(legs(apart), betas).verts, 256)
    source, target = (render_body(body, legs(o), betas, camera) for o in (-.12, apart))
    matte = grow(source.mask[:, None].float(), 10)
    carrier = Carrier(torch.zeros(1, 3, 256, 256), matte, source)
    found, carried = carrier.places(target), carrier.carry_matte(carrier.places(target))
    there, here = (coarse_parts(o, 128)[0] for o in (source, target))
    here = F.interpolate(here, (256, 256), mode='bilinear')
    feet = [list(MOVERS).index(o) for o in ('left_foot', 'right_foot')]
    for own, other in (feet, feet[::-1]):
        beside = (here[:, own] > .6) & (found.kind == UNSEEN_FAMILY)
        of_other = sample(there[:, [other]], found.place, (256, 256))[:, 0] > .6
        assert beside.sum() > 300 and (carried[:, 0]*of_other)[beside].sum() < 2

def test_part_colours_come_from_the_next_of_kin():
    photo, parts = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
    parts[:, :4], photo[:, 0, :4] = 20, 1.                                                          # the right lower arm, inside, is red
    parts[:, 4:6], photo[:, 1, 4:6] = 2, 1.                                                         # the torso green
    colours = part_colours(photo, torch.ones(1, 1, 8, 8), parts)[0]
    for arm in (19, 21, 22): torch.testing.assert_close(colours[arm], torch.tensor([1., 0, 0]), atol=.02, rtol=0)
    torch.testing.assert_close(colours[3], torch.tensor([1., 0, 0]), atol=.02, rtol=0)              # a hand, of the same limb
    torch.testing.assert_close(colours[1], torch.tensor([0., 1, 0]), atol=.02, rtol=0)
    assert colours[9].min() >= 0 and .2 < colours[9][0] < .9, 'a leg knows nothing better than everything'

def test_untrained_is_carried_and_files_round_trip(scene, tmp_path, bad_input):
    body, photos, matte, rotmats, _ = scene
    net = GuidedNet(GuidedSettings((16, 24, 32), size=64))
    given = (photos.image, matte, body, photos.rotmats, photos.betas, photos.camera)
    made = Guided(net, *given).repose(rotmats, photos.camera, background=0.)
    assert made.shape == photos.image.shape and made.isfinite().all()
    with torch.no_grad():
        for p in net.parameters(): p.add_(.01*torch.randn_like(p))
    net.save_pretrained(tmp_path/'net')
    again = GuidedNet.from_pretrained(tmp_path/'net', 'cpu')
    assert again.settings == net.settings
    x = torch.randn(1, CHANNELS, 64, 64)
    torch.testing.assert_close(again(x), net(x))
    with pytest.raises(DataError, match='multiples of 8'): net(torch.randn(1, CHANNELS, 60, 64))
    with pytest.raises(DataError, match='2 photos, 1 mattes'): Carrier(photos.image, matte[:1], photos.surface)

def test_one_photo_meets_many_poses(scene):
    body, photos, matte, rotmats, _ = scene
    one = slice(0, 1)
    tool = Guided(None, photos.image[one], matte[one], body, photos.rotmats[one], photos.betas[one], photos.camera[one])
    camera = photos.camera[[0, 0]]
    both = tool.repose(rotmats, camera, background=0.)
    for i in range(2): torch.testing.assert_close(both[i:i + 1], tool.repose(rotmats[i:i + 1], camera[i:i + 1], background=0.), atol=2e-2, rtol=0)

def test_a_shaken_body_moves_what_comes_back(scene):
    body, photos, matte, rotmats, _ = scene
    from spice.camera import Camera
    shifted = Camera(photos.camera.focal, photos.camera.center + 2., photos.camera.translation, photos.camera.size)
    exact = (photos.rotmats, photos.betas, photos.camera)
    with torch.no_grad():
        still, y = round_trip(photos.image, matte, body, *exact, exact, photos.rotmats, photos.camera)
        moved, _ = round_trip(photos.image, matte, body, *exact, (photos.rotmats, photos.betas, shifted), photos.rotmats, photos.camera)
    error = lambda x: ((x[:, :3] - y[:, :3]).abs()*x[:, 4:5]).sum()/x[:, 4:5].sum()
    assert error(still) < .02 < error(moved)

def test_rounds_repeat_by_seed_and_stay_in_range():
    album = people_album(People(64, 'test', samples=1, device='cpu'), [0, 1, 2, 3, 4, 5])
    rounds = Rounds(album, free_body('cpu'), 64)
    a, b = rounds.draw(6, 5), rounds.draw(6, 5)
    assert all(torch.equal(m, n) for m, n in zip(a, b)) and not torch.equal(a[0], rounds.draw(6, 6)[0])
    for x, y in [a, *(rounds.draw(6, i) for i in range(3))]:
        assert x.shape == (6, CHANNELS, 64, 64) and x.isfinite().all() and x.abs().max() < 1.01 and ((y[:, 3:] >= 0) & (y[:, 3:] <= 1)).all()

def test_album_refuses_what_does_not_fit(bad_input):
    album = people_album(People(64, 'test', samples=1, device='cpu'), [0, 1])
    with pytest.raises(DataError, match='2 photos, 1 mattes'): Album(album.images, album.mattes[:1], album.rotmats, album.betas, album.camera)
    with pytest.raises(DataError, match='64 x 60'): Album(album.images[:, :, :60], album.mattes, album.rotmats, album.betas, album.camera)
    assert len(album[[1]]) == 1 and torch.equal(album[[1]].betas, album.betas[1:])

def test_pairs_have_fitted_bodies_and_repeat():
    pairs = TruePairs(People(64, 'train', samples=1, device='cpu'))
    a, b = pairs.draw(3, 2), pairs.draw(3, 2)
    assert torch.equal(a[0], b[0]) and 1 <= len(a[0]) <= 3 and a[1].shape[1:] == (4, 64, 64)

def test_pool_is_shared_and_starts_anew_for_other_samples(tmp_path):
    pool = SamplePool(tmp_path, 5, 16)
    x, y = torch.rand(4, CHANNELS, 16, 16)*2 - 1, torch.rand(4, 4, 16, 16)
    pool.put(x, y)
    pool.put(x, y)
    again = SamplePool(tmp_path, 5, 16)
    assert (again.made, len(again)) == (8, 5)
    np.testing.assert_allclose(again.x[4]/127, x[0], atol=.005)
    assert SamplePool(tmp_path, 6, 16).made == 0

def rows_of(path):
    with open(path) as f: return [{k: float(v) for k, v in o.items()} for o in csv.DictReader(f)]

def test_training_goes_on_after_a_kill(tmp_path):
    "The script's rehearsal, killed in the middle, ends where it should have"
    command = [sys.executable, str(SCRIPT), '--quick', '--out', str(tmp_path/'run'), '--size', '64', '--threads', '1', '--features', 'people', '--device', 'cpu']
    log, output = tmp_path/'run-quick'/'64'/'log.csv', open(tmp_path/'out.txt', 'w+')
    process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    end = time.time() + 300
    while not log.is_file() and process.poll() is None and time.time() < end: time.sleep(.2)
    assert log.is_file(), (tmp_path/'out.txt').read_text()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'step 40 of 40' in done.stdout
    assert rows_of(log)[-1]['step'] == 25 and rows_of(log.with_name('test.csv'))[-1]['step'] == 40
    assert load_system(log.parent, 'cpu').net.settings.size == 64
    again = subprocess.run(command, capture_output=True, text=True)
    assert '0 in this call' in again.stdout
    other = subprocess.run([*command, '--bs', '4'], capture_output=True, text=True)
    assert other.returncode == 1 and other.stderr.startswith(f'{log.parent} was begun with bs = 8, not 4.') and other.stderr.count('\n') == 1

def test_a_folder_of_ones_own_trains_a_model(tmp_path):
    "A dataset without a test split, from the model that ships to one that `repose` takes"
    data = prepare(PeoplePhotos(64, train=3, valid=0, test=0), tmp_path/'data')
    command = [sys.executable, str(SCRIPT), str(data), '--out', str(tmp_path/'run'), '--size', '64', '--threads', '1', '--features', 'people', '--device', 'cpu',
               '--steps', '1', '--bs', '2', '--first', '4', '--pool', '8', '--pairs', '0']
    wrong = subprocess.run([*command, '--start', 'people'], capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stderr.splitlines()[-1].startswith('people is a model of the kind spice.')
    done = subprocess.run([*command, '--start', 'photos'], capture_output=True, text=True)
    assert done.returncode == 0 and 'step 1 of 1' in done.stdout, done.stderr
    system = load_system(tmp_path/'run'/'64', 'cpu')
    far = max(float((a - b).detach().abs().max()) for a, b in zip(system.net.parameters(), load_system('photos', 'cpu').net.parameters()))
    assert system.name == 'guided' and 0 < far < .01
    assert [int(o['step']) for o in rows_of(tmp_path/'run'/'64'/'test.csv')] == [0, 1] and list((tmp_path/'run'/'64'/'samples').glob('step_*.jpg'))

def test_script_says_what_is_missing(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path), '--out', str(tmp_path/'run'), '--device', 'cpu'], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip().split('\n')[-1].startswith(f'{tmp_path} is no prepared dataset')

def test_what_hides_a_point_is_not_carried_beside_it(scene):
    "With the hands clasped, the trunk behind the arms is not brought back by what is seen around it"
    body, photos, matte, _, _ = scene
    with torch.no_grad():
        source = render_body(body, world_to_view(settle(pose_rows(['hands_clasped']*2), body, photos.betas)[0]), photos.betas, photos.camera)
        arms = places.part_weights(body)[:, [i for i, o in enumerate(places.MOVERS) if 'arm' in o or 'hand' in o]].sum(1) > .5
        drawn = arms[body.faces].all(1)[source.fragments.pix_to_face.clamp(min=0)] & source.mask
        painted = torch.where(drawn[:, None], torch.tensor([1., -1, -1]).view(1, 3, 1, 1), torch.tensor([-1., -1, 1]).view(1, 3, 1, 1))
        carrier = Carrier(painted, source.mask.float()[:, None], source)
        target = render_body(body, world_to_view(settle(pose_rows(['arms_wide']*2), body, photos.betas)[0]), photos.betas, photos.camera)
        found = carrier.places(target)
        red = carrier.carry(found)[:, 0] > 0
    trunk = ~arms[body.faces].any(1)[target.fragments.pix_to_face.clamp(min=0)] & target.mask & (found.kind == 1)
    assert trunk.sum() > 1000 and (red & trunk).sum() < .025*trunk.sum()

def test_a_run_that_goes_on_from_what_ships_continues_its_logs(tmp_path):
    "Steps and minutes are counted on; another run's logs stand alone"
    spec = importlib.util.spec_from_file_location('train_photos', SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    shipped, run = tmp_path/'shipped', tmp_path/'out'/'256'
    for path, rows in ((shipped/'log_128.csv', [(50, 2.)]), (shipped/'log_256.csv', [(10, .5), (20, 1.)]), (run/'log.csv', [(5, .2), (8, .4)])):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('step,minutes,l1\n' + ''.join(f'{step},{minutes},0.1\n' for step, minutes in rows))
    load_system('photos', 'cpu').save_pretrained(run)
    steps = lambda size: [o['step'] for o in csv.DictReader((shipped/f'log_{size}.csv').open())]
    for start, at_256 in (('photos', '10 20 25 28'), ('', '5 8')):
        (run/'plan.json').write_text(json.dumps(dict(start=start)))
        script.publish(argparse.Namespace(out=str(tmp_path/'out'), size=256, bs=8), shipped)
        assert steps(256) == at_256.split() and steps(128) == ['50']
        card = (shipped/'README.md').read_text()
        assert f'at 256 pixels | {at_256.split()[-1]} steps of 8' in card and ('at 128 pixels' in card) == bool(start)
