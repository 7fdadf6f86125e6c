"""People: pinned photos, exact truth, splits that share nothing, disk, pool, bad input."""
import json
import numpy as np
import pytest
import torch
from pin_people import FILE, numbers, ten
from spice.body import load_body
from spice.core import DataError, one_thread, read_image
from spice.people.dressing import dress
from spice.people.fabric import DYES, cell_chance, dye, noise
from spice.people.garments import KINDS, cuts_of, measures, quarter_triangles
from spice.people import PARSING, SPLITS, VIEWS, People, Pool, free_body, parse
from spice.people.photo import dyes_of, grain
from spice.people.poses import chance, draw_rows, pose_rows, settle
from spice.surface import SEEN, render_body, warp
from spice.people.wardrobe import ATTRIBUTES, CLOTH, attributes, describe, labels, outfit

@pytest.fixture(scope='module')
def photos(): return People(96, 'valid', device='cpu').photos(np.arange(8))

@pytest.fixture(scope='module')
def pinned():
    with np.load(FILE) as f: return {k: f[k] for k in f.files}

@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU'))])
def test_ten_photos_are_pinned(pinned, device):
    now = {k: v.cpu().numpy() for k, v in numbers(ten(device)).items()}
    for k in ('points', 'rotmats', 'betas', 'center'): assert np.abs(now[k] - pinned[k]).max() < 1e-4*max(1, np.abs(pinned[k]).max()/10), k
    for k in ('focal', 'translation'): assert np.abs(now[k]/pinned[k] - 1).max() < 1e-4 or np.abs(now[k] - pinned[k]).max() < 1e-4, k
    for k in ('parsing', 'parts'): assert (now[k] == pinned[k]).mean() > .999, k
    assert (now['attributes'] == pinned['attributes']).all()
    assert (np.abs(now['image'].astype(int) - pinned['image']) > 8).mean() < .005

def test_keypoints_reproject(photos):
    body = free_body('cpu')
    for points in (body.skeleton(photos.rotmats, photos.betas)[1], body(photos.rotmats, photos.betas).keypoints):
        assert (photos.camera.project(points)[..., :2] - photos.points[..., :2]).abs().max() < .01

def test_R_is_that_body(photos):
    again = render_body(load_body('free'), photos.rotmats, photos.betas, photos.camera)
    assert torch.equal(again.wheel, photos.wheel) and torch.equal(again.parts, photos.surface.parts)

def test_body_is_under_the_clothes(photos):
    covered = photos.parsing > 0
    assert ((photos.surface.mask & covered).sum() / photos.surface.mask.sum()) > .98
    assert (covered.sum((1, 2))/photos.surface.mask.sum((1, 2))).max() < 3       # and the person isn't much bigger than the body

def test_person_fills_the_frame():
    photos = People(128, 'test', device='cpu').photos(np.arange(16))
    tall = torch.stack([(o > 0).any(1).float().sum() for o in photos.parsing])/128
    wide = torch.stack([(o > 0).any(0).float().sum() for o in photos.parsing])/128
    assert ((tall > .82) & (tall < .96) | (wide > .88)).all()

def test_left_and_right_agree_with_the_skeleton(photos):
    "Seen bare wrists lie on their own arm's label"
    hits = 0
    for i in range(len(photos)):
        for joint, own, other in ((4, 7, 6), (7, 6, 7)):
            if not photos.seen[i, joint]: continue
            x, y = photos.points[i, joint, :2].long()
            near = photos.parsing[i, max(0, y - 2):y + 3, max(0, x - 2):x + 3]
            if (near == own).any() or (near == other).any(): hits += 1; assert (near == own).sum() >= (near == other).sum()
    assert hits >= 4

def test_hidden_joints_are_hidden(photos):
    "Of someone seen from behind, nose and eyes are not seen"
    behind = People(96, 'valid', poses='stand', noise=0., device='cpu')
    rows = pose_rows(['stand', 'stand']); rows[1, 9] = 180.
    outfits, views = behind.seeds([3, 3], 0)
    seen = behind.render(outfits, rows, views).seen
    assert seen[0, [0, 14, 15]].all() and not seen[1, [0, 14, 15]].any()
    assert seen[:, [2, 5, 8, 11]].all()

def test_batches_do_not_matter(photos):
    people = People(96, 'valid', device='cpu')
    one = people.photos([6])
    assert (one.points - photos.points[6:7]).abs().max() < 1e-3
    assert (one.parsing == photos.parsing[6:7]).float().mean() > .999
    assert ((one.image - photos.image[6:7]).abs() > .004).float().mean() < .0005           # half a step of 255: last bits, and an edge here and there

def test_a_photo_knows_nothing_of_the_others():
    "Crops of several sizes, shadows of clothes: each as if it were alone"
    people = People(64, 'train', crop='mixed', device='cpu')
    many, few = people.photos(np.arange(9)), people.photos(np.arange(3, 9))
    assert ((many.image[3:] - few.image).abs() > .004).float().mean() < .0005

def test_splits_share_nothing():
    ends = {k: (first, first + count) for k, (first, count) in SPLITS.items()}
    assert sorted(SPLITS) == ['test', 'train', 'valid'] and SPLITS['valid'][1] == 200 and SPLITS['test'][1] == 1000
    outfits = sorted(ends.values())
    assert all(a[1] <= b[0] for a, b in zip(outfits, outfits[1:]))
    views = sorted((a*VIEWS, b*VIEWS) for a, b in ends.values())
    assert all(a[1] <= b[0] for a, b in zip(views, views[1:]))
    assert max(b for _, b in views) < 2**62
    light = lambda split: chance(People(64, split, device='cpu').seeds(np.arange(50), 0)[0], 'studio', 1).round(9)[:, 0].tolist()
    assert not set(light('train')) & set(light('test'))

def test_true_flow_warps_one_photo_into_the_other():
    source, target = People(128, 'valid', yaw=40., device='cpu').pairs(np.arange(6))
    flow, visibility = target.flow_from(source)
    both = (visibility == SEEN)[:, None]
    difference = lambda o: float(((o - target.image).abs()*both).sum()/both.sum()/6)
    assert difference(warp(source.image, flow)) < .5*difference(source.image)

def test_flow_needs_the_same_people(photos, bad_input):
    with pytest.raises(DataError, match='photos of different people'): photos[:2].flow_from(photos[2:4])

def test_studio_of_a_session():
    "The corners of the two photos of an outfit look alike in a session, and not otherwise"
    corner = lambda studio: [o.image[:, :, :6, :6].mean((2, 3)) for o in People(64, 'valid', studio=studio, device='cpu').pairs(np.arange(6))]
    (a, b), (c, d) = corner('session'), corner('photo')
    assert (a - b).abs().max() < .06 and (c - d).abs().max() > .1

def test_photos_differ(photos):
    flat = photos.image.flatten(1)
    assert torch.cdist(flat, flat).add(torch.eye(len(flat))*1e9).min() > 10
    assert photos.image.min() >= -1 and photos.image.max() <= 1 and photos.image.std() > .2

def test_rectangular_pictures():
    photos = People((128, 64), 'train', device='cpu').photos([5], [3])
    assert photos.image.shape == (1, 3, 128, 64) and photos.parsing.shape == (1, 128, 64)
    assert (photos.parsing > 0).float().mean() > .1

def test_film_stands_still():
    film = People(64, 'valid', device='cpu').film(3, 'walk', 4)
    assert film.camera.focal.std() < 1e-3 and (film.camera.translation[:, 2].max() - film.camera.translation[:, 2].min()) < .2
    assert (film.image[0] - film.image[2]).abs().mean() > .005

def test_written_photos(tmp_path):
    people = People(64, 'train', device='cpu')
    people.write(tmp_path, [4, 9], views=(0,))
    with np.load(tmp_path/'truth'/'train_000009_000.npz') as f:
        assert f['rotmats'].shape == (24, 3, 3) and str(f['body']) == free_body('cpu').hash
        assert np.abs(f['points'] - people.photos([9]).points[0].numpy()).max() < 1e-3
    assert json.loads((tmp_path/'outfits.json').read_text())['train_000004'] == outfit(4)
    assert set(np.unique(np.asarray(read_image(tmp_path/'parsing'/'train_000004_000.png')))) <= set(range(10))
    before = {o: o.read_bytes() for o in tmp_path.rglob('*.*')}
    for o in ('truth/train_000004_000.npz', 'photos/train_000004_000.png'): (tmp_path/o).unlink() # as if stopped in the middle
    with one_thread(): people.write(tmp_path, [4, 9], views=(0,))
    assert {o: o.read_bytes() for o in tmp_path.rglob('*.*')} == before                   # and the same bytes

def test_pool_renews_the_oldest():
    pool = Pool(People(64, 'train', device='cpu'), 6, batch=3)
    first = pool.store['views'].clone()
    pool.renew(2); pool.renew(2)
    assert (pool.store['views'] != first).tolist() == [True]*4 + [False]*2
    some = pool[torch.tensor([5, 0])]
    body = free_body('cpu')
    assert (some.camera.project(body.skeleton(some.rotmats, some.betas)[1])[..., :2] - some.points[..., :2]).abs().max() < .01
    assert some.image.min() >= -1 and some.image.max() <= 1

@pytest.mark.parametrize('what, says', [
    (dict(split='holdout'), "split is 'holdout'"), (dict(crop='head'), "crop is 'head'"), (dict(studio='beach'), "studio is 'beach'"),
    (dict(poses=('stand', 'fly')), r"unknown poses \['fly'\]"), (dict(poses=()), 'unknown poses'), (dict(size=0), 'size')])
def test_bad_settings(what, says, bad_input):
    with pytest.raises(ValueError, match=says): People(**(dict(size=64, device='cpu') | what))

def test_bad_numbers(bad_input):
    people = People(64, 'valid', device='cpu')
    for args, says in (([[200]], 'valid has 0 to 199'), ([[-1]], 'valid has 0 to 199'), ([[0], [128]], 'from 0 to 127'), ([[]], 'Give a list')):
        with pytest.raises(DataError, match=says): people.photos(*args)

def test_outfits_are_data():
    for seed in (0, 5, 2**41 + 3, 2**42 + 999):
        o = outfit(seed)
        assert json.loads(json.dumps(o)) == o and outfit(seed) == o
        assert set(attributes(o)) == set(ATTRIBUTES) and len(labels(o)) == len(ATTRIBUTES)
        assert all(np.isfinite(v) for v in measures(o).values())
        assert describe(o)

def test_every_word_is_worn():
    seen = {k: set() for k in ATTRIBUTES}
    for seed in range(1500):
        for k, v in attributes(outfit(seed)).items(): seen[k].add(v)
    assert all(seen[k] == set(words) for k, words in ATTRIBUTES.items())

def test_labels_describe_the_picture():
    "Colours by name are the colours of the photo: tops of plain red, on average, are red"
    people, found = People(64, 'train', poses='stand', yaw=20., device='cpu'), []
    for seed in range(400):
        o = outfit(seed)
        if o['top']['pattern'] == 'plain' and o['top']['colours'][0] in ('red', 'green', 'blue', 'yellow') and not o['over']: found.append(seed)
    photos = people.photos(found[:8])
    for i, seed in enumerate(found[:8]):
        mean = photos.image[i][:, photos.parsing[i] == 3].mean(1)*.5 + .5
        colours = {k: torch.tensor(CLOTH[k]) for k in ('red', 'green', 'blue', 'yellow')}
        unit = lambda o: torch.nn.functional.normalize(o, dim=0)
        assert max(colours, key=lambda k: float(unit(colours[k])@unit(mean))) == outfit(seed)['top']['colours'][0]

def test_clothes_cover_what_they_should():
    "Long sleeves leave no bare upper arm, trousers no bare knee"
    wears = []
    for seed in range(300):
        o = outfit(seed)
        if o['top']['sleeve'] == 'long' and o['bottom'] and o['bottom']['kind'] in ('trousers', 'jeans') and o['bottom']['length'] == 'full': wears.append(seed)
    people = People(96, 'train', poses='arms_open', noise=.2, yaw=20., device='cpu')
    photos = people.photos(wears[:6])
    for i in range(6):
        for joint in (3, 6, 9, 12):                                              # elbows, knees
            if photos.seen[i, joint]:
                x, y = photos.points[i, joint, :2].long()
                assert photos.parsing[i, y, x] in (3, 4), (wears[i], joint)

def test_noise_is_the_same_everywhere():
    at = torch.rand(100, 3)*64
    assert (noise(at) - noise(at.double()).float()).abs().max() < 1e-3
    assert torch.equal(cell_chance(torch.tensor([3]), torch.tensor([-4]), torch.tensor([7])), cell_chance(torch.tensor([3]), torch.tensor([-4]), torch.tensor([7])))
    assert 0 <= cell_chance(torch.arange(1000), torch.arange(1000), torch.zeros(1000)).min() and grain(torch.tensor([1]), (8, 8)).shape == (1, 3, 8, 8)

def test_dyes_stay_in_range():
    n = 500
    g = torch.Generator().manual_seed(0)
    for k in range(len(DYES)):
        out = dye(torch.full((n,), k), torch.rand(n, generator=g) - .5, torch.rand(n, generator=g), torch.rand(n, 3, 3, generator=g), torch.full((n,), .05), torch.full((n,), .4), torch.arange(n))
        assert out.shape == (n, 3) and (out >= .01).all() and (out <= 1).all()

def test_halving_keeps_the_surface():
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    points = np.array([[0., 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    pairs, finer = quarter_triangles(faces, 4)
    area = lambda p, f: np.linalg.norm(np.cross(p[f[:, 1]] - p[f[:, 0]], p[f[:, 2]] - p[f[:, 0]]), axis=1).sum()/2
    assert abs(area(points[pairs].mean(1), finer) - area(points, faces)) < 1e-12

def test_dressing_is_a_function_of_its_people():
    "Each person's triangles are the same alone and in a crowd"
    body, people = load_body('free'), [outfit(i) for i in (3, 8, 21)]
    betas = torch.tensor([o['body'] for o in people])
    R, h = settle(draw_rows([3, 8, 21]), body, betas)
    crowd, alone = dress(body, R, betas, cuts_of(people), 1, h), dress(body, R[1:2], betas[1:2], cuts_of(people[1:2]), 1, h[1:2])
    mine = crowd.faces[crowd.image == 1]
    assert len(mine) == len(alone.faces) and (crowd.verts[mine] - alone.verts[alone.faces]).abs().max() < 1e-4
    assert set(crowd.kind.unique().tolist()) <= set(range(len(KINDS)))
    assert len(dyes_of(people).pattern) == 3

def test_parsing_labels():
    rest = torch.tensor([[0., .68, .1], [.5, .45, 0], [-.5, .45, 0], [.1, -.5, 0], [-.1, -.5, 0], [0., .3, .1]])
    assert parse(torch.zeros(6, dtype=torch.long), rest).tolist() == [1, 6, 7, 8, 9, 1]
    assert [PARSING[i] for i in parse(torch.tensor([1, 3, 4, 7, 5]), rest[[5, 3, 3, 0, 3]]).tolist()] == ['upper clothes', 'trousers', 'skirt', 'hair', 'left leg']
