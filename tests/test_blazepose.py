"The networks and where they come from; people in photos of every kind; mattes."
import subprocess, zipfile
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from spice import blazepose as module
from spice.blazepose import NETWORKS, BlazePose, Found, find_networks, mask_beside, mask_of, read_boxes, unpack_networks
from spice.core import ImageError, WeightsError, read_image, to_pil
from spice.detector import DETECTORS, detect, find_people, load_detector
from spice.keypoints import FLIP, Keypoints, cat_keypoints
from spice.matte import box_mean, colour_odds, guided, matte, recolour
from spice.people import People
from spice.reposer import feet_on

@pytest.fixture(scope='module')
def blazepose(): return BlazePose(2)

@pytest.fixture(scope='module')
def people(): return People(256, 'valid', poses='everyday', yaw=60., device='cpu').photos([0, 1, 2, 4])

@pytest.fixture(scope='module')
def photos(people): return to_pil(people.image)

@pytest.fixture
def home(tmp_path, monkeypatch):
    "An empty cache folder, and no mediapipe"
    paths = find_networks()
    monkeypatch.setenv('SPICE_HOME', str(tmp_path/'home'))
    monkeypatch.setattr(module, '_installed', lambda name: tmp_path/'none')
    return paths

def wheel(path, paths, change=lambda name, data: data):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, file in paths.items(): z.writestr(f'mediapipe/modules/x/{name}', change(name, file.read_bytes()))
    return path

def test_networks_are_taken_from_a_wheel_in_the_cache_folder(home, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, 'run', lambda *a, **k: pytest.fail('pip is not asked'))
    wheel(tmp_path/'home'/'blazepose'/'mediapipe-0.10.21-any.whl', home)
    found = find_networks(fetch=False)
    assert all(found[name].read_bytes() == home[name].read_bytes() for name in NETWORKS)
    found['pose_detection.tflite'].write_bytes(b'damaged')
    assert all(found[name].read_bytes() == home[name].read_bytes() for name in find_networks(fetch=False))   # and taken again

def test_an_installed_mediapipe_serves(home, tmp_path, monkeypatch):
    monkeypatch.setattr(module, '_installed', lambda name: home[name])
    assert find_networks(fetch=False) == home and not (tmp_path/'home').exists()

def test_pip_brings_the_wheel(home, tmp_path, monkeypatch, capfd):
    def pip(command, **kwargs):
        assert command[1:3] == ['-m', 'pip'] and 'mediapipe==0.10.21' in command and kwargs['stdin'] is subprocess.DEVNULL
        wheel(type(tmp_path)(command[-1])/'mediapipe-0.10.21.whl', home)
        return subprocess.CompletedProcess(command, 0, '', '')
    monkeypatch.setattr(subprocess, 'run', pip)
    assert [o.parent for o in find_networks().values()] == [tmp_path/'home'/'blazepose']*2
    said = capfd.readouterr().err
    assert said.count('\n') == 1 and '36 MB' in said

@pytest.mark.parametrize('change', [lambda name, data: data[:-1], lambda name, data: b'', lambda name, data: data + b'\0'*20_000_000])
def test_a_wrong_wheel_is_refused(home, tmp_path, change):
    path = wheel(tmp_path/'wrong.whl', home, change)
    with pytest.raises(WeightsError, match='wrong.whl does not hold the right pose_'): unpack_networks(path, tmp_path/'out')
    assert not (tmp_path/'out').exists()

def test_without_network_one_line_says_what_to_do(home, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, 'run', lambda command, **k: subprocess.CompletedProcess(command, 1, '', 'noise\nERROR: no route\n'))
    with pytest.raises(WeightsError) as e: BlazePose()
    line = str(e.value)
    assert '\n' not in line and 'no route' in line and 'pip download' in line and str(tmp_path/'home'/'blazepose') in line
    with pytest.raises(WeightsError, match='not asked to'): find_networks(fetch=False)
    (tmp_path/'home'/'blazepose').mkdir(parents=True)
    (tmp_path/'home'/'blazepose'/'mediapipe-0.whl').write_text('hello')
    with pytest.raises(WeightsError, match='is no wheel or damaged'): find_networks()

def test_joints_of_people_are_found(blazepose, people, photos):
    "Where they are, and left is left"
    found = find_people(photos, blazepose)
    assert [len(o) for o in found] == [1]*4
    for one, true in zip(found, people.keypoints):
        off, crossed = ((one.xy[0] - o).norm(dim=1)[one.valid[0]] for o in (true.xy[0], true.xy[0, list(FLIP)]))
        assert one.valid.sum() >= 14 and off.median() < 4 and off.mean() < 6 and off.mean() < crossed.mean()

def test_a_lying_person_is_turned_upright(blazepose, photos):
    upright, lying = find_people([photos[0], photos[0].transpose(Image.Transpose.ROTATE_90)], blazepose)
    x, y = upright.xy[0].unbind(1)
    assert (lying.xy[0] - torch.stack([y, 256 - x], 1)).norm(dim=1).median() < 4
    assert abs(abs(lying.people[0].region.angle - upright.people[0].region.angle) - np.pi/2) < .2
    down, side = upright.joints3d[0], lying.joints3d[0]                                     # metres are those of the photo, too
    assert (side - torch.stack([down[:, 1], -down[:, 0], down[:, 2]], 1)).norm(dim=1).median() < .1

def test_size_and_shape_do_not_matter(blazepose, photos):
    wide = Image.new('RGB', (700, 256), 'white'); wide.paste(photos[1], (300, 0))
    large = photos[1].resize((1536, 1536), Image.Resampling.BICUBIC)
    one, moved, grown = find_people([photos[1], wide, large], blazepose)
    shift = torch.tensor([300., 0])
    assert (moved.xy[0] - shift - one.xy[0]).norm(dim=1).median() < 3 and (grown.xy[0]/6 - one.xy[0]).norm(dim=1).median() < 3

@pytest.mark.parametrize('size', [(1, 1), (1, 300), (300, 1), (7, 5), (4000, 10)])
def test_odd_photos_hold_nobody(blazepose, size):
    assert len(blazepose.look(Image.new('RGB', size, 'grey'))) == 0
    with pytest.raises(ImageError, match='nobody was found in photo 0'): detect(Image.new('RGB', size), detector=blazepose)

def test_noise_holds_nobody(blazepose):
    g = np.random.default_rng(0)
    noise = [Image.fromarray(g.integers(0, 255, (30, 40, 3), dtype=np.uint8)).resize((400, 300), Image.Resampling.BICUBIC) for _ in range(12)]
    assert sum(len(o) for o in find_people(noise, blazepose)) == 0

def test_every_mode_of_picture(blazepose):
    photo = Image.fromarray(astronaut())
    for mode in ('L', 'RGBA', 'P', 'CMYK'): assert len(detect(photo.convert(mode), detector=blazepose)[0]) == 1

def test_threads_and_batches_change_nothing(photos):
    one, two = BlazePose(1).find(photos), BlazePose(2).find(photos*3)
    for k, found in enumerate(two): assert torch.equal(found.points, one[k % 4].points)

def test_feet_are_those_of_the_photo_and_of_its_box(blazepose, photos):
    "Ankles lie between heels and toes, and all move with the canvas"
    one = find_people([photos[0]], blazepose)[0][[0]]
    feet, ankles = one.feet, one.xy[0, [13, 10]]
    assert feet.shape == (1, 2, 2, 3) and (feet[0, ..., :2] - ankles[:, None]).norm(dim=2).max() < 30
    assert (feet[0, :, 1, :2] - feet[0, :, 0, :2]).norm(dim=1).max() < 45
    on = feet_on(one, (56, 106, 206, 256), (300, 300))
    assert torch.allclose(on[..., :2], (feet[..., :2] - torch.tensor([56., 106]))*2) and torch.equal(on[..., 2], feet[..., 2])

def test_people_keep_what_is_known_of_them(blazepose, photos):
    pair = Image.new('RGB', (512, 256)); pair.paste(photos[0], (0, 0)); pair.paste(photos[3], (256, 0))
    found = blazepose.find([pair])[0]
    assert len(found) == 2 and found.joints3d.shape == (2, 18, 3)
    for chosen in (found[1], found[[1]], found[torch.tensor([False, True])], found[1:], list(found)[1]):
        assert isinstance(chosen, Found) and chosen.people == [found.people[1]] and torch.equal(chosen.points[0], found.points[1])
    assert found.largest().resize(64).people[0] in found.people and found.to('cpu').people == found.people
    assert type(found.flip()) is Keypoints and type(cat_keypoints([found, found])) is Keypoints
    assert detect(pair, detector=blazepose)[0].points.shape == (1, 18, 3)

def test_the_others_are_masked(blazepose, people, photos):
    pair = Image.new('RGB', (512, 256)); pair.paste(photos[0], (0, 0)); pair.paste(photos[3], (256, 0))
    found = blazepose.find([pair])[0]
    sides = [np.asarray(mask_beside(found, found[k])).astype(float).reshape(256, 2, 256)/255 for k in found.points[:, :, 0].mean(1).argsort()]
    for k, side in enumerate(sides): # of the other one, who stands on the other side
        true = (people.parsing[3 - 3*k] > 0).numpy()
        overlap = (side[:, 1 - k] > .5) & true
        assert overlap.sum() > .8*true.sum() and side[:, k].mean() < .01
    assert mask_beside(found, found) is None and mask_beside(found[0], found[0]) is None
    assert mask_beside(Keypoints(found.points, found.size), found[0]) is None

def test_hardly_visible_joints_are_missing_but_known(blazepose):
    found = detect(astronaut(), detector=blazepose)[0]
    legs = [9, 10, 12, 13]
    assert not found.valid[0, legs].any() and np.isfinite(found.people[0].points).all() and (found.people[0].visible[25:29] < .1).all()

def test_names_of_detectors(monkeypatch):
    assert load_detector('blazepose', 'cpu') is load_detector(device='cpu') and isinstance(load_detector(), BlazePose) and 'rcnn' in DETECTORS
    with pytest.raises(WeightsError, match="no detector 'openpose'. Take blazepose or rcnn, or a folder"): load_detector('openpose')

def test_boxes_below_the_threshold_are_left_out():
    raw, logits = np.zeros((2254, 12), np.float32), np.full((2254, 1), -200., np.float32)
    logits[5] = 3.
    score, boxes = read_boxes(raw, logits)
    assert len(score) == 1 and np.allclose(boxes[0], module.ANCHORS[5])                      # a box without size, at its anchor

def test_equal_to_mediapipe(blazepose, photos):
    "Run where mediapipe is installed: visible joints within 2 pixels of 256, the same depth and mask"
    solutions = pytest.importorskip('mediapipe').solutions
    with solutions.pose.Pose(static_image_mode=True, model_complexity=1, enable_segmentation=True) as pose:
        for photo in [*photos, Image.fromarray(astronaut())]:
            theirs, ours = pose.process(np.asarray(photo)), blazepose.look(photo)[0]
            points = np.array([(o.x*photo.width, o.y*photo.height) for o in theirs.pose_landmarks.landmark]) + .5
            assert np.linalg.norm(points - ours.points, axis=1)[ours.visible > .5].mean()*256/photo.width < 2
            metres = np.array([(o.x, o.y, o.z) for o in theirs.pose_world_landmarks.landmark])
            assert np.abs(metres - ours.metres).max() < .1
            assert np.abs(theirs.segmentation_mask - np.asarray(mask_of(ours, photo.size[::-1]))/255).mean() < .03

# mattes

def test_guided_filter_against_its_definition():
    "The best linear function in each square, by least squares, pixel by pixel"
    g = torch.Generator().manual_seed(0)
    image, mask, r, eps = torch.rand(1, 3, 12, 14, generator=g), torch.rand(1, 1, 12, 14, generator=g), 2, .01
    a, b = torch.zeros(12, 14, 3), torch.zeros(12, 14)
    for y in range(12):
        for x in range(14):
            rows, cols = torch.arange(y - r, y + r + 1).clamp(0, 11), torch.arange(x - r, x + r + 1).clamp(0, 13)
            I, p = image[0][:, rows][:, :, cols].flatten(1).T, mask[0, 0][rows][:, cols].flatten()
            d = I - I.mean(0)
            a[y, x] = torch.linalg.solve(d.T@d/len(d) + eps*torch.eye(3), d.T@(p - p.mean())/len(d))
            b[y, x] = p.mean() - a[y, x]@I.mean(0)
    ab = box_mean(torch.cat([a, b[..., None]], 2).movedim(2, 0)[None], r)
    right = (ab[:, :3]*image).sum(1, keepdim=True) + ab[:, 3:]
    assert (guided(image, mask, image, r, eps, gain=1.) - right.clamp(0, 1)).abs().max() < 1e-4

def test_colours_decide_where_the_mask_does_not():
    "Left half red person, right half blue wall; in between the mask says one half"
    image = torch.zeros(1, 3, 20, 60); image[:, 0, :, :30], image[:, 2, :, 30:] = .8, .8
    mask = torch.full((1, 1, 20, 60), .5); mask[..., :24], mask[..., 36:] = 1, 0
    odds = colour_odds(image, mask, 15)
    assert (odds[..., 24:30] > 4).all() and (odds[..., 30:36] < -4).all()
    found = recolour(image, mask, 15)
    assert (found[..., 24:30] > .9).all() and (found[..., 30:36] < .1).all()
    same = recolour(torch.full_like(image, .5), mask, 15)
    assert (same[..., 26:34] - .5).abs().max() < .02                                         # one colour tells nothing

def test_a_matte_has_the_photos_size(blazepose, photos):
    for photo in (photos[0], photos[0].crop((60, 0, 200, 140)), photos[0].resize((900, 900))):
        person = blazepose.look(photo)[0]
        alpha = matte(photo, person)
        assert alpha.size == photo.size and alpha.mode == 'L' and alpha.getextrema() == (0, 255)
        assert read_image(photo).size == photo.size

def test_a_square_that_cuts_the_person_is_replaced(blazepose, photos):
    marker = module.Network(blazepose.paths['pose_landmark_full.tflite'])
    photo = photos[3]
    ask = lambda square: marker(np.asarray(module.crop_region(photo, square), np.float32)/255)
    whole = blazepose.look(photo)[0].region
    cut = module.Region(whole.center, .6*whole.side, whole.angle)
    own, out = module.whole_person(cut, ask, photo.size)
    assert module.reaches_edge(ask(cut)[2][..., 0], cut, photo.size) and cut.side*1.1 < own.side < whole.side*1.2 and out[1][0] > .5
    before, after = (module.read_person(1., square, ask(square)) for square in (cut, own))
    true = blazepose.look(photo)[0].points
    assert np.abs(after.points - true).mean() < np.abs(before.points - true).mean()
    everywhere = np.ones((256, 256))
    assert module.reaches_edge(everywhere, cut, (10**6, 10**6)) and not module.reaches_edge(everywhere, whole, (20, 20))
    nobody = [o*0 for o in out]
    assert module.whole_person(cut, lambda square: nobody, photo.size)[0] is cut
