"The guided system from a user's side: sizes, frames, backgrounds, where people stand, and what is refused."
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import spice.reposer as reposer
from spice.core import DataError, ImageError, seeded
from spice.guided import GuidedNet, GuidedSettings, carried_of
from spice.guided_system import Portrait, background_colour, between_legs, shown_share
from spice.reposer import Reposer
from spice.infer import demo_person, repose, spice_repose
from spice.keypoints import Keypoints
from spice.losses import Adversarial
from spice.people import People, free_body
from spice.places import inner_matte
from spice.rounds import Rounds, people_album
from spice.strangers import meet, part_statistics, parts_term, small_critic, stranger_terms
from spice.train import load_system, make_system
from spice.video import animate

@pytest.fixture(scope='module')
def person(): return demo_person(19, 192, 30.)

@pytest.fixture(scope='module')
def tool():
    with seeded(0): return Reposer(make_system('guided', 'small'), device='cpu')

@pytest.fixture
def seen(tool, person): return tool.see(person[0], person[1]['keypoints'], matte=person[1]['matte'])

def test_a_matte_comes_in_any_form(tool, person, seen, tmp_path):
    photo, known = person
    known['matte'].save(tmp_path/'matte.png')
    for o in (str(tmp_path/'matte.png'), np.asarray(known['matte'])):
        again = tool.see(photo, known['keypoints'], matte=o)
        assert again.box == seen.box and np.array_equal(np.asarray(again.matte), np.asarray(seen.matte))
    with pytest.raises(ImageError, match='int is no picture'): tool.see(photo, known['keypoints'], matte=3)

def far(a, b): return np.abs(np.asarray(a, int) - np.asarray(b, int)).max()

def test_sizes(tool, person):
    photo, known = person
    left, top, right, bottom = tool.see(photo, known['keypoints'], matte=known['matte']).box
    assert repose(photo, 'walk', tool, **known).size == (right - left, bottom - top)     # as much as the photo shows, 128 at least
    assert repose(photo, 'walk', tool, size=64, **known).size == (64, 64)
    assert repose(photo, 'walk', tool, paste=True, **known).size == photo.size
    assert [o.image.size for o in repose(photo, ['walk', 'sit'], tool, size=80, return_all=True, **known)] == [(80, 80)]*2

def test_a_photo_that_is_larger_than_the_canvas(tool, person):
    photo, known = person
    wide, alpha = Image.new('RGB', (500, 300), 'gray'), Image.new('L', (500, 300))
    wide.paste(photo, (250, 40))
    alpha.paste(known['matte'], (250, 40))
    points = known['keypoints'].points + torch.tensor([250., 40, 0])
    made = repose(wide, 'wave', tool, Keypoints(points, (300, 500)), matte=alpha, paste=True)
    assert made.size == wide.size and far(made.crop((0, 0, 150, 300)), wide.crop((0, 0, 150, 300))) == 0
    assert far(made, wide) > 50

@pytest.mark.parametrize('background', ['plain', 'white', '#102030', (1, 2, 3)])
def test_one_colour_behind(tool, person, background):
    made = repose(person[0], 'walk', tool, background=background, **person[1])
    assert far(made.getpixel((2, 2)), background_colour(background)) <= 1

@pytest.mark.parametrize('paste', [False, True])
def test_transparent(tool, person, paste):
    made = repose(person[0], 'walk', tool, background='transparent', paste=paste, **person[1])
    alpha = np.asarray(made)[..., 3]
    assert made.mode == 'RGBA' and alpha[:5, :5].max() == 0 and alpha.max() > 250

def test_what_was_opened_is_kept(tool, seen):
    portrait, aim = tool.portrait(seen), tool.aim('walk', seen)
    first = portrait.at(128)
    portrait.picture(aim.rotmats, aim.camera, 128)
    assert tool.portrait(seen) is portrait and portrait.at(128) is first and portrait.behind() is portrait.behind()
    for size in (144, 160): portrait.at(size)
    assert list(portrait.opened) == [144, 160]

def test_feet_stay_and_what_does_not_fit_steps_back(tool, seen):
    own = seen.fits.camera
    feet = lambda R, camera: float(camera.project(tool.body(R, seen.fits.betas).verts)[0, :, 1].max())
    walk, up = tool.aim('walk', seen), tool.aim('arms_up', seen)
    assert feet(walk.rotmats, walk.camera) == pytest.approx(feet(seen.fits.rotmats, own), abs=1)
    assert float(up.camera.translation[0, 2]) > float(own.translation[0, 2])
    assert (up.points[0, :, 2] > 0).all()

def test_cut_at_the_knee(tool, person):
    "Whose feet are not in the photo stays as large and where they were"
    photo, known = person
    half = photo.crop((0, 0, 192, 130))
    points = known['keypoints'].points.clone()
    points[points[..., 1] > 130] = 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        seen = tool.see(half, Keypoints(points, (130, 192)), matte=known['matte'].crop((0, 0, 192, 130)))
    assert tool.spot(seen)[1]
    aim = tool.aim('wave', seen)
    pelvis = lambda R, camera: camera.project(tool.body(R, seen.fits.betas).joints[:, :1])[0, 0]
    assert (pelvis(aim.rotmats, aim.camera) - pelvis(seen.fits.rotmats, seen.fits.camera)).norm() < 1

def test_a_back_is_said_to_be_made_up(tool, person, seen):
    turned = tool.aim('walk', seen).rotmats[0].clone()
    turned[0] = torch.diag(torch.tensor([-1., 1, -1]))@turned[0]
    with pytest.warns(UserWarning, match='% of what this pose shows'): repose(person[0], turned, tool, **person[1])

def test_somebody_elses_pose_and_camera(tool, person):
    other = People(192, 'valid', poses='everyday', yaw=30., device='cpu').photos([4])
    photo, known = person
    assert far(repose(photo, other, tool, **known), repose(photo, other.keypoints, tool, retarget=False, **known)) > 0

REFUSED = {'a colour that is none': (dict(background='cloudy'), 'Take keep, plain, transparent, or a colour'),
           'a size that is none': (dict(size=0), '16 to 4096'),
           'a huge size': (dict(size=10**6), '16 to 4096'),
           'yes as size': (dict(size=True), '16 to 4096'),
           'a matte of another size': (dict(matte=Image.new('L', (9, 9))), 'Give one of 192 x 192'),
           'two mattes': (dict(matte=[None]*2), 'mattes for 1 photos')}

@pytest.mark.parametrize('case', REFUSED)
def test_refused_in_one_line(case, tool, person):
    change, says = REFUSED[case]
    photo = [person[0]] if isinstance(change.get('matte'), list) else person[0]
    with pytest.raises(DataError) as e: repose(photo, 'walk', tool, **(person[1] | dict(keypoints=[person[1]['keypoints']] if isinstance(photo, list)
                                                                                        else person[1]['keypoints']) | change))
    assert says in str(e.value) and '\n' not in str(e.value)

def test_systems_of_one_size_refuse_others(person):
    tool = Reposer(make_system('spice', 'tiny'), device='cpu')
    for change in (dict(size=512), dict(background='plain')):
        with pytest.raises(DataError, match='this system makes pictures of 64 x 64'): repose(person[0], 'walk', tool, person[1]['keypoints'], **change)
    assert repose(person[0], 'walk', tool, person[1]['keypoints'], size=64).size == (64, 64)

def test_the_matte_of_joints_that_are_somewhere_else(person, monkeypatch):
    "Joints were given, BlazePose finds the person for the matte; nobody near them is no answer"
    photo, known = person
    monkeypatch.setattr(reposer, 'detect', lambda *_: [known['keypoints']])
    away = Keypoints(known['keypoints'].points + torch.tensor([500., 0, 0]), (192, 192))
    with pytest.raises(ImageError, match='was not found in the photo'): reposer.matte_around(photo, away)

def test_the_command_writes_pastes_and_alpha(tool, person, tmp_path):
    tool.system.save_pretrained(tmp_path/'model')
    person[0].save(tmp_path/'me.png')
    np.save(tmp_path/'joints.npy', person[1]['keypoints'].points[0].numpy())
    def found(*_): return person[1]['matte']
    kept, reposer.matte_around = reposer.matte_around, found
    how = dict(model=str(tmp_path/'model'), keypoints=str(tmp_path/'joints.npy'), device='cpu')
    try: made = spice_repose(str(tmp_path/'me.png'), 'walk', out=str(tmp_path/'out'), background='transparent', size=100, **how)
    finally: reposer.matte_around = kept
    with Image.open(made[0]) as picture: assert (picture.mode, picture.size) == ('RGBA', (100, 100))

def test_a_film_stands_still(tool, person):
    film = animate(person[0], 'walk', tool, fps=5, size=96, **person[1])
    frames = np.stack([np.asarray(o) for o in film]).astype(int)
    assert len(frames) == len(film) and (frames[:, :, :15] == frames[:1, :, :15]).all() and np.abs(frames - frames[:1]).max() > 30
    with pytest.raises(DataError, match='no transparent background'): animate(person[0], 'walk', tool, background='transparent', **person[1])

def test_saved_and_loaded(tool, tmp_path):
    tool.system.save_pretrained(tmp_path)
    assert load_system(tmp_path, 'cpu').size == (128, 128) and load_system('photos', 'cpu').any_size

def test_colours_come_from_inside_the_outline():
    matte = torch.zeros(1, 1, 256, 256)
    matte[..., 100:150, 100:150] = 1
    assert inner_matte(matte).sum() == 48*48 and inner_matte(matte[..., ::2, ::2]).sum() == 25*25   # small pictures keep all

def test_carried_without_its_trust():
    x = torch.rand(1, 15, 8, 8)
    x[:, 4:8] = 0
    x[:, 7, :4] = .5
    colour = torch.rand(1, 3, 8, 8)*2 - 1
    x[:, :3] = colour*x[:, 4:8].sum(1, keepdim=True)
    assert torch.allclose(carried_of(x)[:, :, :4], colour[:, :, :4], atol=1e-6) and (carried_of(x)[:, :, 4:] == 0).all()
    x[:, 9:12] = -1
    x[:, 9:12, :4] = 0
    assert float(shown_share(x)) == pytest.approx(.5)

def test_part_statistics_against_a_loop():
    maps, parts = torch.rand(2, 3, 16, 16), torch.randint(0, 5, (2, 16, 16))
    mean, spread, share = part_statistics(maps, parts, 5)
    for i in range(2):
        for p in range(1, 5):
            some = maps[i][:, parts[i] == p]
            assert torch.allclose(mean[i, p - 1], some.mean(1), atol=1e-5)
            assert torch.allclose(spread[i, p - 1], some.std(1, correction=0).clamp(min=1e-5**.5), atol=1e-3)
            assert float(share[i, p - 1]) == pytest.approx(some.shape[1]/256)
    assert float(parts_term(maps, parts, maps, parts)) == 0

def test_strangers_teach_the_network_and_only_it():
    with seeded(0): net, adversarial = GuidedNet(GuidedSettings((8, 16), size=64)), Adversarial(small_critic(2), 'hinge')
    body, people = free_body('cpu'), People(256, 'test', poses='everyday', samples=1, device='cpu')
    rounds = Rounds(people_album(people, [6, 14, 4]), body, 64)
    meeting = meet(rounds, 3, 0)
    assert torch.equal(meet(rounds, 3, 0).photo, meeting.photo) and not torch.equal(meet(rounds, 3, 1).photo, meeting.photo)
    terms, picture = stranger_terms(net, adversarial, meeting, torch.zeros(3, 3, 1, 1))
    for name, term in terms.items():
        gradient = torch.autograd.grad(term, net.leave.weight, retain_graph=True)[0]
        assert gradient.abs().sum() > 0, name
    loss = adversarial.for_critic(picture, meeting.there.wheel, meeting.photo, meeting.home.wheel)
    assert torch.autograd.grad(loss, net.leave.weight, allow_unused=True)[0] is None

def test_a_portrait_needs_a_matte(tool, seen):
    from dataclasses import replace
    with pytest.raises(ImageError, match='which pixels are the person'): tool.portrait(replace(seen, matte=None))
    assert isinstance(tool.portrait(seen), Portrait)

def test_the_hem_of_somebody_who_sits():
    "Thighs that point at the camera are short in the picture; shins hang open below the knees"
    skin, joints = torch.zeros(1, 64, 64, dtype=torch.bool), torch.zeros(1, 24, 2)
    skin[:, 28:62, 16:20] = skin[:, 28:62, 44:48] = True
    for o, x in (([1, 4, 7], 46.), ([2, 5, 8], 18.)): joints[:, o, 0] = x
    for o, y in (([1, 2], 30.), ([4, 5], 34.), ([7, 8], 60.)): joints[:, o, 1] = y
    between, down = between_legs(skin, joints)
    assert (down[0, 35:60] > .5).all() and (down[0, :34] < .5).all() and (down.diff(dim=1) >= 0).all()
    assert between[0, 40, 20:44].all() and not between[0, 40, :20].any() and not between[0, :30].any()
