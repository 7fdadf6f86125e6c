"Dense pose transfer: charts and back, each equation by hand and by its gradient, ablations, several photos, runs, overfitting."
import json
from dataclasses import asdict
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from overfitting import quietly, steps_on
from PIL import Image
from torch import nn
from torch.autograd import gradcheck
from spice.callbacks import Checkpoints, last_checkpoint, read_checkpoint, restore
from spice.core import DataError, SpiceError, seeded, to_pil
from spice.sources import PeoplePhotos
from spice.data import Prepared, prepare
from spice.systems.charts import atlas, fill_texels, scatter
from spice.systems.dpt import VGG_LAYERS, PLANES, VARIANTS, Blending, Dpt, DptLoss, DptSettings, DptWeights, PredictiveStream, looks, pose_planes
from spice.systems.outfits import DrawDense, FlipViews, Outfits, ViewSteps
from spice.systems.charts import Inpainting, gather, inpainting_loss, taps, textures
from spice.measure.evaluate import evaluate, evaluate_rows
from spice.features import FeatureSettings, Features, load_features
from spice.reposer import Reposer
from spice.infer import repose
from spice.keypoints import Keypoints
from spice.loaders import Batch, Sessions, step_loaders
from spice.measure.protocols import PROTOCOLS
from spice.pose_files import read_iuv, read_keypoints, save_iuv, write_openpose
from spice.people import People, Pool, free_body
from spice.runs import Plan, ValidationPairs, log_rows, spice_train
from spice.surface import render_body
from spice.train import load_system, make_system, system_learner
from spice.video import animate

SMALL = dict(width=4, blocks=2, blend_width=4, chart_widths=(4, 8), embedding=8, critic_width=4)

def new(seed=0, **changes):
    with seeded(seed): return make_system('dpt', 'tiny', **{**SMALL, **changes})

def double(*shape): return torch.rand(*shape, dtype=torch.float64)*2 - 1

def right_gradient(f, x):
    "gradcheck of a function that is scaled to have slopes of about 1"
    scale = torch.autograd.grad(f(x), x)[0].abs().max()
    assert scale > 0
    return gradcheck(lambda o: f(o)/scale, x, eps=1e-7, atol=1e-4, fast_mode=True)

@pytest.fixture(scope='module')
def features(): return load_features('people')

@pytest.fixture(scope='module')
def pool(): return Pool(Sessions(64, 'train', samples=1, device='cpu', each=3), 12)

def drawn(pool, bs=4, **how): return DrawDense(free_body('cpu'))(FlipViews(0.)(ViewSteps(pool, bs, 1, **how)[0]))

@pytest.fixture(scope='module')
def batch(pool): return drawn(pool)

@pytest.fixture(scope='module')
def large():
    "Photos of 128 pixels with their dense poses"
    o = People(128, 'train', samples=1, device='cpu').photos([0, 1], [0, 1])
    return o.image, o.surface.iuv

def made_up(b=2, h=6, w=5, parts=24):
    "A dense pose by chance, in doubles"
    iuv = torch.cat([torch.randint(0, parts + 1, (b, 1, h, w)).double(), torch.rand(b, 2, h, w, dtype=torch.float64)], 1)
    return iuv*(iuv[:, :1] > 0)

# charts

def test_gather_against_grid_sample():
    iuv, charts = made_up(), double(2, 24, 3, 7, 7)
    out = gather(charts, taps(iuv, 7))
    for i in range(2):
        for r in range(6):
            for c in range(5):
                I, u, v = iuv[i, :, r, c]
                want = 0*out[i, :, r, c]
                if I: want = F.grid_sample(charts[i:i + 1, int(I) - 1], torch.stack([u, v]).view(1, 1, 1, 2)*2 - 1, padding_mode='border', align_corners=False).flatten()
                assert torch.allclose(out[i, :, r, c], want)

def test_scatter_is_gathers_transpose():
    "<W T, c> = <T, W' c>, with the weights taken back out of the mean"
    iuv, charts, image = made_up(), double(2, 24, 3, 6, 6), double(2, 3, 6, 5)
    to = taps(iuv, 6)
    mean, weight = scatter(image, to, corrections=0)
    assert torch.allclose((gather(charts, to)*image).sum(), (charts*mean*weight).sum())
    assert torch.allclose(weight.sum((1, 2, 3, 4)), (iuv[:, 0] > 0).sum((1, 2)).double())

def test_corrections_reach_least_squares():
    iuv, image = made_up(1, 9, 9, parts=1), double(1, 3, 9, 9)
    to = taps(iuv, 4)
    W = torch.zeros(len(to.pixel), 24*16, dtype=torch.float64).scatter_add(1, to.texel, to.weight)
    colours = image.movedim(1, 3).flatten(0, 2)[to.pixel]
    best = W@torch.linalg.lstsq(W, colours, driver='gelsd').solution
    off = [float((gather(scatter(image, to, k)[0], to).movedim(1, 3).flatten(0, 2)[to.pixel] - best).abs().max()) for k in (0, 10, 3000)]
    assert off[0] > off[1] > off[2] and off[2] < 1e-3

def test_there_and_back(large):
    "Inverse on visible texels: photos through fine charts, noise through coarse ones, within a hundredth of the range"
    image, iuv = large
    fine, on = taps(iuv, 128), (iuv[:, :1] > 0).expand_as(image)
    assert (gather(scatter(image, fine, 64)[0], fine) - image).abs()[on].mean() < .01
    coarse, noise = taps(iuv, 4), torch.rand(2, 24, 3, 4, 4)*2 - 1
    charts, weight = scatter(gather(noise, coarse), coarse, 64)
    seen = (weight >= 1).expand_as(charts)
    assert seen.float().mean() > .2 and (charts - noise).abs()[seen].mean() < .01
    for side in (4, 16, 64):
        to, flat = taps(iuv, side), torch.full((2, 24, 3, side, side), .4)
        charts, weight = scatter(gather(flat, to), to, 0)
        assert torch.allclose(charts[(weight > 0).expand_as(charts)], torch.tensor(.4), atol=1e-5)         # one colour is exact

def test_gradients_of_charts():
    iuv, to = made_up(), taps(made_up(), 5)
    weights = double(2, 24, 3, 5, 5)
    assert right_gradient(lambda o: (scatter(o, to, 3)[0]*weights).sum(), double(2, 3, 6, 5).requires_grad_())
    assert right_gradient(lambda o: (gather(o, to)**2).sum(), double(2, 24, 3, 5, 5).requires_grad_())
    assert right_gradient(lambda o: (fill_texels(*scatter(o, taps(iuv, 8), 2), 2)[0]**2).sum(), double(2, 3, 6, 5).requires_grad_())

def test_holes():
    "One known texel fills what coarser charts share with it, and no more"
    charts, weight = torch.zeros(1, 24, 1, 8, 8), torch.zeros(1, 24, 1, 8, 8)
    charts[0, 3, 0, 1, 1], weight[0, 3, 0, 1, 1] = .7, 1.
    none, few, more = (fill_texels(charts, weight, n) for n in (0, 1, 2))
    assert [int((o[1] > 0).sum()) for o in (none, few, more)] == [1, 9, 49]
    assert torch.allclose(more[0][more[1] > 0], torch.tensor(.7)) and not few[1][0, 4].any()

def test_nobody_there():
    blank = torch.zeros(1, 3, 8, 8)
    T, seen = textures(torch.rand(1, 3, 8, 8), taps(blank, 4))
    assert not seen.any() and not T.any() and not gather(torch.ones(1, 24, 3, 4, 4), taps(blank, 4)).any()

def test_atlas():
    out = atlas(torch.arange(24.).view(1, 24, 1, 1, 1).expand(1, 24, 1, 2, 2), 6)
    assert out.shape == (1, 1, 8, 12) and out[0, 0, ::2, ::2].flatten().tolist() == list(range(24))

# dense poses

def test_files_of_densepose(tmp_path, large, bad_input):
    iuv = large[1][0]
    path = save_iuv(iuv, tmp_path/'a_IUV.png')
    with Image.open(path) as image: assert int(np.array(image)[..., 2].max()) == 24                   # I is blue
    again = read_iuv(path)
    assert torch.equal(again[0], iuv[0]) and (again - iuv).abs().max() < .5/255 + 1e-6
    Image.fromarray(np.array(Image.open(path))[..., ::-1]).save(tmp_path/'b.png')                    # as written by others: I is red
    assert torch.equal(read_iuv(tmp_path/'b.png'), again)
    assert read_iuv(path, (64, 64)).shape == (3, 64, 64)
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(tmp_path/'c.png')
    (tmp_path/'d.png').write_text('no picture')
    for name, what in (('c.png', 'has parts up to 200'), ('d.png', 'is not a picture'), ('e.png', 'there is no such file')):
        with pytest.raises(DataError, match=what): read_iuv(tmp_path/name)
    with pytest.raises(DataError, match='for a photo of'): read_iuv(path, (64, 32))

def test_planes(large):
    iuv = large[1]
    for kind, count in PLANES.items(): assert pose_planes(kind, iuv, torch.zeros(2, 18, 128, 128)).shape == (2, count, 128, 128)
    assert 3 + 2*PLANES['iuv'] == 9 and [3 + PLANES[o] for o in ('mask', 'parts', 'keypoints')] == [4, 27, 21]     # as the paper counts
    assert torch.equal(pose_planes('onehot', iuv)[:, 24:], iuv[:, 1:])
    assert torch.equal(pose_planes('iuv', iuv)[:, 0]*24, iuv[:, 0])

# networks

def test_shapes_of_the_paper():
    conv = lambda a, b: 9*a*b + b
    with torch.device('meta'): system = make_system('dpt', 'paper')
    s = system.settings
    assert s.size == (256, 256) and s.side == 256 and (s.source_pose, s.target_pose, s.norm, s.keep) == ('iuv', 'iuv', 'instance', False)
    sizes = {k: sum(p.numel() for p in o.parameters()) for k, o in system.parts().items()}
    parts = 24*sum(conv(*o) for o in ((3, 32), (32, 32), (32, 64), (64, 128), (384, 64), (64, 32), (32, 32), (32, 3)))
    assert sizes['inpainting'] == parts + (24*128*16*16 + 1)*256 + 257*256
    assert sizes['predictive'] == conv(9, 64) + conv(64, 128) + conv(128, 256) + 12*conv(256, 256) + conv(256, 128) + conv(128, 64) + conv(64, 3)
    assert sizes['blending'] == conv(9, 64) + 6*conv(64, 64) + conv(64, 3)
    assert len([m for m in system.blending.modules() if isinstance(m, nn.Conv2d)]) == 2 + 3*2
    assert all(m.kernel_size == (3, 3) for m in system.predictive.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)))
    assert system.critic(torch.zeros(1, 9, 256, 256, device='meta')).shape == (1, 1, 30, 30)
    weights = {k: v.weights.terms for k, v in system.stages().items()}
    assert weights['full'] == dict(pix=1., percep=.5, style=5e5, adv=.1, inpaint=0.)
    with torch.device('meta'): calibrated = make_system('dpt', 'paper', style=5e3)        # as chapter 52 says
    assert calibrated.stages()['full'].weights.terms == dict(weights['full'], style=5e3)
    assert {k for k, v in weights['inpainting'].items() if v} == {'inpaint'} and {k for k, v in weights['predictive'].items() if v} == {'pix'}
    assert all(v.betas == (.5, .999) and set(v.rates.values()) == {2e-4} for v in system.stages().values())

def test_parts_speak_through_the_context_only():
    with seeded(0): net = Inpainting(16, (4, 8), 8, 'none')
    charts = torch.rand(1, 24, 3, 16, 16)
    other = charts.clone()
    other[:, 5] = -other[:, 5]
    with torch.no_grad():
        (a, g), (b, g2) = net.encode(charts), net.encode(other)
        assert torch.equal(a[:, :5], b[:, :5]) and not torch.equal(a[:, 5], b[:, 5]) and not torch.equal(g, g2)
        same, changed = net.decode(a, g), net.decode(b, g)
        assert torch.equal(same[:, 6:], changed[:, 6:]) and not torch.equal(same[:, 5], changed[:, 5])
        assert (net(charts) - net(other))[:, 12].abs().max() > 0                                     # through G alone

def test_instance_norm_forgets_contrast():
    for norm, change in (('instance', 0.), ('none', .5)):
        with seeded(0): net = Inpainting(16, (4, 8), 8, norm).double()
        for o in net.encoder: nn.init.zeros_(o.bias)
        T = double(1, 24, 3, 16, 16)
        with torch.no_grad(): whole, half = net.encode(T)[0], net.encode(.5*T)[0]
        assert abs(float((whole - half).norm()/whole.norm()) - change) < .06

def test_networks_learn():
    with seeded(1): nets = PredictiveStream(9, 2, 1).double(), Inpainting(8, (2, 2), 4).double(), Blending(9, 2).double()
    nn.init.normal_(nets[2].model[-1].weight)
    x, charts = double(1, 9, 8, 8), double(1, 24, 3, 8, 8)
    assert right_gradient(lambda o: (nets[0](o)**3).sum(), x.clone().requires_grad_())
    assert right_gradient(lambda o: (nets[1](o)**3).sum(), charts.requires_grad_())
    assert right_gradient(lambda o: (nets[2](o[:, :3], [o[:, 3:]])**3).sum(), x.requires_grad_())

# losses

def small_features():
    with seeded(3): return Features(FeatureSettings((2, 2, 2, 2, 2), 4)).double().freeze()

@pytest.mark.parametrize('squared', [True, False])
def test_eq_1_2_3_by_hand(squared):
    net, made, true = small_features(), double(2, 3, 32, 32).requires_grad_(), double(2, 3, 32, 32)
    a, b, percep, style = net(made, VGG_LAYERS), net(true, VGG_LAYERS), 0, 0
    assert VGG_LAYERS == tuple(f'relu{i}_2' for i in range(1, 6))
    for o in VGG_LAYERS:
        x, y = a[o], b[o]
        G = lambda z: torch.einsum('bchw,bdhw->bcd', z, z)/z[0].numel()                               # Eq. (2), a mean
        for name, d in (('percep', x - y), ('style', G(x) - G(y))):
            one = d.square().mean() if squared else (d.square().flatten(1).mean(1) + 1e-12).sqrt().mean()
            if name == 'percep': percep = percep + one
            else: style = style + one
    out = looks(net, made, true, squared=squared)
    assert torch.allclose(out['percep'], percep) and torch.allclose(out['style'], style, atol=1e-7)
    for name in ('percep', 'style'): assert right_gradient(lambda o: looks(net, o, true, [name], squared)[name], made)
    assert all(float(v) < 1e-5 for v in looks(net, true, true, squared=squared).values())

class Judge(nn.Module):
    "A critic with one number to learn"
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(.7))
    def forward(self, x): return self.scale*x.mean((1, 2, 3), keepdim=True)

def test_eq_4_by_hand():
    judge, z, y, made = Judge(), torch.rand(2, 6, 8, 8), torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8).requires_grad_()
    loss = DptLoss(None, judge, DptWeights(pix=0., percep=0., style=0.))
    D = lambda o: judge(torch.cat([z, o], 1))
    terms = loss.for_generator(made, y, z)
    assert set(terms) == {'adv'} and torch.allclose(terms['adv'], .5*(D(made) - 1).square().mean())
    critic = loss.for_critic(made, y, z)
    assert torch.allclose(critic, .5*(D(y) - 1).square().mean() + .5*D(made).square().mean())
    critic.backward()
    assert made.grad is None and judge.scale.grad is not None
    assert right_gradient(lambda o: .5*(.7*torch.cat([z.double(), o], 1).mean() - 1)**2, made.detach().double().requires_grad_())

def test_eq_5_and_6_by_hand():
    made, wanted, seen = double(2, 24, 3, 4, 4), [double(2, 24, 3, 4, 4) for _ in range(3)], [torch.rand(2, 24, 1, 4, 4) > .5 for _ in range(3)]
    total, many = 0., 0
    for T, S in zip(wanted, seen):
        for place in S[:, :, 0].nonzero().tolist():
            b, i, r, c = place
            total, many = total + float((made[b, i, :, r, c] - T[b, i, :, r, c]).abs().sum()), many + 3
    assert abs(float(inpainting_loss(made, wanted, seen)) - total/many) < 1e-9
    hidden = torch.where(seen[0] | seen[1] | seen[2], made, made + 5)
    assert torch.allclose(inpainting_loss(hidden, wanted, seen), inpainting_loss(made, wanted, seen))
    assert right_gradient(lambda o: inpainting_loss(o, wanted, seen), made.requires_grad_())

def test_a_term_off_is_not_computed(features, batch):
    for name in ('pix', 'percep', 'style', 'adv'):
        out = new().enter('full', DptWeights(**{name: 0.}), features=features).step(batch)
        assert name not in out.terms['generator'] and ('critic' in out.terms) == (name != 'adv')
    assert 'inpaint' in new().enter('full', DptWeights(inpaint=1.), features=features).step(batch).terms['generator']
    assert new().enter('full', DptWeights(percep=0., style=0.)).loss.features is None                 # no file of VGG is asked for

# the system

def test_known_limits_of_the_streams(batch):
    itself = Batch(batch | {k.replace('source', 'target'): v for k, v in batch.items() if k.startswith('source')})
    fine = new(side=128, chart_widths=(2,)*5, corrections=32).eval()
    with torch.no_grad(): out = fine(itself)
    on = (itself.source_iuv[:, :1] > 0).expand_as(out['warped'])
    assert (out['warped'] - itself.source_image).abs()[on].mean() < .02 and torch.equal(out['image'], out['predicted'])
    assert not out['warped'][~on].any()

def test_keep(batch):
    system = new().eval()
    T, seen = system.charts_of(batch['source_image'], batch['source_iuv'])
    with torch.no_grad():
        kept = system.complete(T, seen)
        system.settings.keep = False
        whole = system.complete(T, seen)
    assert torch.equal(kept, torch.where(seen, T, whole)) and not torch.equal(whole, kept)
    assert torch.equal(new(variant='warping').complete(T, seen), T)

def test_who_learns(batch, features):
    for stage, parts in dict(predictive={'predictive'}, inpainting={'inpainting'}, full={'predictive', 'inpainting', 'blending', 'critic'}).items():
        system = new().enter(stage, features=features)
        nn.init.normal_(system.blending.model[-1].weight, std=.1)                                   # at zero nothing comes through
        system.zero_grad()
        system.step(batch).total.backward()
        assert {k.split('.')[0] for k, p in system.named_parameters() if p.grad is not None and p.grad.any()} == parts
    system.zero_grad()
    step = system.step(batch)
    step.terms['generator'].total.backward(retain_graph=True)
    assert all(p.grad is None for p in system.critic.parameters())
    system.zero_grad()
    step.terms['critic'].total.backward()
    assert {k.split('.')[0] for k, p in system.named_parameters() if p.grad is not None} == {'critic'}

def test_draws_its_own_dense_poses(batch, bad_input):
    system, bare = new().eval(), Batch({k: v for k, v in batch.items() if not k.endswith('_iuv')})
    with torch.no_grad(): apart = (system(batch)['image'] - system(bare)['image']).abs()
    assert apart.mean() < 1e-3                                                             # bodies of a larger batch differ in their last bits
    seen = render_body(free_body('cpu'), batch['target_rotmats'], batch['source_betas'], batch.camera('target'))
    assert torch.equal(system.dense_pose(bare, 'target'), seen.iuv)
    system.use_body(free_body('cpu'))
    assert 'body' not in dict(system.named_children()) and torch.equal(system.dense_pose(bare, 'target'), seen.iuv)
    nobody = {k: v for k, v in bare.items() if 'rotmats' not in k}
    with pytest.raises(SpiceError, match='neither a body nor a dense pose'): system(nobody)
    with pytest.raises(SpiceError, match='the source has no dense pose'): new(charts='densepose')(bare)
    with torch.no_grad(): new(charts='densepose')(batch)
    joints = new(variant='predictive', source_pose='keypoints', target_pose='keypoints')
    assert not joints.settings.dense
    with torch.no_grad(): assert joints(nobody)['image'].shape == (4, 3, 64, 64)

@pytest.mark.parametrize('changes', [dict(variant=o) for o in VARIANTS] + [dict(variant='predictive', source_pose=o, target_pose=o) for o in PLANES if o != 'none']
                         + [dict(variant='predictive', source_pose=a, target_pose=b) for a, b in (('keypoints', 'iuv'), ('iuv', 'keypoints'), ('none', 'parts'))]
                         + [dict(source_pose='onehot', target_pose='mask'), dict(norm='instance'), dict(keep=False), dict(corrections=0, holes=0)],
                         ids=lambda o: ','.join(map(str, o.values())))
def test_ablations(batch, features, changes, tmp_path):
    "Each stage of each takes a step and is saved"
    system = new(**changes)
    for stage in system.stages():
        step = system.enter(stage, features=features).train().step(batch)
        step.total.backward()
        assert torch.isfinite(step.total) and system.columns(batch, step.made)
    assert ('inpainting' in system.stages()) == (system.settings.variant == 'full')
    system.save_pretrained(tmp_path)
    again = load_system(tmp_path, 'cpu')
    assert again.settings == system.settings
    with torch.no_grad(): assert torch.equal(again(batch)['image'], system.eval()(batch)['image'])

def test_blending_refines_without_the_warp(batch):
    assert new(variant='blending').blending.model[0].in_channels == 6 and new().blending.model[0].in_channels == 9
    assert 'warped' not in new(variant='blending')(batch)

def test_half_precision(batch, features):
    with torch.autocast('cpu', torch.bfloat16):
        for stage in ('predictive', 'inpainting', 'full'):
            step = new().enter(stage, features=features).step(batch)
            step.total.backward()
            assert torch.isfinite(step.total)

def test_tall_pictures():
    system, iuv = new(size=(64, 32)), torch.zeros(1, 3, 64, 32)
    iuv[:, :, 10:50, 8:20] = torch.tensor([2., .5, .5]).view(3, 1, 1)
    out = system(dict(source_image=torch.rand(1, 3, 64, 32), source_iuv=iuv, target_iuv=iuv, source_heat=torch.zeros(1, 18, 64, 32)))
    assert out['image'].shape == (1, 3, 64, 32) and system.size == (64, 32)

def test_settings_survive_json():
    for preset in Dpt.presets:
        s = Dpt.presets[preset]()
        assert DptSettings(**json.loads(json.dumps(asdict(s)))) == s

def test_bad_settings(batch, features, bad_input):
    for changes, what in ((dict(variant='all'), "no variant 'all'"), (dict(source_pose='depth'), "no source_pose 'depth'"),
                          (dict(target_pose='none'), "no target_pose 'none'"), (dict(charts='smpl'), "no charts 'smpl'"), (dict(norm='batch'), "no norm 'batch'"),
                          (dict(side=6), 'Give a multiple of 4 from 8'), (dict(size=(66, 64)), 'multiples of 4'), (dict(views=1), 'Source and target are two')):
        with pytest.raises(SpiceError, match=what): new(**changes)
    with pytest.raises(SpiceError, match='where the critic does not learn'): new().enter('predictive', DptWeights())
    with pytest.raises(SpiceError, match='does not inpaint'): new(variant='warping').enter('full', DptWeights(inpaint=1.), features=features)
    alone = {k: v for k, v in batch.items() if k != 'target_image'}
    with pytest.raises(SpiceError, match='the batch has no true photo'): new().enter('predictive').step(alone)
    with torch.no_grad(): assert 'truth' not in new().columns(alone, new()(alone))

# several photos

def test_views_of_an_outfit(pool):
    steps = ViewSteps(pool, bs=16, steps=2, views=3)
    for k in range(2):
        rows = torch.stack([*steps.choose(k), *steps.others(k)])
        assert (pool.store['outfits'][rows] == pool.store['outfits'][rows[0]]).all() and all(len(set(o)) == 3 for o in rows.T.tolist())
        assert torch.equal(steps[k]['more0_image'], pool.store['image'][rows[2]]) and torch.equal(steps[k]['more0_rotmats'], pool.store['rotmats'][rows[2]])
    many = ViewSteps(pool, bs=8, steps=1, views=5)                                                   # more than there are
    assert torch.equal(many.others(0)[2], many.choose(0)[1])
    assert not [k for k in ViewSteps(pool, 4, 1, views=2)[0] if k.startswith('more')]
    assert not [k for k in ViewSteps(pool, 4, 1, wanted=lambda: False)[0] if k.startswith('more')]

def test_photos_and_themselves(pool):
    same = [float((o[0] == o[1]).float().mean()) for o in (ViewSteps(pool, 400, 1, same=s).choose(0) for s in (0., .2, 1.))]
    assert same[0] == 0 and .1 < same[1] < .3 and same[2] == 1

def test_views_are_mirrored_as_one(pool):
    raw = ViewSteps(pool, bs=8, steps=1, views=3)[0]
    flipped, which = FlipViews()(raw), raw['source_flip'] < .5
    assert which.any() and not which.all()
    for side in ('source', 'target', 'more0'):
        assert torch.equal(flipped[f'{side}_image'], torch.where(which.view(-1, 1, 1, 1), raw[f'{side}_image'].flip(3), raw[f'{side}_image']))
    a, b = DrawDense(free_body('cpu'))(FlipViews(0.)(raw)), DrawDense(free_body('cpu'))(flipped)
    overlap = lambda side: [(x.flip(2) > 0 if w else x > 0)[0] == (y > 0)[0] for x, y, w in zip(a[f'{side}_iuv'], b[f'{side}_iuv'], which)]
    for side in ('source', 'more0'): assert min(float(o.float().mean()) for o in overlap(side)) > .99

@pytest.fixture(scope='module')
def data(tmp_path_factory): return prepare(PeoplePhotos(64, train=4, valid=2, test=1, views=3), tmp_path_factory.mktemp('data')/'people')

def test_outfits_of_a_dataset(data):
    o = Outfits(Prepared(data), views=3)
    groups = o.data.groups
    for k in range(len(o)):
        i, target = o.rows[k][0], o.target_of(k)
        others = o.others(k, target)
        assert len(others) == 1 and len({i, target, *others}) == 3 and {groups[x] for x in (target, *others)} == {groups[i]}
    assert 'more0_image' in o[0] and not [k for k in Outfits(o.data, wanted=lambda: False)[0] if k.startswith('more')]
    assert all(x.target_of(k) == x.rows[k][0] for x in [Outfits(o.data, same=1.)] for k in range(4))
    paired = Prepared(data)
    paired.pairs = dict(paired.pairs, train=[(paired.names[0], paired.names[1])])
    only = Outfits(paired)
    assert only.rows == [(0, [1])] and only.target_of(0) == 1 and groups[only.others(0, 1)[0]] == groups[0]

def test_bad_fits_are_used_where_no_body_is_needed(data):
    "Dense poses from files need no body; those drawn from bodies leave bad fits out, of given lists too"
    all_of, names = Prepared(data), Prepared(data).names
    rows = all_of.rows('train').tolist()
    all_of.bodies['good'][rows[:2]] = False                                                # of the first outfit one photo is left
    used = lambda o: {i for k in range(len(o)) for i in (o.rows[k][0], *o.rows[k][1], *o.others(k, o.target_of(k)))}
    assert used(Outfits(all_of)) == set(rows[3:]) and used(Outfits(all_of, files=True)) == used(Outfits(all_of, fitted=False)) == set(rows)
    all_of.pairs = dict(all_of.pairs, train=[(names[rows[a]], names[rows[b]]) for a, b in ((0, 2), (2, 1), (3, 4), (3, 5))])
    given = {rows[0]: [rows[2]], rows[2]: [rows[1]], rows[3]: [rows[4], rows[5]]}
    assert dict(Outfits(all_of).rows) == {rows[3]: [rows[4], rows[5]]} and dict(Outfits(all_of, files=True).rows) == given
    all_of.pairs['train'] = all_of.pairs['train'][:2]
    with pytest.raises(DataError, match='no pair in train whose bodies both fit'): Outfits(all_of)

@pytest.mark.parametrize('settings, bodies', [(dict(charts='densepose'), False), (dict(variant='predictive', source_pose='none', target_pose='keypoints'), False), ({}, True)])
def test_a_run_takes_what_it_needs(data, tmp_path, settings, bodies):
    import shutil
    folder = tmp_path/'data'
    shutil.copytree(data, folder)
    table = dict(np.load(folder/'bodies.npz'))
    rows = Prepared(folder).rows('train').tolist()
    table['good'][rows[:3]] = False
    np.savez(folder/'bodies.npz', **table)
    if 'charts' in settings: write_dense_poses(folder)
    with seeded(0): train = new(**settings).loaders(Plan('dpt', data=str(folder), bs=2, epoch=1), torch.device('cpu')).train.dataset.photos
    assert {i for i, _ in train.rows} == set(rows[3:] if bodies else rows)

@pytest.fixture
def few(monkeypatch): monkeypatch.setattr('spice.systems.dpt.ValidationPairs', lambda people: ValidationPairs(people, 2))

def write_dense_poses(folder):
    "Files as DensePose's tool writes them, for all photos of a dataset"
    data = Prepared(folder)
    for i, name in enumerate(data.names):
        body = render_body(free_body('cpu'), data.bodies['rotmats'][i:i + 1], data.bodies['betas'][i:i + 1], data.camera([i]))
        (folder/'densepose').mkdir(exist_ok=True)
        save_iuv(body.iuv[0], folder/'densepose'/f'{name}.png')

def test_files_of_densepose_reach_evaluation_and_repose(data, tmp_path, monkeypatch, bad_input):
    import shutil
    from dataclasses import replace
    folder, system, wide = tmp_path/'data', new(charts='densepose'), 50
    shutil.copytree(data, folder)
    given, ask = {}, Dpt.dense_pose
    monkeypatch.setattr(Dpt, 'dense_pose', lambda self, batch, side: given.setdefault(side, ask(self, batch, side)))
    how = dict(protocol=replace(PROTOCOLS['clean'], size=(64, 64), real=('test',), measures=('l1',), extra=()), device='cpu')
    with pytest.raises(SpiceError, match='the source has no dense pose. This system'): evaluate(system, data=Prepared(folder), **how)
    write_dense_poses(folder)
    kept = Prepared(folder)
    evaluate(system, data=kept, **how)
    for side, k in (('source', 0), ('target', 1)):
        assert torch.equal(given.pop(side), torch.stack([kept.dense_pose(kept.index[o[k]]) for o in kept.pairs['test']]))
    people = People(64, 'test', samples=1, device='cpu').photos([1, 2], 0)
    for k, name in enumerate(('me', 'other')):                                            # photos on a wider ground: what is known of them is cut out with them
        Image.fromarray(np.pad(np.asarray(to_pil(people.image)[k]), ((0, 0), (wide, wide), (0, 0)), constant_values=255)).save(tmp_path/f'{name}.png')
        iuv = torch.nn.functional.pad(render_body(free_body('cpu'), people.rotmats[k:k + 1], people.betas[k:k + 1], people.camera[[k]]).iuv[0], (wide, wide))
        save_iuv(iuv, tmp_path/f'{name}_IUV.png')
        write_openpose(Keypoints(people.points[k:k + 1] + torch.tensor([wide, 0, 0])*(people.points[k:k + 1, :, 2:] > 0), (64, 64 + 2*wide)), tmp_path/f'{name}.json')
    photo, pose = str(tmp_path/'me.png'), str(tmp_path/'other.png')
    with pytest.raises(SpiceError, match='the source has no dense pose'): repose(photo, 'walk', system, keypoints=tmp_path/'me.json', device='cpu')
    class Known: # the joints of the photo that shows the pose
        name = 'known'
        def __call__(self, images): return [read_keypoints(tmp_path/'other.json')]
    image = repose(photo, pose, system, keypoints=tmp_path/'me.json', device='cpu', detector=Known(), maps=str(tmp_path))
    assert image.size == (64, 64) and all((given[o][:, 0] > 0).float().mean() > .02 for o in ('source', 'target'))
    tool = Reposer(system, device='cpu', maps=str(tmp_path))
    seen = tool.see(photo, tmp_path/'me.json')
    joints, inside = seen.keypoints.points[0], seen.maps['densepose'][0] > 0
    hips = joints[[8, 11], :2].mean(0).long()
    assert inside[hips[1], hips[0]], 'the map lies where the person is'
    with pytest.raises(SpiceError, match='the target has no dense pose'): repose(photo, 'walk', tool, keypoints=tmp_path/'me.json')   # a name shows no map
    with pytest.raises(DataError, match='densepose of 9 x 9 for a photo of 164 x 64 pixels'): Reposer(system, device='cpu', maps=lambda o: dict(densepose=np.zeros((3, 9, 9)))).see(photo, tmp_path/'me.json')
    with pytest.raises(DataError, match="there are no maps 'depth'"): Reposer(system, device='cpu', maps=lambda o: dict(depth=np.zeros((9, 9)))).see(photo, tmp_path/'me.json')

def test_texture_by_files_of_densepose(tmp_path, bad_input):
    "`spice_restyle --texture --maps` takes NAME_IUV.png, and a model of DensePose's charts can't do without"
    from spice.systems.restyle import spice_restyle
    people = People(64, 'test', samples=1, device='cpu').photos([1, 2], 0)
    iuv = render_body(free_body('cpu'), people.rotmats, people.betas, people.camera).iuv
    for k, name in enumerate(('me', 'other')):
        to_pil(people.image)[k].save(tmp_path/f'{name}.png')
        write_openpose(people.keypoints[k], tmp_path/f'{name}.json')
    new(charts='densepose').save_pretrained(tmp_path/'model')
    call = dict(texture=True, model=str(tmp_path/'model'), out=str(tmp_path/'it.png'), keypoints=str(tmp_path/'me.json'), other_keypoints=str(tmp_path/'other.json'), device='cpu')
    made = lambda: np.array(Image.open(spice_restyle(str(tmp_path/'me.png'), str(tmp_path/'other.png'), maps=str(tmp_path), **call))).astype(int)
    with pytest.raises(DataError, match='a photo has no dense pose'): made()
    for k, name in enumerate(('me', 'other')): save_iuv(iuv[k], tmp_path/f'{name}_IUV.png')
    first, before = made(), np.array(to_pil(people.image)[0]).astype(int)
    there = (iuv[0, 0] > 0).numpy()
    assert (np.abs(first - before).max(2) > 3)[there].mean() > .3 and (first == before)[:6].all()
    save_iuv(iuv[1].flip(2), tmp_path/'other_IUV.png')
    assert (made() != first).any(), "the other's texture lies where its file says"

def test_trains_on_a_dataset_and_its_files(data, tmp_path, few, bad_input):
    import shutil
    folder = tmp_path/'data'
    shutil.copytree(data, folder)
    plan = Plan('dpt', data=str(folder), bs=2, epoch=1)
    with pytest.raises(DataError, match='densepose'): new(charts='densepose').enter('inpainting').loaders(plan, torch.device('cpu')).train.one_batch()
    write_dense_poses(folder)
    for changes in ({}, dict(charts='densepose')):
        system = new(**changes)
        for stage in system.stages():
            dls = system.enter(stage).loaders(plan, torch.device('cpu'))
            b = dls.train.one_batch()
            assert {'source_iuv', 'target_iuv'} <= set(b) and ('more0_image' in b) == (stage == 'inpainting')
            assert torch.isfinite(quietly(system_learner(system, dls, stage, **({} if stage != 'full' else dict(features=load_features('people')))), 1).step.total)
    with pytest.raises(DataError, match='no files of DensePose'): new(charts='densepose').loaders(Plan('dpt'), torch.device('cpu'))
    with pytest.raises(DataError, match='Prepare it at that size'): new(size=(32, 32)).loaders(plan, torch.device('cpu'))

def test_a_dataset_without_bodies(data, monkeypatch, bad_input):
    bare = Prepared(data)
    bare.bodies = None
    monkeypatch.setattr('spice.systems.dpt.Prepared', lambda _: bare)
    with pytest.raises(DataError, match='has no bodies'): new().loaders(Plan('dpt', data='bare'), torch.device('cpu'))
    joints = new(variant='predictive', source_pose='keypoints', target_pose='keypoints')
    dls = joints.enter('predictive').loaders(Plan('dpt', data='bare', bs=2, epoch=1), torch.device('cpu'))
    assert torch.isfinite(quietly(system_learner(joints, dls, 'predictive'), 1).step.total)

# runs

def test_a_run_and_what_comes_of_it(tmp_path, few):
    spice_train(str(tmp_path/'run'), system='dpt', steps='2', bs=2, pool=6, epoch=2, samples=2, device='cpu', quiet=True)
    system = load_system(tmp_path/'run', 'cpu')
    assert isinstance(system, Dpt) and not system.training
    logs = {o: set(log_rows(tmp_path/'run'/o/'log.csv')[0]) for o in system.stages()}
    assert 'pix' in logs['predictive'] and 'inpaint' in logs['inpainting'] and {'pix', 'percep', 'style', 'adv', 'critic'} <= logs['full']
    assert all((tmp_path/'run'/o/'samples'/'step_0000002.jpg').exists() for o in logs)
    shot = People(64, 'test', samples=1, device='cpu').photos([1], 0)
    photo, tool = to_pil(shot.image)[0], Reposer(tmp_path/'run', device='cpu')
    made = repose(photo, ['walk', 'arms_up'], tool, keypoints=shot.keypoints, return_all=True)
    assert [o.image.size for o in made] == [(64, 64)]*2 and 'R of the target' in made[0].steps
    film = People(64, 'test', samples=1, device='cpu').film(2, 'walk', 3)
    assert [o.size for o in animate(photo, film, tool, shot.keypoints, smooth='none')] == [(64, 64)]*3
    rows = evaluate_rows([system, 'copy-source'], 'people-64', count=2, real=1, measures=['l1'], device='cpu')
    assert [o.row for o in rows] == ['dpt', 'copy-source'] and 0 < rows[0].values['l1']['mean'] < 1

def test_ablation_by_command(tmp_path, few):
    spice_train(str(tmp_path/'run'), system='dpt', steps='1', bs=2, pool=4, epoch=1, settings='variant=warping,views=2', weights='full.style=0,full.adv=0', device='cpu',
                quiet=True)
    system = load_system(tmp_path/'run', 'cpu')
    assert system.settings.variant == 'warping' and [*system.stages()] == ['predictive', 'full']
    assert not {'style', 'adv', 'critic'} & set(log_rows(tmp_path/'run'/'full'/'log.csv')[0])

@pytest.mark.parametrize('stage', ['predictive', 'inpainting', 'full'])
def test_goes_on_exactly(pool, tmp_path, features, stage):
    def learner(system, **kwargs):
        dls = step_loaders(ViewSteps(pool, 2, 2, 0.), draw=DrawDense(free_body('cpu')))
        return system_learner(system, dls, stage, features=features, **kwargs)
    whole = quietly(learner(new()), 4)
    quietly(learner(new(), cbs=[Checkpoints(tmp_path, every=2)]), 2)
    again = learner(new(7))
    restore(again, read_checkpoint(last_checkpoint(tmp_path)))
    quietly(again, 4)
    assert all(torch.allclose(v, again.model.state_dict()[k], atol=1e-6) for k, v in whole.model.state_dict().items())

def overfit(batch, features, steps, rate=2e-3, **changes):
    "One batch again and again: the first and last of what each stage is about, and of L1 in the last"
    with seeded(0): system = make_system('dpt', 'tiny', **changes)
    out = {}
    for stage, name in (('predictive', 'pix'), ('inpainting', 'inpaint'), ('full', 'percep')):
        system.enter(stage, features=features).train()
        rates = [dict(critic=rate/20).get(o, rate if stage != 'full' else rate/2) for o in system.stage.rates]
        seen = [{k: float(v) for k, v in o.log().items()} for o in steps_on(system, batch, steps, rates)]
        out[stage] = seen[0][name], seen[-1][name]
    return out, seen[-1]['pix']

def test_overfits_a_little(batch, features):
    log, _ = overfit(batch, features, 25, width=8, blocks=2, blend_width=8)
    assert log['predictive'][1] < .6*log['predictive'][0] and log['inpainting'][1] < .7*log['inpainting'][0]
    assert log['full'][1] < .5*log['full'][0]

@pytest.mark.long
def test_overfits_one_batch(batch, features):
    log, pix = overfit(batch, features, 250)
    copy = float((batch['source_image'] - batch['target_image']).abs().mean())
    assert log['predictive'][1] < .15*log['predictive'][0] and log['inpainting'][1] < .3*log['inpainting'][0]
    assert log['full'][1] < .4*log['full'][0] and pix < .5*copy
