"Photos of real people become prepared data: several in a photo, killed and gone on with, Clothing Co-Parsing, bad folders."
import json, os, time
import numpy as np
import pytest
import torch
from PIL import Image
from processes import Running
from scipy.io import savemat
from skimage.data import astronaut
from spice.core import DataError, ImageError, to_pil
from spice.sources import PhotoFolder
from spice.data import Prepared, prepare
from spice.detector import detect, load_detector
from spice.loaders import Couples, Unpaired
from spice.keypoints import Keypoints
from spice.people import People
from spice.prepare import Ccp, book_labels, nearest_limb, only_person, spice_prepare
from spice.sources import shot_of

@pytest.fixture(scope='module')
def photos(): return to_pil(People(256, 'valid', poses='everyday', yaw=60., device='cpu').photos([0, 1, 4]).image)

@pytest.fixture(scope='module')
def mine(photos, tmp_path_factory):
    "Two photos of one person, one of two, one of nobody"
    root = tmp_path_factory.mktemp('mine')
    photos[0].save(root/'one.png')
    Image.fromarray(astronaut()).save(root/'half.jpg', quality=95)
    pair = Image.new('RGB', (620, 300), 'white'); pair.paste(photos[1], (20, 20)); pair.paste(photos[2].resize((200, 200)), (380, 80))
    pair.save(root/'two.png')
    Image.new('RGB', (90, 70), 'grey').save(root/'wall.png')
    return root

def test_everybody_of_a_folder(mine, tmp_path, capsys):
    spice_prepare('folder', str(tmp_path/'out'), str(mine), size=128)
    said = capsys.readouterr().out
    data = Prepared(tmp_path/'out')
    assert data.names == ['half', 'one', 'two', 'two_2'] and data.groups == data.names           # everybody is somebody else
    assert data.landmarks.shape == (4, 33, 4) and data.joints3d.shape == (4, 18, 3) and torch.isfinite(data.joints3d).all()
    assert json.loads((tmp_path/'out'/'skipped.json').read_text()) == [['wall', 'nobody was found in photo 0 (the surest guess scores 0.02 of 1). Take a photo that shows a whole person, not too small']]
    assert data.bodies['how'] == 'smplify' and '4 fits' in said and (tmp_path/'out'/'prepared.png').is_file()
    for i in range(4):
        joints, alpha = data.points[i], data.matte(i)[0]
        seen = joints[(joints[:, 2] > .9) & (joints[:, :2] > 2).all(1) & (joints[:, :2] < 126).all(1)]
        on = alpha[seen[:, 1].long(), seen[:, 0].long()]
        assert len(seen) > 4 and (on > .5).float().mean() > .8                                # the matte lies where the joints do
        assert (data.landmarks[i, 0, :2] - joints[0, :2]).abs().max() < 1e-3                  # all of it on the same canvas
    assert data.parsing(0) is None and data.check() == []

def test_who_is_the_same_person(mine, tmp_path):
    "A folder of its own is one person; all others are different people, who are no pairs"
    root = tmp_path/'photos'
    for name in ('a.png', 'anna.png', 'anna/1.png', 'anna/2.png', 'ben/red/1.png'):
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        os.link(mine/'one.png', root/name)
    data = Prepared(prepare(PhotoFolder(root, 64), tmp_path/'out'))
    assert dict(zip(data.names, data.groups)) == {'a': 'a', 'anna': 'anna', 'anna_1': 'anna/', 'anna_2': 'anna/', 'ben_red_1': 'ben/red/'}
    assert len(Couples(data)) == 2 and len(Unpaired(data)) == 5

def test_other_people_do_not_share_a_matte(mine):
    photo = Image.open(mine/'two.png').convert('RGB')
    found = detect(photo, 'all')[0]
    left, right = sorted((shot_of(photo, one, (128, 128)) for one in found), key=lambda shot: shot.box[0])
    assert left.box[2] < 420 and right.box[0] > 200

def test_killed_and_gone_on_with(mine, tmp_path):
    "The second start goes on, and makes the same"
    root = tmp_path/'many'
    for k in range(3): (root/f'{k}').mkdir(parents=True)
    for k in range(36): os.link(mine/('one.png', 'two.png', 'wall.png')[k % 3], root/f'{k % 3}'/f'{k:02d}.png')
    code = f"from spice.data import PhotoFolder, prepare; prepare(PhotoFolder({str(root)!r}, 64), {str(tmp_path/'out')!r})"
    run = Running(code)
    first = tmp_path/'out'/'parts'/'00000.npz'
    for _ in range(1200):
        if first.exists() or run.returncode is not None: break
        time.sleep(.02)
    run.kill()
    assert first.exists()
    if (tmp_path/'out'/'manifest.json').exists(): pytest.skip('it was faster than the signal')
    stamp = first.stat().st_mtime_ns
    prepare(PhotoFolder(root, 64), tmp_path/'out')
    prepare(PhotoFolder(root, 64), tmp_path/'whole')
    assert first.stat().st_mtime_ns == stamp
    for sub in ('images', 'mattes'):
        names = sorted(o.name for o in (tmp_path/'whole'/sub).iterdir())
        assert names == sorted(o.name for o in (tmp_path/'out'/sub).iterdir()) and len(names) == 36
        for name in names: assert (tmp_path/'out'/sub/name).read_bytes() == (tmp_path/'whole'/sub/name).read_bytes()
    assert (tmp_path/'out'/'keypoints.npz').read_bytes() == (tmp_path/'whole'/'keypoints.npz').read_bytes()

NAMES = ['null', 'skin', 'hair', 'dress', 'jeans', 'shoes', 'bag'] + [
    'accessories', 'belt', 'blazer', 'blouse', 'bodysuit', 'boots', 'bra', 'bracelet', 'cape', 'cardigan', 'clogs', 'coat', 'earrings', 'flats', 'glasses', 'gloves', 'hat', 'heels',
    'hoodie', 'intimate', 'jacket', 'jumper', 'leggings', 'loafers', 'necklace', 'panties', 'pants', 'pumps', 'purse', 'ring', 'romper', 'sandals', 'scarf', 'shirt', 'shorts', 'skirt',
    'sneakers', 'socks', 'stockings', 'suit', 'sunglasses', 'sweater', 'sweatshirt', 'swimwear', 't-shirt', 'tie', 'tights', 'top', 'vest', 'wallet', 'watch', 'wedges']

def clone(root, photos, labels=None):
    "Something like a clone of Clothing Co-Parsing"
    for sub in ('photos', 'annotations/pixel-level', 'annotations/image-level'): (root/sub).mkdir(parents=True)
    savemat(root/'label_list.mat', dict(label_list=np.array([NAMES], dtype=object)))
    for k, photo in enumerate(photos, 9):
        photo.save(root/'photos'/f'{k:04d}.jpg', quality=95)
        if k % 2: savemat(root/f'annotations/pixel-level/{k:04d}.mat', dict(groundtruth=np.full((photo.height, photo.width), 3, np.uint8) if labels is None else labels))
        else: savemat(root/f'annotations/image-level/{k:04d}.mat', dict(tags=np.array([[0, 2, 4]])))
    return root

def test_clothing_coparsing(photos, mine, tmp_path, capsys):
    root = clone(tmp_path/'ccp', [photos[0], photos[1], Image.open(mine/'two.png').convert('RGB'), Image.fromarray(astronaut())])
    spice_prepare('ccp', str(tmp_path/'out'), str(root), size=64, json=True)
    said = capsys.readouterr().out
    data = Prepared(tmp_path/'out')
    assert data.splits == dict(train=['0009'], test=['0010']) and data.manifest['kind'] == 'ccp' and '4 here, 2,098 in the papers' in said
    assert [name for name, _ in json.loads((tmp_path/'out'/'skipped.json').read_text())] == ['0011', '0012']
    assert json.loads((tmp_path/'out'/'tags.json').read_text()) == {'0009': ['dress'], '0010': ['hair', 'jeans']}
    worn = data.parsing(0)
    hips = int(data.points[0, [8, 11], 1].mean())
    assert set(worn[:hips - 1].unique().tolist()) <= {0, 3} and set(worn[hips + 1:].unique().tolist()) <= {0, 5} and data.parsing(1) is None

def test_damaged_labels_name_their_file(photos, tmp_path):
    root = clone(tmp_path/'ccp', photos[:1])
    (root/'annotations'/'pixel-level'/'0009.mat').write_bytes(b'MATLAB 5.0' + b'\0'*300)
    prepare(Ccp(root, 64), tmp_path/'out', detector=load_detector())
    (name, why), = json.loads((tmp_path/'out'/'skipped.json').read_text())
    assert name == '0009' and 'can not be read' in why
    (root/'label_list.mat').write_bytes(b'x')
    with pytest.raises(DataError, match='label_list.mat can not be read'): Ccp(root)
    (root/'label_list.mat').unlink()
    with pytest.raises(DataError, match='no file label_list.mat. Clothing Co-Parsing is the public repository'): Ccp(root)

def test_skin_goes_to_the_nearest_limb():
    points = torch.zeros(1, 18, 3)
    for joint, x, y in ((0, 50, 10), (1, 50, 20), (2, 40, 20), (3, 30, 40), (4, 25, 60), (5, 60, 20), (6, 70, 40), (7, 75, 60), (9, 45, 80), (10, 45, 95), (8, 45, 60), (11, 55, 60)):
        points[0, joint] = torch.tensor([x, y, 1.])
    someone = Keypoints(points, 100)
    names = dict(zip(('face', 'right arm', 'left arm', 'right leg', 'left leg'), (1, 7, 6, 9, 8)))
    for where, part in (((11, 50), 'face'), ((58, 24), 'right arm'), ((45, 72), 'left arm'), ((94, 45), 'right leg'), ((94, 60), 'right leg')):   # the left leg is not known
        assert nearest_limb(someone, np.array([where[0]]), np.array([where[1]]), tuple(names))[0] == names[part], where
    labels = np.zeros((100, 100), np.int64); labels[11, 50], labels[94, 45], labels[50, 50], labels[70, 50] = 1, 5, 6, 3
    found = book_labels(labels, NAMES, someone)
    assert (found[11, 50], found[94, 45], found[50, 50], found[70, 50]) == (1, 9, 0, 5)

def test_who_is_whole_and_alone(photos):
    one = detect(photos[0])[0]
    assert torch.equal(only_person(one).points, one.points)
    with pytest.raises(ImageError, match='head or feet are not in the photo'): only_person(detect(Image.fromarray(astronaut()))[0])
