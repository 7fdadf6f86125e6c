"The regressor: SPIN's architecture and files, gradients, its losses, the fit in the loop, saving, resuming, bad files."
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback

from spice.body import load_body
from spice.core import DataError, ImageError, SpiceError, WeightsError, set_seed
from spice.callbacks import History, last_checkpoint, read_checkpoint
from spice.sources import PeoplePhotos
from spice.data import Prepared, prepare
from spice.network_training import RegressorTraining, spice_regressor, train_regressor
from spice.objective import Terms
from spice.people import People, Pool, free_body
from spice.regressor import (FitLoop, PlacedBodies, RegressedBodies, Regressor, RegressorWeights, Shots, load_spin, normalised, people_mean,
                             read_mean, regressor_errors, regressor_settings, regressor_step, regressor_terms, rotmats_to_six, six_to_rotmats,
                             squared)
from spice.smplify import Fits, Fitter, fit_keypoints
from spice.weights import Pretrained
from helpers import fake_smpl

TINY = regressor_settings('tiny')

@pytest.fixture(scope='module')
def pool(): return Pool(People(64, 'train', device='cpu', samples=2), 12)

@pytest.fixture(scope='module')
def body(): return free_body('cpu')

def photos_of(pool): return pool[torch.arange(len(pool))]
def blind(pool):
    "The same photos without any truth"
    other = Pool.__new__(Pool)
    other.people, other.store = pool.people, {k: pool.store[k].clone() for k in ('image', 'points')}
    return other

# SPIN's files

def spin_state():
    "Random weights under the public names and shapes, written out by hand"
    g = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=g)
    state = {}
    def conv(name, o, i, k): state[f'{name}.weight'] = draw(o, i, k, k)*(2/(i*k*k))**.5
    def norm(name, c):
        state.update({f'{name}.weight': 1 + .1*draw(c), f'{name}.bias': .1*draw(c), f'{name}.running_mean': .1*draw(c), f'{name}.running_var': draw(c).abs() + .5,
                      f'{name}.num_batches_tracked': torch.tensor(9)})
    def linear(name, o, i, scale=1.): state.update({f'{name}.weight': scale*draw(o, i)/i**.5, f'{name}.bias': .1*scale*draw(o)})
    conv('conv1', 64, 3, 7)
    norm('bn1', 64)
    inner = 64
    for layer, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512)), 1):
        for b in range(blocks):
            name = f'layer{layer}.{b}'
            for n, (o, i, k) in enumerate(((width, inner, 1), (width, width, 3), (4*width, width, 1)), 1):
                conv(f'{name}.conv{n}', o, i, k)
                norm(f'{name}.bn{n}', o)
            state[f'{name}.bn3.weight'] *= .3
            if b == 0:
                conv(f'{name}.downsample.0', 4*width, inner, 1)
                norm(f'{name}.downsample.1', 4*width)
            inner = 4*width
    linear('fc1', 1024, 2048 + 144 + 10 + 3)
    linear('fc2', 1024, 1024)
    for name, o in (('decpose', 144), ('decshape', 10), ('deccam', 3)): linear(name, o, 1024, .1)
    state['init_pose'], state['init_shape'], state['init_cam'] = draw(1, 144), draw(1, 10), draw(1, 3)
    return state

@pytest.fixture(scope='module')
def spin(tmp_path_factory):
    folder, state = tmp_path_factory.mktemp('spin'), spin_state()
    torch.save(dict(model=state, optimizer={}, epoch=3, batch_idx=0, batch_size=64, dataset_perm=[2, 0, 1], total_step_count=9), folder/'model_checkpoint.pt')
    np.savez(folder/'smpl_mean_params.npz', pose=state['init_pose'][0].numpy(), shape=state['init_shape'][0].numpy(), cam=state['init_cam'][0].numpy())
    return folder, state

def reference(state, x):
    "HMR's network, spelled out"
    bn = lambda x, n: F.batch_norm(x, state[f'{n}.running_mean'], state[f'{n}.running_var'], state[f'{n}.weight'], state[f'{n}.bias'])
    x = F.max_pool2d(F.relu(bn(F.conv2d(x, state['conv1.weight'], stride=2, padding=3), 'bn1')), 3, 2, 1)
    for layer, blocks in zip((1, 2, 3, 4), (3, 4, 6, 3)):
        for b in range(blocks):
            n, stride = f'layer{layer}.{b}', 2 if b == 0 and layer > 1 else 1
            y = F.relu(bn(F.conv2d(x, state[f'{n}.conv1.weight']), f'{n}.bn1'))
            y = F.relu(bn(F.conv2d(y, state[f'{n}.conv2.weight'], stride=stride, padding=1), f'{n}.bn2'))
            y = bn(F.conv2d(y, state[f'{n}.conv3.weight']), f'{n}.bn3')
            if b == 0: x = bn(F.conv2d(x, state[f'{n}.downsample.0.weight'], stride=stride), f'{n}.downsample.1')
            x = F.relu(x + y)
    x = F.avg_pool2d(x, 7, 1).flatten(1)
    linear = lambda x, n: x@state[f'{n}.weight'].T + state[f'{n}.bias']
    pose, shape, cam = (state[f'init_{k}'].expand(len(x), -1) for k in ('pose', 'shape', 'cam'))
    for _ in range(3):
        hidden = linear(linear(torch.cat([x, pose, shape, cam], 1), 'fc1'), 'fc2')
        pose, shape, cam = pose + linear(hidden, 'decpose'), shape + linear(hidden, 'decshape'), cam + linear(hidden, 'deccam')
    columns = pose.reshape(-1, 3, 2)
    a, b = columns[:, :, 0], columns[:, :, 1]
    a = a/a.norm(dim=1, keepdim=True)
    b = b - (a*b).sum(1, keepdim=True)*a
    b = b/b.norm(dim=1, keepdim=True)
    return torch.stack([a, b, torch.linalg.cross(a, b)], 2).view(-1, 24, 3, 3), shape, cam

def test_spin_gives_what_the_architecture_gives(spin):
    folder, state = spin
    net = load_spin(folder/'model_checkpoint.pt', folder/'smpl_mean_params.npz')
    assert sum(o.numel() for o in net.parameters()) == 26_977_501
    assert set(net.state_dict()) == set(state), 'the names are those of the public file'
    x = torch.rand(2, 3, 224, 224)*2 - 1
    seen = ((x + 1)/2 - torch.tensor([.485, .456, .406]).view(3, 1, 1))/torch.tensor([.229, .224, .225]).view(3, 1, 1)
    with torch.no_grad(): found, (R, shape, cam) = net(x), reference(state, seen)
    assert not torch.allclose(shape, state['init_shape'].expand(2, -1), atol=.01) and not torch.allclose(shape[0], shape[1], atol=1e-3)
    for a, b in ((found.rotmats, R), (found.betas, shape), (found.camera, cam)): torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-4)
    assert (net.name, found.body) == ('resnet50-224-spin', 'smpl')

def test_spin_on_a_photo_of_another_shape(spin):
    folder, state = spin
    net, photo = load_spin(folder/'model_checkpoint.pt'), torch.rand(1, 3, 160, 96)*2 - 1
    padded = F.interpolate(F.pad(photo, (32, 32), value=-1.), (224, 224), mode='bilinear', align_corners=False)
    with torch.no_grad(): torch.testing.assert_close(net(photo).rotmats, net(padded).rotmats, atol=1e-5, rtol=1e-5)

def test_spins_means_come_from_their_file_where_the_checkpoint_has_none(spin, tmp_path):
    folder, state = spin
    bare = {f'module.{k}': v for k, v in state.items() if not k.startswith('init_') and 'num_batches' not in k}
    torch.save(dict(model=bare, head=1), tmp_path/'bare.pt')
    with pytest.raises(WeightsError, match='holds no means'): load_spin(tmp_path/'bare.pt')
    net = load_spin(tmp_path/'bare.pt', folder/'smpl_mean_params.npz')
    torch.testing.assert_close(net.start().betas, state['init_shape'])
    torch.testing.assert_close(net.init_pose, state['init_pose'])

def test_dropout_is_off_in_evaluation(spin):
    folder, _ = spin
    net, x = load_spin(folder/'model_checkpoint.pt'), torch.rand(1, 3, 64, 64)
    assert not net.training and net.drop1.p == net.drop2.p == .5
    with torch.no_grad():
        assert torch.equal(net(x).betas, net(x).betas)
        for o in (net.drop1, net.drop2): o.train()
        assert not torch.equal(net(x).betas, net(x).betas)

def test_spins_betas_need_smpl(spin, body, tmp_path):
    folder, _ = spin
    with pytest.raises(WeightsError, match='not to the free body'): load_spin(folder/'model_checkpoint.pt', body=body)
    fake_smpl(tmp_path/'SMPL_NEUTRAL.pkl')
    smpl = load_body(tmp_path/'SMPL_NEUTRAL.pkl')
    net = load_spin(folder/'model_checkpoint.pt', body=smpl)
    net.require(smpl)
    with pytest.raises(DataError, match='belong to the body'): net.require(body)
    with torch.no_grad(): found = net(torch.rand(1, 3, 64, 64))
    keypoints = Pool(People(64, 'train', device='cpu', samples=2), 1)[torch.arange(1)].keypoints
    with pytest.raises(DataError, match='these betas belong to the body'): fit_keypoints(body, keypoints, start=found.placed(64))

@pytest.mark.parametrize('what, message', [
    ('nothing', 'there is no such file'), ('text', 'can not be read'), ('pickle', 'can not be read'), ('no model', "has no 'model', but state_dict"),
    ('list', "has no 'model'"), ('not tensors', 'these are no weights'), ('missing', 'weights are missing, the first is decpose.weight'),
    ('shape', 'decpose.weight is 7 x 1024, but 144 x 1024 is needed'), ('nan', 'deccam.bias holds NaN')])
def test_wrong_checkpoints(spin, tmp_path, what, message):
    folder, state = spin
    path, state = tmp_path/'model_checkpoint.pt', dict(state)
    class Evil:
        def __reduce__(self): return exec, (f'open({str(tmp_path/"mark")!r}, "w")',)
    if what == 'missing': del state['decpose.weight']
    if what == 'shape': state['decpose.weight'] = torch.zeros(7, 1024)
    if what == 'nan': state['deccam.bias'] = torch.full((3,), torch.nan)
    made = {'text': b'hello', 'pickle': dict(model=state, x=Evil()), 'no model': dict(state_dict=state), 'list': [1], 'not tensors': dict(model=dict(a=1))}
    if what == 'text': path.write_bytes(made['text'])
    elif what != 'nothing': torch.save(made.get(what, dict(model=state)), path)
    with pytest.raises(WeightsError, match=message) as e: load_spin(path)
    assert '\n' not in str(e.value) and not (tmp_path/'mark').exists()

@pytest.mark.parametrize('change, message', [(dict(pose=None), 'lacks pose'), (dict(shape=np.zeros(300)), 'shape has 300 numbers'), (dict(cam=np.full(3, np.nan)), 'cam holds NaN'),
                                             (dict(pose=np.array([{}], dtype=object)), 'no plain numbers')])
def test_wrong_means(tmp_path, change, message):
    arrays = {k: v for k, v in {**dict(pose=np.zeros(144), shape=np.zeros(10), cam=np.zeros(3)), **change}.items() if v is not None}
    np.savez(tmp_path/'mean.npz', **arrays)
    with pytest.raises(WeightsError, match=message): read_mean(tmp_path/'mean.npz')
    with pytest.raises(WeightsError, match='there is no such file'): read_mean(tmp_path/'other.npz')

# the network

def test_six_numbers_are_two_columns():
    six = torch.randn(2, 144)
    R = six_to_rotmats(six)
    torch.testing.assert_close(R@R.mT, torch.eye(3).expand(2, 24, 3, 3), atol=1e-5, rtol=0)
    assert (torch.linalg.det(R) > .99).all()
    first = six.view(2, 24, 3, 2)[..., 0]
    torch.testing.assert_close(R[..., 0], F.normalize(first, dim=-1))
    torch.testing.assert_close(rotmats_to_six(R).view(2, 24, 3, 2), R[..., :2])

def test_the_start_is_the_mean_of_people(body):
    net, mean = Regressor('tiny'), people_mean()
    start = net.start(2)
    torch.testing.assert_close(rotmats_to_six(start.rotmats)[0], mean['pose'], atol=1e-5, rtol=1e-5)
    joints, shown = body.skeleton(start.rotmats, start.betas)
    xy = start.view(128).project(shown)[..., :2]
    assert ((xy > 0) & (xy < 128)).all() and (xy[0, 0, 1] < xy[0, 10, 1]), 'in the picture, head up'
    assert xy[0, 2, 0] < xy[0, 5, 0], 'it faces the camera: its right is on the left'

def test_gradient_reaches_the_photo_and_nothing_is_clamped():
    net, photo = Regressor('tiny').eval(), (3*torch.randn(1, 3, 200, 150)).requires_grad_()
    found = net(photo)
    (found.rotmats[:, :, 0].sum() + found.betas.sum() + found.camera.sum()).backward()
    assert torch.isfinite(photo.grad).all()
    assert (photo.grad != 0).all(dim=1).float().mean() > .95, 'low-passed: no pixel is skipped'
    far = (2 + torch.rand(1, 3, 64, 64)).requires_grad_()                                    # all of it beyond 1, at the network's own size
    normalised(squared(far, 64)).sum().backward()
    assert (far.grad > 0).all()

def test_gradient_is_right():
    net = Regressor(regressor_settings('tiny', size=32)).double().eval()
    x, g = torch.randn(1, 3, 40, 32, dtype=torch.float64).requires_grad_(), torch.randn(1, 3, 40, 32, dtype=torch.float64)
    features = lambda x: net.maps(normalised(squared(x, 32)))[-1].mean((2, 3)).square().sum()
    features(x).backward()
    slope = (features(x + 1e-5*g) - features(x - 1e-5*g))/2e-5
    torch.testing.assert_close((x.grad*g).sum(), slope.detach(), rtol=1e-3, atol=1e-5)

def test_photos_that_are_none(bad_input):
    for images in (torch.zeros(3, 64, 64), torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(0, 3, 8, 8)):
        with pytest.raises(ImageError, match='images of shape'): squared(images, 64)

def test_views(body):
    found = RegressedBodies(*Regressor('tiny').start(1).__dict__.values())
    small, large = (found.view((s, s)).project(torch.zeros(1, 1, 3))[0, 0] for s in (64, 256))
    torch.testing.assert_close(small[:2]*4, large[:2])
    torch.testing.assert_close(found.view((200, 100)).to_weak(), found.camera)
    behind = RegressedBodies(found.rotmats, found.betas, -found.camera)
    assert behind.view(64).translation[0, 2] > 0, 'a negative scale still gives a camera before the body'

def test_mirror_is_its_own_inverse_and_mirrors_keypoints(body, pool):
    p, every = photos_of(pool), torch.ones(12, dtype=torch.bool)
    truth = RegressedBodies(p.rotmats, p.betas, p.camera.to_weak(), body.hash)
    other = truth.mirror(every)
    torch.testing.assert_close(other.mirror(every).rotmats, truth.rotmats)
    shown = other.view(64).project(body.skeleton(other.rotmats, other.betas)[1])
    flipped = p.keypoints.flip()
    assert (shown[..., :2] - flipped.xy)[flipped.valid].norm(dim=1).max() < .3                # pixels: the free body is nearly symmetric
    assert torch.equal(truth.mirror(~every).rotmats, truth.rotmats)

# losses

def test_losses_vanish_at_the_truth_only(body, pool):
    p = photos_of(pool)
    truth = RegressedBodies(p.rotmats, p.betas, p.camera.to_weak(), body.hash)
    assert all(v < 1e-5 for v in regressor_terms(body, truth, p.points, 64, truth).values())
    for wrong, terms in ((RegressedBodies(truth.rotmats.flip(0), truth.betas, truth.camera), ('keypoints', 'joints', 'pose')),
                         (RegressedBodies(truth.rotmats, truth.betas + 1, truth.camera), ('keypoints', 'joints', 'betas')),
                         (RegressedBodies(truth.rotmats, truth.betas, truth.camera + torch.tensor([0., .1, 0])), ('keypoints',))):
        found = regressor_terms(body, wrong, p.points, 64, truth)
        assert {k for k, v in found.items() if v > 1e-4} == set(terms)

def test_losses_in_their_units(body, pool):
    p = photos_of(pool)
    truth = RegressedBodies(p.rotmats, p.betas, p.camera.to_weak(), body.hash)
    moved = torch.cat([p.points[..., :2] + torch.tensor([3.2, 0.]), torch.ones(12, 18, 1)], 2)
    shown = truth.view(64).project(body.skeleton(truth.rotmats, truth.betas)[1])[..., :2]
    exact = torch.cat([shown + torch.tensor([3.2, 0.]), torch.ones(12, 18, 1)], 2)
    torch.testing.assert_close(regressor_terms(body, truth, exact, 64)['keypoints'], torch.tensor(.1**2/2), atol=1e-5, rtol=1e-3)   # a tenth of half the picture, in x alone
    unseen = torch.cat([moved[..., :2], torch.zeros(12, 18, 1)], 2)
    assert regressor_terms(body, truth, unseen, 64)['keypoints'] == 0
    flat = RegressedBodies(truth.rotmats, truth.betas, torch.zeros_like(truth.camera))
    torch.testing.assert_close(regressor_terms(body, flat, p.points, 64)['camera'], torch.tensor(1.))

def test_teachers_that_are_not_sure_teach_nothing(body, pool):
    p = photos_of(pool)
    truth = RegressedBodies(p.rotmats, p.betas, p.camera.to_weak(), body.hash)
    wrong, none, first = RegressedBodies(p.rotmats.flip(0), p.betas + 2, truth.camera), torch.zeros(12, dtype=torch.bool), torch.arange(12) == 0
    terms = regressor_terms(body, truth, p.points, 64, wrong, none)
    assert terms['pose'] == terms['betas'] == terms['joints'] == 0
    torch.testing.assert_close(regressor_terms(body, truth, p.points, 64, wrong, first)['betas'], torch.tensor(4.))
    terms = regressor_terms(body, truth, p.points, 64, wrong)
    assert Terms(terms, vars(RegressorWeights(0, 0, 0, 1., 0))).total == terms['betas']

# the fit in the loop

def made_up(rows, energy, like):
    n = len(rows)
    return Fits(like.rotmats[:n], torch.full((n, 10), float(energy[0])), like.camera[torch.arange(n)], torch.ones(n), torch.tensor(energy), torch.zeros(n), torch.ones(n, dtype=torch.bool))

def test_the_better_fit_is_kept(body, pool):
    p, loop, rows = photos_of(pool), FitLoop(12, Fitter(body), 64), torch.tensor([3, 7])
    assert not loop.good(rows).any()
    assert loop.offer(rows, made_up(rows, [5., 6.], p)).tolist() == [True, True]
    assert loop.offer(rows, made_up(rows, [4., 7.], p)).tolist() == [True, False]
    assert loop.table['energy'][rows].tolist() == [4., 6.] and loop.table['updates'][rows].tolist() == [2, 1]
    assert loop[rows].betas[:, 0].tolist() == [4., 5.]
    assert not loop.offer(rows, made_up(rows, [torch.nan, torch.nan], p)).any(), 'a fit that broke is no better'
    assert loop.table['updates'].sum() == 3 and loop.good(rows).all()
    loop.table['doubt'][7] = 1e6
    assert loop.good(rows).tolist() == [True, False], 'what the library doubts stays in doubt'
    loop.table['doubt'][7] = 0
    loop.forget(rows[:1])
    assert loop.good(rows).tolist() == [False, True] and loop.table['energy'][3] == torch.inf

def test_improving_never_makes_it_worse(body, pool):
    p, loop, rows = photos_of(pool), FitLoop(12, Fitter(body), 64), torch.arange(12)
    loop.improve(rows, p.points)
    before = loop.state_dict()
    turned = RegressedBodies(p.rotmats, p.betas, p.camera.to_weak(), body.hash).mirror(torch.ones(12, dtype=torch.bool))  # a start that faces the wrong way
    better = loop.improve(rows, p.points, turned)
    assert (loop.table['energy'] <= before['energy']).all()
    assert torch.equal(loop.table['rotmats'][~better], before['rotmats'][~better])
    other = FitLoop(12, Fitter(body), 64)
    other.load_state_dict(before)
    assert all(torch.equal(other.table[k], v) for k, v in before.items())

def test_a_mirrored_photo_is_fitted_unmirrored(body, pool):
    "A perfect regressor of mirrored photos gives perfect starts"
    p, loop, every = photos_of(pool), FitLoop(12, Fitter(body), 64), torch.ones(12, dtype=torch.bool)
    class Perfect(Regressor):
        def forward(self, images): return RegressedBodies(p.rotmats, p.betas, p.camera.to_weak(), body.hash).mirror(every)
    batch = dict(image=p.image, points=p.points, index=torch.arange(12))
    terms = regressor_step(Perfect('tiny'), batch, body, loop, every)
    assert loop.table['error'].mean() < 1 and terms['keypoints'] < 1e-4
    assert terms['pose'] < .02, 'the teacher was mirrored back'

def test_a_step_learns_nothing_from_doubtful_fits(body, pool):
    loop, batch, net = FitLoop(12, Fitter(body), 64), Shots(pool)(torch.arange(12)), Regressor('tiny').eval()
    loop.improve(batch['index'], batch['points'])
    assert regressor_step(net, batch, body, loop)['pose'] > 0
    loop.table['doubt'] += 1e6
    terms = regressor_step(net, batch, body, loop)
    assert terms['pose'] == terms['joints'] == terms['betas'] == 0 and terms['keypoints'] > 0

# training

def test_fits_never_touch_the_truth(pool):
    other = blind(pool)
    assert sorted(Shots(other)(torch.arange(3))) == ['image', 'index', 'points']
    net = train_regressor(other, 2, Regressor('tiny'), bs=6)
    assert net.settings.learned_from == 'fits' and not net.training
    with pytest.raises(KeyError): train_regressor(other, 1, Regressor('tiny'), 'truth', bs=6)

def test_truth_is_part_of_the_name(pool, body):
    net = train_regressor(pool, 1, Regressor('tiny'), 'truth', bs=6)
    assert net.name == 'resnet10-w8-64-truth' and net.settings.body == body.hash
    assert train_regressor(pool, 1, net, 'fits', bs=6).name == 'resnet10-w8-64-truth+fits'
    with pytest.raises(SpiceError, match="Give 'fits' or 'truth'"): RegressorTraining(net, pool, learned_from='pixels')

def test_a_regressor_of_another_body_is_refused(pool):
    net = Regressor(regressor_settings('tiny', body='0123456789abcdef', learned_from='spin'))
    with pytest.raises(DataError, match='resnet10-w8-64-spin belong to the body 0123456789abcdef'): RegressorTraining(net, pool)

@pytest.mark.parametrize('how', ['fits', 'truth'])
def test_overfits_one_batch(pool, body, how):
    set_seed(0)
    history = History(every=5)
    net = train_regressor(pool, 50, Regressor('tiny'), how, bs=12, lr=3e-3, mirror=0., cbs=[history])
    assert history.rows[-1]['loss'] < .4*history.rows[0]['loss']
    p = photos_of(pool)
    net.train()
    errors, mean = regressor_errors(net, p, body), regressor_errors(lambda x: net.start(len(x)), p, body)
    assert errors['joints'] < .6*mean['joints'] and errors['reprojection'] < .6*mean['reprojection']

class StopAt(Callback):
    "Killed after some steps"
    def __init__(self, step): self.step = step
    def after_batch(self):
        if self.learn.done == self.step: raise KeyboardInterrupt

@pytest.mark.parametrize('every', [2, 3]) # at the end of an epoch, and in the middle of one
def test_a_stopped_training_goes_on_as_if_nothing_had_happened(pool, tmp_path, every):
    settings = regressor_settings('tiny', dropout=.3)
    def make():
        set_seed(5)
        return Regressor(settings.__class__(**asdict(settings)))
    whole = train_regressor(pool, 5, make(), bs=6)
    with pytest.raises(KeyboardInterrupt): train_regressor(pool, 5, make(), bs=6, out=tmp_path, every=every, cbs=[StopAt(4)])
    assert read_checkpoint(last_checkpoint(tmp_path/'checkpoints'))['done'] == every and not (tmp_path/'model.safetensors').exists()
    set_seed(77)
    again = train_regressor(pool, 5, Regressor(settings.__class__(**asdict(settings))), bs=6, out=tmp_path, every=every)
    for k, v in whole.state_dict().items(): torch.testing.assert_close(again.state_dict()[k], v, atol=1e-6, rtol=1e-5)
    assert Regressor.from_pretrained(tmp_path, 'cpu').name == again.name == 'resnet10-w8-64-fits'
    with pytest.raises(WeightsError, match='belongs to another training'): train_regressor(pool, 5, make(), 'truth', bs=6, out=tmp_path)
    with pytest.raises(WeightsError, match='belongs to another training'): train_regressor(pool, 5, make(), bs=4, out=tmp_path)
    with pytest.raises(WeightsError, match='belongs to another training: lr = 0.0003, not 0.01'): train_regressor(pool, 5, make(), bs=6, lr=.01, out=tmp_path)
    last_checkpoint(tmp_path/'checkpoints').write_bytes(b'cut')
    with pytest.raises(WeightsError, match='Take the checkpoint before it'): train_regressor(pool, 5, make(), bs=6, out=tmp_path)

def test_a_prepared_dataset_trains(tmp_path):
    data = Prepared(prepare(PeoplePhotos(64, 3, 1, 1), tmp_path/'people'))
    shots = Shots(data)
    assert len(shots) == 6 and shots.kind == 'people' and shots.body == free_body('cpu').hash
    assert torch.equal(shots(torch.tensor([1]), True)['rotmats'][0], data.bodies['rotmats'][data.rows('train')[1]])
    assert train_regressor(data, 1, Regressor('tiny'), 'truth', bs=4).name.endswith('truth')
    (tmp_path/'people'/'bodies.npz').unlink()
    bare = Prepared(tmp_path/'people')
    assert train_regressor(bare, 1, Regressor('tiny'), 'fits', bs=4).name.endswith('fits')
    with pytest.raises(DataError, match="Learn from 'fits'"): train_regressor(bare, 1, Regressor('tiny'), 'truth', bs=4)

def test_photos_of_no_kind(bad_input):
    with pytest.raises(DataError, match='Give a Pool or a Prepared'): Shots([1, 2])

# saving

def test_saved_and_loaded(tmp_path):
    net = Regressor(regressor_settings('tiny', learned_from='fits', body='abc'), dict(pose=torch.randn(144), shape=torch.randn(10), cam=torch.randn(3))).eval()
    assert net.save_pretrained(tmp_path/'net') == tmp_path/'net'
    other = Regressor.from_pretrained(tmp_path/'net', 'cpu')
    assert other.settings == net.settings and not other.training
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in net.state_dict().items())
    assert sorted(o.name for o in (tmp_path/'net').iterdir()) == ['config.json', 'model.safetensors']
    x = torch.rand(1, 3, 70, 50)
    with torch.no_grad(): assert torch.equal(net(x).rotmats, other(x).rotmats)

def test_wrong_folders(tmp_path):
    net, folder = Regressor('tiny'), tmp_path/'net'
    with pytest.raises(WeightsError, match='there is no such folder'): Regressor.from_pretrained(tmp_path/'other')
    folder.mkdir()
    with pytest.raises(WeightsError, match='holds no config.json'): Regressor.from_pretrained(folder)
    net.save_pretrained(folder)
    config = json.loads((folder/'config.json').read_text())
    class Other(Pretrained): settings_class = type(net.settings)
    with pytest.raises(WeightsError, match='holds a Regressor, not a Other'): Other.from_pretrained(folder)
    for text, message in (('{', 'is no valid JSON'), ('[]', 'has no settings'), ('{"network": "Regressor"}', 'has no settings')):
        (folder/'config.json').write_text(text)
        with pytest.raises(WeightsError, match=message): Regressor.from_pretrained(folder)
    (folder/'config.json').write_text(json.dumps(config | dict(settings=config['settings'] | dict(width=16))))
    with pytest.raises(WeightsError, match='is needed'): Regressor.from_pretrained(folder)
    (folder/'config.json').write_text(json.dumps(config))
    (folder/'model.safetensors').write_bytes(b'cut off')
    with pytest.raises(WeightsError, match='can not be read'): Regressor.from_pretrained(folder)

def test_a_trunk_from_another_network(tmp_path):
    a, b = Regressor('tiny'), Regressor('tiny')
    a.save_pretrained(tmp_path/'a')
    b.load_trunk(tmp_path/'a')
    assert torch.equal(b.layer3[0].conv1.weight, a.layer3[0].conv1.weight) and not torch.equal(b.fc1.weight, a.fc1.weight)
    torch.save({k: v for k, v in a.state_dict().items() if k.startswith(('conv1', 'bn1', 'layer'))} | {'fc.weight': torch.zeros(3), 'fc.bias': torch.zeros(3)}, tmp_path/'imagenet.pth')
    c = Regressor('tiny').load_trunk(tmp_path/'imagenet.pth')
    assert torch.equal(c.conv1.weight, a.conv1.weight)
    with pytest.raises(WeightsError, match='Give a network with the same ResNet'): Regressor('people96').load_trunk(tmp_path/'imagenet.pth')

def test_settings_that_are_wrong():
    with pytest.raises(SpiceError, match='no backbone'): Regressor(regressor_settings('tiny', backbone='vgg'))
    with pytest.raises(SpiceError, match='no preset'): Regressor('hmr')
    assert PlacedBodies.__dataclass_fields__.keys() == {'rotmats', 'betas', 'camera', 'body'}

def test_the_command(tmp_path, capsys):
    how = dict(preset='tiny', steps=2, bs=4, photos=6, test=9, size=64, device='cpu')
    assert spice_regressor(str(tmp_path/'out'), **how) == tmp_path/'out'
    assert 'resnet10-w8-64-fits on 9 test photos' in capsys.readouterr().out
    figures = json.loads((tmp_path/'out'/'figures.json').read_text())
    assert figures['regressor']['photos'] == 9 and np.shape(figures['examples']['six']) == (8, 144)
    assert sorted(o.name for o in (tmp_path/'out').iterdir()) == ['checkpoints', 'config.json', 'figures.json', 'log.csv', 'model.safetensors', 'plan.json']
    spice_regressor(str(tmp_path/'out'), **how)                                               # finished: only measured again
    again = json.loads((tmp_path/'out'/'figures.json').read_text())
    assert again['regressor']['joints'] == pytest.approx(figures['regressor']['joints'], rel=1e-4)
    with pytest.raises(DataError, match='was begun with bs = '): spice_regressor(str(tmp_path/'out'), **(how | dict(bs=3)))
    spice_regressor(str(tmp_path/'out'), **(how | dict(steps=3)))                             # some more steps
    assert read_checkpoint(last_checkpoint(tmp_path/'out'/'checkpoints'))['done'] == 3
    with pytest.raises(SpiceError, match='fine-tune load_spin'): spice_regressor(str(tmp_path/'other'), preset='spin')
    assert not (tmp_path/'other').exists()
