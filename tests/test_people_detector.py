"People's detector: its frames, its loss, what it learns, and that it fits where keypoint R-CNN does."
import json
import os
import signal

import pytest
import torch
from fastai.callback.core import Callback
from PIL import Image

from spice.core import ImageError, SpiceError, WeightsError, set_seed, to_pil
from spice.sources import PhotoFolder
from spice.data import Prepared, prepare
from spice.detector import Detector, detect
from spice.keypoints import FLIP, Keypoints, heatmaps, named_skeleton
from spice.people import People, Pool
from spice.network_training import JointTraining, spice_detector, train_detector
from spice.people.people_detector import JointNet, PeopleDetector, detector_errors, detector_step, from_square, joint_settings, map_loss, pck, read_maps, to_square
from spice.regressor import Regressor, Shots, squared

@pytest.fixture(scope='module')
def pool(): return Pool(People(64, 'train', device='cpu', samples=2), 12)

class Given(JointNet):
    "Maps drawn from known keypoints of one photo, whatever it looks at"
    def __init__(self, keypoints):
        super().__init__('tiny')
        self.given = heatmaps(to_square(keypoints, 16).points, 16, sigma=1.)
    def forward(self, images): return self.given.expand(len(images), -1, -1, -1).clamp(1e-6, 1 - 1e-6).logit()

@pytest.mark.parametrize('size', [(64, 64), (81, 60), (60, 81), (200, 99), (7, 300)])
def test_frames_go_there_and_back(size):
    points = torch.cat([torch.rand(3, 18, 2)*torch.tensor([size[1], size[0]]), torch.ones(3, 18, 1)], 2)
    points[0, 3] = 0
    keypoints = Keypoints(points, size)
    square = to_square(keypoints, 32)
    assert square.size == (32, 32) and torch.allclose(from_square(square, size).points, points, atol=1e-3)

def test_the_frame_is_the_pictures():
    "A white dot on black lands where its keypoint lands"
    image, keypoints = torch.full((1, 3, 96, 61), -1.), Keypoints(torch.tensor([[[40.5, 20.5, 1.]]*18]), (96, 61))
    image[..., 20, 40] = 1
    small = squared(image, 48, -1.)[0, 0] + 1
    rows, cols = torch.meshgrid(torch.arange(48) + .5, torch.arange(48) + .5, indexing='ij')
    middle = torch.stack([(small*cols).sum(), (small*rows).sum()])/small.sum()
    torch.testing.assert_close(middle, to_square(keypoints, 48).xy[0, 0], atol=.02, rtol=0)

@pytest.mark.parametrize('size', [(64, 64), (120, 70), (70, 120)])
def test_joints_are_read_to_a_fraction_of_a_map_pixel(size):
    truth = named_skeleton('walk', size)
    found = PeopleDetector(Given(truth), 'cpu')(torch.zeros(2, 3, *size))
    assert isinstance(found, list) and len(found) == 2 and found[0].size == size
    both = truth.valid & found[1].valid
    assert both.sum() >= truth.valid.sum() - 1 and not found[1].valid[~truth.valid].any()
    assert (found[1].xy - truth.xy)[both].norm(dim=1).max() < .35*max(size)/16                # a third of a map's pixel
    assert found[0].scores[both].min() > .5

def test_missing_joints_and_nobody():
    walk = named_skeleton('walk', 64)
    assert not walk.valid.all()
    empty = Given(Keypoints(walk.points*0, 64))
    assert not PeopleDetector(empty, 'cpu')(torch.zeros(1, 3, 64, 64))[0].valid.any()
    with pytest.raises(ImageError, match='nobody was found in photo 0'): detect(Image.new('RGB', (64, 64)), detector=PeopleDetector(empty, 'cpu'))

def test_it_takes_the_place_of_the_other_detector(tmp_path):
    walk = named_skeleton('walk', (90, 60))
    detector = PeopleDetector(Given(walk), 'cpu')
    assert isinstance(detector, Detector)
    found = detect([Image.new('RGB', (60, 90)), Image.new('RGB', (60, 90))], detector=detector)
    assert [o.size for o in found] == [(90, 60)]*2
    (tmp_path/'photos').mkdir()
    for i in range(3): walk.draw()[0].save(tmp_path/'photos'/f'{i}.png')
    data = Prepared(prepare(PhotoFolder(tmp_path/'photos', 64), tmp_path/'out', detector=detector))
    assert len(data) == 3 and data.points.shape == (3, 18, 3) and (data.points[..., 2] > 0).sum(1).min() >= 16

def test_loss_is_lowest_at_the_answer():
    maps = heatmaps(named_skeleton('stand', 16).points, 16, sigma=1.)
    logits = maps.clamp(1e-6, 1 - 1e-6).logit().requires_grad_()
    loss = map_loss(logits, maps)
    loss.backward()
    assert 0 <= loss < 1e-3 and logits.grad.abs().max() < 1e-5
    worse = [map_loss(logits + .1*torch.randn_like(logits), maps) for _ in range(5)]
    assert min(worse) > loss + 1e-4
    assert map_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).item() == pytest.approx(16*.693147, rel=1e-4)
    assert torch.isfinite(map_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)))

def test_pck_by_hand():
    true = named_skeleton('stand', 100)
    left, top, right, bottom = true.box()[0]
    reach = .05*max(right - left, bottom - top)
    points = true.points.clone()
    points[0, 4, 0] += .9*reach
    points[0, 7, 0] += 1.1*reach
    points[0, 10, 2] = 0
    found = Keypoints(points, 100)
    one = pck(found, true)
    assert one['pck'] == pytest.approx(16/18) and one['missed'] == pytest.approx(1/18) and one['swapped'] == 0 and one['invented'] == 0
    assert pck(true, found)['invented'] == 1
    assert pck(found, true, only=torch.arange(18)[None] == 7)['pck'] == 0
    mirrored = Keypoints(true.points[:, list(FLIP)], 100)
    assert pck(mirrored, true)['swapped'] > .6 and pck(mirrored, true)['pck'] < .4

def test_mirrored_photos_want_mirrored_joints(pool):
    "A batch of mirrored photos trains like photos that were mirrored before"
    net = JointNet('tiny').eval()
    batch, every = Shots(pool)(torch.arange(12)), torch.ones(12, dtype=torch.bool)
    with torch.no_grad():
        a = detector_step(net, batch, every)['maps']
        flipped = Keypoints(batch['points'], 64).flip()
        b = map_loss(net(batch['image'].flip(3)), heatmaps(to_square(flipped, 16).points, 16, sigma=1.))
    torch.testing.assert_close(a, b)

def test_it_learns_from_photos_and_keypoints_alone(pool):
    set_seed(0)
    other = Pool.__new__(Pool)
    other.people, other.store = pool.people, {k: pool.store[k] for k in ('image', 'points')}
    net = train_detector(other, 90, JointNet('tiny'), bs=12, lr=1e-2, mirror=0.)
    assert net.name == 'joints-resnet10-w8-64-people'
    photos = pool[torch.arange(12)]
    untrained, trained = (detector_errors(PeopleDetector(o, 'cpu'), photos) for o in (JointNet('tiny'), net))
    assert untrained['missed'] == 1 and trained['pck'] > .5 and trained['photos'] == 12

@pytest.mark.parametrize('at', [1, 3, 4])
def test_ctrl_c_in_the_middle_of_a_step(pool, tmp_path, monkeypatch, at):
    "The step is finished and saved; going on ends with the same weights, and NaN is never saved"
    def make():
        set_seed(3)
        return JointNet('tiny')
    terms = JointTraining.terms
    steps = iter(range(1, 9))
    def impatient(self, batch):
        if next(steps) == at: os.kill(os.getpid(), signal.SIGINT)
        return terms(self, batch)
    whole = train_detector(pool, 4, make(), bs=6)
    monkeypatch.setattr(JointTraining, 'terms', impatient)
    with pytest.raises(SpiceError, match=f'stopped at step {at} of 4. The same command'): train_detector(pool, 4, make(), tmp_path, bs=6)
    again = train_detector(pool, 4, make(), tmp_path, bs=6)
    for k, v in whole.state_dict().items(): assert torch.equal(again.state_dict()[k], v)
    with pytest.raises(WeightsError, match='has done 4 steps already, not 2'): train_detector(pool, 2, make(), tmp_path, bs=6)

def test_nan_is_never_saved(pool, tmp_path):
    class Broken(Callback):
        def after_step(self):
            if self.learn.done == 1: next(self.learn.model.net.parameters()).data.fill_(torch.nan)
    for every, says in ((1, 'is not finite after step 2, which is not saved'), (10, 'maps is not finite at step 2')):
        with pytest.raises(SpiceError, match=says): train_detector(pool, 3, JointNet('tiny'), tmp_path/str(every), every, [Broken()], bs=6)
    assert {o.name for o in tmp_path.rglob('*.pt')} == {'step_0000001.pt', 'bad_batch_0000002.pt'}
    with pytest.raises(SpiceError, match='maps is not finite at step 2. Lower the rate'): train_detector(pool, 3, JointNet('tiny'), None, 10, [Broken()], bs=6)

def test_saved_loaded_and_resumed(pool, tmp_path):
    def make():
        set_seed(3)
        return JointNet('tiny')
    class Stop(Callback):
        def after_batch(self):
            if self.learn.done == 3: raise KeyboardInterrupt
    whole = train_detector(pool, 4, make(), bs=6)
    with pytest.raises(KeyboardInterrupt): train_detector(pool, 4, make(), tmp_path, 2, [Stop()], bs=6)
    train_detector(pool, 4, make(), tmp_path, 2, bs=6)
    again = JointNet.from_pretrained(tmp_path, 'cpu')
    for k, v in whole.state_dict().items(): torch.testing.assert_close(again.state_dict()[k], v, atol=1e-6, rtol=1e-5)
    photo = to_pil(pool[torch.arange(1)].image)[0]
    assert detect(photo, detector=PeopleDetector(Given(named_skeleton('wave', 64)), 'cpu'))[0].valid.any()
    assert PeopleDetector(str(tmp_path), 'cpu').net.name == again.name
    with pytest.raises(WeightsError, match='holds a JointNet, not a Regressor'): Regressor.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match='there is no such folder'): PeopleDetector(tmp_path/'nothing', 'cpu')
    with pytest.raises(WeightsError, match='belongs to another training'): train_detector(pool, 4, make(), tmp_path, bs=5)

def test_its_trunk_starts_a_regressor(tmp_path):
    net = JointNet('tiny')
    net.save_pretrained(tmp_path)
    other = Regressor('tiny').load_trunk(tmp_path)
    assert torch.equal(other.layer4[0].conv2.weight, net.layer4[0].conv2.weight)

def test_gradient_reaches_the_photo():
    photo = torch.randn(1, 3, 100, 70).requires_grad_()
    JointNet('tiny').eval()(photo).sum().backward()
    assert (photo.grad != 0).any(1).float().mean() > .9

def test_wrong_settings(bad_input):
    with pytest.raises(SpiceError, match='no preset'): joint_settings('large')
    with pytest.raises(SpiceError, match='no backbone'): JointNet(joint_settings('tiny', backbone='vgg'))
    with pytest.raises(ImageError, match='images of shape'): JointNet('tiny')(torch.zeros(3, 64, 64))
    assert read_maps(torch.zeros(1, 18, 16, 16), (64, 64)).valid.sum() == 0

def test_the_command(tmp_path, capsys):
    assert spice_detector(str(tmp_path/'out'), preset='tiny', steps=2, bs=4, photos=6, test=9, size=64, device='cpu') == tmp_path/'out'
    assert 'joints-resnet10-w8-64-people on 9 test photos' in capsys.readouterr().out
    figures = json.loads((tmp_path/'out'/'figures.json').read_text())
    assert figures['detector']['photos'] == 9 and len(figures['examples']) == 8
    assert JointNet.from_pretrained(tmp_path/'out', 'cpu').settings.learned_from == 'people'
