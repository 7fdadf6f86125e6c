"Intrinsic flow: the truth of two bodies, each equation by hand and by its gradient, ablations, stages, data with and without bodies, runs, overfitting."
import json
from dataclasses import asdict
from functools import partial
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from overfitting import quietly, steps_on
from spice.callbacks import Checkpoints, last_checkpoint, read_checkpoint, restore
from spice.core import DataError, SpiceError, seeded, to_pil
from spice.sources import PeoplePhotos
from spice.data import Prepared, prepare
from spice.measure.evaluate import evaluate
from spice.features import FeatureSettings, Features, load_features
from spice.reposer import Reposer
from spice.infer import repose
from spice.systems.intrinsic import (SYSTEM_PARTS, ConditionalCritic, FeatureWarp, IntrinsicFlow, IntrinsicSettings, IntrinsicWeights, PixelWarp, Residual,
                             WarpGenerator, gated, has, image_terms, intrinsic_paper_run)
from spice.systems.flow_regression import UNIT, DrawTruth, FlowRegression, flow_error, pose_discs
from spice.loaders import Batch, Draw, Flip, PairSteps, Sessions, collate, step_loaders
from spice.losses import end_point_error
from spice.people import People, Pool, free_body
from spice.runs import Plan, ValidationPairs, log_rows, plan_loaders, spice_train, train
from spice.surface import BACKGROUND, HIDDEN, SEEN, resize_flow, warp
from spice.train import load_system, make_system, system_learner
from spice.video import animate

SMALL = dict(width=4, cap=8, levels=3, warped=2, flow_width=4, flow_cap=8, flow_levels=3, critic_width=4)

def double(*shape): return torch.rand(*shape, dtype=torch.float64)*2 - 1
def learn(x): return x.requires_grad_(True)
def kinds(*shape): return torch.randint(3, shape)

def right_gradient(f, x):
    "gradcheck of a function that is scaled to have slopes of about 1"
    scale = torch.autograd.grad(f(x), x)[0].abs().max()
    assert scale > 0
    return gradcheck(lambda o: f(o)/scale, x, eps=1e-6, atol=1e-4, fast_mode=True)

def new(seed=0, **changes):
    with seeded(seed): return make_system('intrinsic', 'tiny', **{**SMALL, **changes})

@pytest.fixture(scope='module')
def raw():
    "Pairs as bytes and numbers"
    pairs = ValidationPairs(People(64, 'train', samples=1, device='cpu'), 4)
    return collate([pairs[i] for i in range(4)])

@pytest.fixture(scope='module')
def batch(raw): return DrawTruth(free_body('cpu'))(raw)

@pytest.fixture(scope='module')
def data(tmp_path_factory): return prepare(PeoplePhotos(64, train=4, valid=2, test=1, views=3), tmp_path_factory.mktemp('data')/'people')

@pytest.fixture
def few(monkeypatch): monkeypatch.setattr('spice.runs.ValidationPairs', partial(ValidationPairs, count=2))

# the truth, Eq. (1)

def test_eq_1_is_what_two_renderings_say(raw, batch):
    "R of the source, carried over, is R of the target wherever it is seen"
    drawn = Draw(free_body('cpu'))(raw)
    seen = (batch['visibility'] == SEEN)[:, None]
    inside = F.avg_pool2d(seen.float(), 3, 1, 1) == 1                     # bilinear samples at a border take some background along
    apart = lambda flow: float(((warp(drawn['source_wheel'], flow) - drawn['target_wheel']).abs()*inside).sum()/(3*inside.sum()))
    assert apart(batch['flow']) < .12 and apart(batch['flow']) < .15*apart(0*batch['flow'])
    assert ((drawn['target_wheel'] > -1).any(1) == (batch['visibility'] != BACKGROUND)).all()
    assert set(batch) - set(drawn) == {'flow', 'visibility', 'flow_source', 'flow_target'}

def test_a_body_belongs_to_its_poses(raw):
    "Wrong joints in the photos don't reach the flow network, unless it is asked for"
    wrong = Batch(raw | dict(source_points=raw['source_points'] + torch.tensor([5., 0., 0.])))
    right, off, found = DrawTruth()(raw), DrawTruth()(wrong), DrawTruth(poses='photos')(wrong)
    assert torch.equal(right['flow_source'], off['flow_source']) and torch.equal(right['flow'], found['flow'])
    assert torch.equal(found['flow_source'], wrong['source_points']) and torch.allclose(right['flow_source'], raw['source_points'], atol=1e-3)

def test_targets_that_change_places(raw):
    mixed = DrawTruth(mixed=lambda: True)(raw)
    order = [int((raw['target_rotmats'] == o).flatten(1).all(1).nonzero()) for o in DrawTruth().changed(Batch(raw))['target_rotmats']]
    assert sorted(order) == [0, 1, 2, 3] and order != [0, 1, 2, 3]
    assert torch.equal(mixed['flow'], DrawTruth(mixed=lambda: True)(raw)['flow'])                  # the same again
    by_hand = DrawTruth()(Batch({k: v[order] if k.startswith('target_') else v for k, v in raw.items()}))
    for k in ('flow', 'visibility', 'flow_source', 'flow_target'): assert torch.equal(mixed[k], by_hand[k])
    for k in ('target_image', 'target_points', 'target_heat'): assert torch.equal(mixed[k], DrawTruth()(raw)[k])

def test_truth_is_mirrored_with_its_pair(raw):
    flips = {f'{o}_flip': torch.zeros(4) for o in ('source', 'target')}
    batch, mirrored = DrawTruth()(raw), DrawTruth()(Flip()(Batch(raw | flips)))
    agree = (mirrored['visibility'] == batch['visibility'].flip(2)).float().mean()
    both = (mirrored['visibility'] == SEEN) & (batch['visibility'].flip(2) == SEEN)
    there = batch['flow'].flip(3)*torch.tensor([-1., 1.]).view(2, 1, 1)
    assert agree > .97 and ((mirrored['flow'] - there).norm(dim=1)[both]).median() < .6

# the flow network

def test_flow_error_by_hand():
    flow, seen = 8*double(2, 2, 32, 16), kinds(2, 32, 16)
    flows = [learn(double(2, 2, 8, 4)), learn(double(2, 2, 16, 8))]
    hand = 0
    for o, weight in zip(flows, (.5, 1.)):
        wanted, there = resize_flow(flow, o.shape[2:], seen)
        off = ((o - wanted)**2).sum(1).sqrt()[there != BACKGROUND]
        hand = hand + weight*off.mean()/(20/256*o.shape[2])
    assert torch.isclose(flow_error(flows, flow, seen), hand)
    assert right_gradient(lambda o: flow_error([o, flows[1].detach()], flow, seen), flows[0])
    assert right_gradient(lambda o: flow_error([flows[0].detach(), o], flow, seen), flows[1])
    assert float(flow_error([o.detach() for o in flows], flow, torch.full_like(seen, BACKGROUND))) == 0        # nobody there: no error, no NaN

def test_flow_network_counts_in_pixels():
    net = FlowRegression(4, 8, 2, 'instance').eval()
    for o in net.flows:
        torch.nn.init.zeros_(o[1].weight)
        o[1].bias.data = torch.tensor([1., -2.])
    flows, scores = net(*torch.rand(2, 1, 18, 64, 32))
    assert [tuple(o.shape[2:]) for o in flows] == [(16, 8), (32, 16)] and scores.shape == (1, 3, 64, 32)
    for o in flows: assert torch.allclose(resize_flow(o, (64, 32))[0, :, 5, 5], torch.tensor([1., -2.])*20/256*64)

def test_flow_network_gradient():
    with seeded(1): net = FlowRegression(2, 4, 2, 'instance').double()
    a, b, flow, seen = learn(double(1, 18, 16, 16)), double(1, 18, 16, 16), 4*double(1, 2, 16, 16), kinds(1, 16, 16)
    def loss(o):
        flows, scores = net(o, b)
        return flow_error(flows, flow, seen) + F.cross_entropy(scores, seen)
    assert right_gradient(loss, a)

# features and pixels, Eq. (2) and (3)

def test_residual_blocks_by_hand():
    x, more = double(2, 3, 5, 5), double(2, 4, 5, 5)
    plain, block = Residual(3, norm='instance').double(), Residual(3, 4, 'instance').double()
    assert torch.allclose(plain(x), x + plain.conv[1](F.conv2d(x.relu(), plain.conv[0].weight, padding=1)))
    beside = block.beside[1](F.conv2d(more.relu(), block.beside[0].weight))
    assert torch.allclose(block(x, more), x + block.conv[1](F.conv2d(torch.cat([x, beside], 1).relu(), block.conv[0].weight, padding=1)))

def test_eq_2_by_hand():
    features, flow, seen = double(1, 2, 4, 4), double(1, 2, 4, 4), kinds(1, 4, 4)
    layer = FeatureWarp(2, norm='instance').double()
    moved = torch.zeros_like(features)
    for r in range(4):
        for c in range(4):
            dx, dy = (flow[0, :, r, c] if seen[0, r, c] != BACKGROUND else (0., 0.))
            x, y = min(max(c + float(dx), 0), 3), min(max(r + float(dy), 0), 3)
            for i in range(4):
                for j in range(4): moved[0, :, r, c] += features[0, :, j, i]*max(0, 1 - abs(x - i))*max(0, 1 - abs(y - j))
    parts = torch.cat([moved*(seen == SEEN), moved*(seen == HIDDEN)], 1)
    assert torch.allclose(gated(moved, seen), parts)
    assert torch.allclose(layer(features, flow, seen), layer.block(moved, parts), atol=1e-6)

def test_eq_2_gradients():
    features, flow, seen = double(1, 2, 6, 6), .4*double(1, 2, 6, 6) + .25, kinds(1, 6, 6)
    for gates in (True, False):
        layer = FeatureWarp(2, gates, 'instance').double()
        loss = lambda a, b: (layer(a, b, seen)**2).sum()
        assert right_gradient(lambda o: loss(o, flow), learn(features.clone())) and right_gradient(lambda o: loss(features, o), learn(flow.clone()))

def test_eq_3():
    net = PixelWarp([4, 8, 8], 'instance').double()
    drawn, carried, flow, seen = learn(double(1, 3, 16, 16)), double(1, 3, 16, 16), 5*double(1, 2, 16, 16), kinds(1, 16, 16)
    image, z = net(drawn, carried, flow, seen)
    shown = torch.cat([drawn, carried, flow/(UNIT*16), torch.stack([seen == o for o in range(3)], 1)], 1)
    weight = net.net(shown).sigmoid()
    assert torch.allclose(z, weight) and torch.allclose(image, weight*carried + (1 - weight)*drawn)
    low, high = torch.minimum(drawn, carried) - 1e-9, torch.maximum(drawn, carried) + 1e-9
    assert ((image >= low) & (image <= high)).all()
    assert right_gradient(lambda o: (net(o, carried, flow, seen)[0]**2).sum(), drawn)
    assert right_gradient(lambda o: (net(drawn.detach(), o, flow, seen)[0]**2).sum(), learn(carried.clone()))

# losses, Eq. (4) to (7)

def small_features():
    with seeded(3): return Features(FeatureSettings((2, 2, 2, 2, 2), 4)).double().freeze()

@pytest.mark.parametrize('distance', ['squares', 'l1'])
def test_eq_5_and_6(distance):
    features, made, truth = small_features(), learn(double(2, 3, 32, 32)), double(2, 3, 32, 32)
    terms, a, b = image_terms(made, truth, features, distance=distance), features(made, features.names), features(truth, features.names)
    norm = (lambda o: o.square().mean()) if distance == 'squares' else (lambda o: o.abs().mean())
    assert torch.isclose(terms['perceptual'], sum(norm(a[f'relu{j}_1'] - b[f'relu{j}_1']) for j in range(1, 6)))
    assert torch.isclose(terms['l1'], (made - truth).abs().mean())
    assert right_gradient(lambda o: sum(image_terms(o, truth, features, distance=distance).values()), made)

@pytest.mark.parametrize('form', ['log', 'minimax'])
def test_eq_4_and_7(batch, form):
    "All terms of a step, from the networks that it used"
    system = new(form=form, norm='instance').enter('adversarial', IntrinsicWeights(adv=.3, l1=2., perceptual=.7)).train()
    step, pose = system.step(batch), pose_discs(batch['target_points'], 64, 2.)
    judge = lambda image: system.critic(image, batch['source_image'], pose).sigmoid()
    made, truth = step.made['image'], batch['target_image']
    adv = -judge(made).log().mean() if form == 'log' else (1 - judge(made)).log().mean()
    terms = image_terms(made, truth, load_features('people'))
    assert torch.isclose(step.terms['generator'].total, .3*adv + 2*terms['l1'] + .7*terms['perceptual'], rtol=1e-4)
    assert torch.isclose(step.terms['critic'].total, -judge(truth).log().mean() - (1 - judge(made)).log().mean(), rtol=1e-4)

def test_critic_gradient():
    with seeded(2): critic = ConditionalCritic(24, 2, 2, 'instance').double()
    image, photo, pose = learn(double(1, 3, 32, 32)), double(1, 3, 32, 32), double(1, 18, 32, 32)
    assert right_gradient(lambda o: F.softplus(-critic(o, photo, pose)).mean(), image)
    for k in range(3):                                                                       # it looks at all three
        given = [image.detach(), photo, pose]
        given[k] = given[k].flip(3)
        assert not torch.allclose(critic(*given), critic(image, photo, pose))

def test_each_player_has_its_own(batch):
    system = new().enter('adversarial').train()
    for player, terms in system.step(batch).terms.items():
        system.zero_grad()
        terms.total.backward(retain_graph=True)
        reached = {k.split('.')[0] for k, p in system.named_parameters() if p.grad is not None}
        assert reached == {player}

# networks and ablations

def test_published_architecture():
    with torch.device('meta'): system = make_system('intrinsic', 'paper')
    s, g = system.settings, system.generator
    assert (system.size, s.levels, s.rate, s.critic_rate, s.betas, s.norm, s.radius) == ((256, 256), 7, 2e-4, 2e-5, (.5, .999), 'batch', 8.)
    assert len(g.photo.blocks) == len(g.pose.blocks) == len(g.decoder.blocks) == 14 and len(g.photo.down) == 7 and len(g.warps) == 10
    assert [o.conv[0].out_channels for o in g.photo.blocks[::2]] == [32, 64, 96, 128, 128, 128, 128]
    assert {k: v.rates for k, v in system.stages().items()} == dict(flow=dict(flow=2e-4), generator=dict(generator=2e-4),
                                                                    adversarial=dict(generator=2e-4, critic=2e-5), pixels=dict(pixels=2e-4, critic=2e-5))
    assert not [k for k, o in system.generator.named_modules() if isinstance(o, torch.nn.Conv2d) and o.bias is not None and k != 'decoder.last.1']

@pytest.mark.parametrize('without', ['', *SYSTEM_PARTS])
def test_ablations(batch, without):
    system = new(without=without)
    has_flow, stages = has(without, 'flow'), list(system.stages())
    assert stages == ['flow']*has_flow + ['generator', 'adversarial'] + ['pixels']*(not without)
    assert (system.bodies, 'flow' in system.parts(), 'pixels' in system.parts()) == (has_flow, has_flow, not without)
    for stage in stages:
        system.enter(stage).train().zero_grad()
        step = system.step(batch)
        step.total.backward()
        assert {k.split('.')[0] for k, p in system.named_parameters() if p.grad is not None} == {*system.stage.rates}
        assert system.columns(batch, step.made)
    with torch.no_grad(): made = system.eval()(batch)
    assert made['image'].shape == batch['source_image'].shape and ('flows' in made) == has_flow and ('weight' in made) == (not without)
    gates = {o.gates for o in system.generator.warps}
    assert gates == ({has(without, 'visibility')} if has_flow else set())

def test_who_looks_at_what(batch):
    "A flow, a pose and a visibility matter to those who have them"
    photo, pose, flow, seen = batch['source_image'], pose_discs(batch['target_points'], 64, 2.), batch['flow'], batch['visibility']
    for without, looks in (('', (1, 1, 1)), ('visibility', (1, 1, 0)), ('flow', (1, 0, 0)), ('dual', (1, 0, 0))):
        with seeded(0): net = WarpGenerator([4, 8, 8], 1, without).eval()
        swapped = torch.where(seen == BACKGROUND, seen, 1 - seen)
        with torch.no_grad(): made = [net(photo, *o) for o in ((pose, flow, seen), (pose.flip(0), flow, seen), (pose, -flow, seen), (pose, flow, swapped))]
        assert tuple(int((made[0] - o).abs().max() > 1e-6) for o in made[1:]) == looks, without

def test_a_frozen_part_stays(batch):
    "Its weights and its batch statistics"
    system = new()
    for stage in system.stages():
        before = {k: v.clone() for k, v in system.state_dict().items()}
        for _ in steps_on(system.enter(stage).train(), batch, 1, list(system.stage.rates.values())): pass
        moved = {k.split('.')[0] for k, v in system.state_dict().items() if not torch.equal(v, before[k])} - {'weighs'}
        assert moved == {*system.stage.rates}, stage
    assert not any(o.training for o in system.eval().parts().values())

def test_sixteen_bits(batch):
    "All stages in bfloat16: flows and losses stay in 32 bits, and near to what they are"
    system, batch = new(), Batch({k: v[:2] for k, v in batch.items()})
    for stage in system.stages():
        plain = system.enter(stage).eval().step(batch)
        with torch.autocast('cpu', torch.bfloat16): step = system.step(batch)
        step.total.backward()
        assert torch.isclose(step.total, plain.total, rtol=.05) and step.total.dtype == torch.float32
        if 'flows' in step.made: assert step.made['flows'][0].dtype == torch.float32

def test_bodies_only_teach(raw, batch):
    "Poses in, the same picture out, whatever the body"
    system, other = new().eval(), Batch(raw)
    for k in [o for o in raw if o.split('_', 1)[1] in ('rotmats', 'betas', 'focal', 'center', 'translation')]: del other[k]
    drawn = DrawTruth()(other)
    assert 'flow' not in drawn
    with torch.no_grad(): assert torch.equal(system(drawn)['image'], system(batch)['image'])

def test_pixels_count_once_they_have_learned(batch, tmp_path):
    system = new()
    with torch.no_grad():
        first = system.enter('adversarial').eval()(batch)
        assert 'weight' not in first and float(system.weighs) == 0
        last = system.enter('pixels').eval()(batch)
    assert torch.equal(last['drawn'], first['image']) and torch.allclose(last['image'], last['weight']*last['carried'] + (1 - last['weight'])*last['drawn'])
    system.save_pretrained(tmp_path/'kept')
    again = load_system(tmp_path/'kept', 'cpu')
    with torch.no_grad(): assert torch.equal(again(batch)['image'], last['image'])

# settings

def test_settings_survive_json():
    for preset in IntrinsicFlow.presets:
        s = IntrinsicFlow.presets[preset]()
        assert IntrinsicSettings(**json.loads(json.dumps(asdict(s)))) == s

def test_wrong_settings(batch, tmp_path, bad_input):
    for match, changes in (("no norm 'layer'. Take one of batch, instance", dict(norm='layer')), ("no part 'gates'", dict(without='gates')),
                           ("no distance 'cosine'", dict(distance='cosine')), ("no form 'wgan'", dict(form='wgan')), ("no poses 'maps'", dict(poses='maps')),
                           ('9 of 3 levels are warped', dict(warped=9)), ('multiples of', dict(size=(60, 64))), ('no setting', dict(depth=3)),
                           ('no flow network to start with', dict(start='x', without='flow'))):
        with pytest.raises(SpiceError, match=match): new(**changes)
    with pytest.raises(SpiceError, match='the batch has no true flow'): new().enter('flow').step({k: v for k, v in batch.items() if k != 'flow'})
    with pytest.raises(SpiceError, match='the batch has no true photo'): new().enter('generator').step({k: v for k, v in batch.items() if k != 'target_image'})
    new().save_pretrained(tmp_path/'one')
    new(without='flow').save_pretrained(tmp_path/'none')
    with pytest.raises(SpiceError, match='has flow_width 4, not 8'): new(start=str(tmp_path/'one'), flow_width=8)
    with pytest.raises(SpiceError, match='has no flow network'): new(start=str(tmp_path/'none'))

def test_starts_with_a_flow_network(tmp_path):
    first = new(3)
    first.save_pretrained(tmp_path/'first')
    second = new(4, start=str(tmp_path/'first'))
    assert all(torch.equal(v, second.flow.state_dict()[k]) for k, v in first.flow.state_dict().items())
    assert list(second.stages()) == ['generator', 'adversarial', 'pixels'] and not second.bodies and 'first' not in json.dumps(asdict(second.settings))
    assert not torch.equal(first.generator.decoder.last[1].weight, second.generator.decoder.last[1].weight)

def test_paper_run():
    plan = intrinsic_paper_run('somewhere')
    assert plan.steps == [o*11_157 for o in (10, 5, 5, 2)] and (plan.bs, plan.ema, plan.preset) == (8, 0., 'paper')

# runs

def lines(settings=SMALL): return ','.join(f'{k}={v}' for k, v in settings.items())

def test_a_run_and_what_it_leaves(tmp_path, few, bad_input):
    spice_train(str(tmp_path/'run'), system='intrinsic', steps='2', bs=2, pool=4, epoch=2, samples=2, device='cpu', quiet=True, settings=lines())
    log = lambda stage: set(log_rows(tmp_path/'run'/stage/'log.csv')[0])
    assert {'epe', 'ce'} <= log('flow') and not {'l1', 'critic'} & log('flow')
    assert {'l1', 'perceptual'} <= log('generator') and not {'epe', 'adv', 'critic'} & log('generator')
    for stage in ('adversarial', 'pixels'): assert {'l1', 'perceptual', 'adv', 'critic'} <= log(stage)
    for stage in ('flow', 'generator', 'adversarial', 'pixels'): assert (tmp_path/'run'/stage/'samples'/'step_0000002.jpg').exists()
    system = load_system(tmp_path/'run', 'cpu')
    assert isinstance(system, IntrinsicFlow) and not system.training and float(system.weighs) == 1
    tool = Reposer(str(tmp_path/'run'), device='cpu')
    shot = People(64, 'test', samples=1, device='cpu').photos([1], 0)
    photo, mine = to_pil(shot.image)[0], shot.keypoints
    assert repose(photo, 'walk', tool, keypoints=mine).size == (64, 64)
    steps = repose(photo, 'walk', tool, keypoints=mine, return_all=True).steps
    assert {'flow', 'from source', 'warped', 'result'} <= set(steps)
    film = animate(photo, 'walk', tool, mine, fps=4.)
    assert len(list(film)) == len(film) > 1
    result = evaluate(system, 'people-64', count=2, real=1, measures=['flow', 'l1'], device='cpu')
    assert 0 < result.values['flow.seen']['mean'] < 64 and 0 < result.values['l1']['mean'] < 1

def test_a_run_on_a_dataset(data, tmp_path, bad_input):
    "With bodies all stages; with none those that need none"
    few = dict(system='intrinsic', bs=2, epoch=1, samples=1, device='cpu', quiet=True, data=str(data), steps='1')
    spice_train(str(tmp_path/'run'), settings=lines(), **few)
    assert (tmp_path/'run'/'pixels'/'last'/'config.json').is_file()
    bare = tmp_path/'bare'
    for o in Prepared(data).folder.rglob('*'):
        if o.is_file() and 'bodies' not in o.name:
            (bare/o.relative_to(data)).parent.mkdir(parents=True, exist_ok=True)
            (bare/o.relative_to(data)).write_bytes(o.read_bytes())
    assert Prepared(bare).bodies is None
    with pytest.raises(DataError, match='has no bodies'): spice_train(str(tmp_path/'no'), settings=lines(), **(few | dict(data=str(bare))))
    start = dict(SMALL, start=str(tmp_path/'run'))
    out = train(tmp_path/'again', Plan('intrinsic', data=str(bare), steps=[1], bs=2, epoch=1, settings=start, quiet=True), 'cpu')
    assert sorted(o.name for o in out.iterdir() if o.is_dir()) == ['adversarial', 'generator', 'pixels']
    spice_train(str(tmp_path/'plain'), settings=lines(dict(SMALL, without='flow')), **(few | dict(data=str(bare))))
    assert 'flows' not in load_system(tmp_path/'plain', 'cpu')(Draw(wheels=False, torso=False)(pairs_of(2)))

def pairs_of(n):
    pairs = ValidationPairs(People(64, 'train', samples=1, device='cpu'), n)
    return collate([pairs[i] for i in range(n)])

def test_only_the_stage_that_asks_gets_the_truth(few, monkeypatch):
    system = new()
    dls = plan_loaders(Plan('intrinsic', bs=4, pool=8, epoch=1), system, torch.device('cpu'))
    assert 'target_image' in dls.train.one_batch()
    for stage in system.stages():
        system.enter(stage).train()
        assert ('flow' in dls.train.one_batch()) == (stage == 'flow') and 'source_wheel' not in dls.train.one_batch()
    calls = []
    monkeypatch.setattr(DrawTruth, 'changed', lambda self, batch: calls.append(len(batch)) or batch)
    for mode in (True, False):
        system.enter('flow').train(mode)
        dls.train.one_batch()
    assert calls == [4]
    new_one = new(mixed=False)
    plan_loaders(Plan('intrinsic', bs=4, pool=8, epoch=1), new_one.enter('flow').train(), torch.device('cpu')).train.one_batch()
    assert calls == [4]

def loaders(pool, bs=2, steps=2): return step_loaders(PairSteps(pool, bs, steps, 0.), draw=DrawTruth(free_body('cpu'), mixed=lambda: True))

@pytest.mark.parametrize('stage', ['flow', 'pixels'])
def test_goes_on_exactly(tmp_path, stage):
    pool = Pool(Sessions(64, 'train', samples=1, device='cpu'), 8)
    whole = quietly(system_learner(new(), loaders(pool), stage), 4)
    first = quietly(system_learner(new(), loaders(pool), stage, cbs=[Checkpoints(tmp_path, every=2)]), 2)
    again = system_learner(new(7), loaders(pool), stage)
    restore(again, read_checkpoint(last_checkpoint(tmp_path)))
    quietly(again, 4)
    assert first.done == 2 and all(torch.allclose(v, again.model.state_dict()[k], atol=1e-5) for k, v in whole.model.state_dict().items())

# overfitting

def overfit(batch, steps):
    "One batch again and again: errors of the flow in pixels, L1 of the picture, each at first and at last; that of a copy; pixels at last"
    with seeded(0): system = make_system('intrinsic', 'tiny')
    off = lambda o: float(end_point_error(o.made['flows'][0], batch['flow'], batch['visibility'] != BACKGROUND))
    flow = [off(o) for o in steps_on(system.enter('flow').train(), batch, steps, [3e-3])]
    l1 = [float(o.terms['generator']['l1'].detach()) for o in steps_on(system.enter('generator').train(), batch, steps, [2e-3])]
    last = [float(o.terms['generator']['l1'].detach()) for o in steps_on(system.enter('pixels').train(), batch, steps//4, [2e-3, 1e-4])]
    return (flow[0], flow[-1]), (l1[0], l1[-1]), float((batch['source_image'] - batch['target_image']).abs().mean()), last[-1]

def test_overfits_a_little(batch):
    flow, l1, _, _ = overfit(batch, 12)
    assert flow[1] < .6*flow[0] and l1[1] < .6*l1[0]

@pytest.mark.long
def test_overfits_one_batch(batch):
    flow, l1, copy, last = overfit(batch, 400)
    assert flow[1] < .2*flow[0] and l1[1] < .08*l1[0] and l1[1] < .5*copy and last < 1.1*l1[1]
