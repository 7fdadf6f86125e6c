"The supervised original: public weights against plain functions, its terms one by one, who gets pairs, runs, starts, overfitting."
import json
from dataclasses import asdict, replace
from types import SimpleNamespace
import gfla
import pytest
import torch
import torch.nn.functional as F
from test_discriminator import lookalike as critic_lookalike
from test_generator import LEVELS, lookalike
from spice.callbacks import Checkpoints, last_checkpoint, read_checkpoint, restore
from overfitting import quietly, steps_on
from spice.core import DataError, SpiceError, WeightsError, seeded, to_pil
from spice.sources import PeoplePhotos
from spice.data import Prepared, prepare
from spice.measure.evaluate import check_rows, evaluate, system_row
from spice.measure.protocols import PROTOCOLS, stretched
from spice.features import load_features
from spice.systems.gfla import FLOW_ALONE, Gfla, GflaLoss, GflaSettings, GflaWeights, fit_to, gfla_settings
from spice.infer import repose
from spice.keypoints import heatmaps
from spice.loaders import Couples, Draw, Flip, PairSteps, Paired, Sessions, collate, step_loaders
from spice.losses import Correctness, affine_regularisation
from spice.people import People, Pool, free_body
from spice.runs import Plan, ValidationPairs, log_rows, plan_loaders, spice_train
from spice.train import System, load_system, make_system, system_learner

def new(seed=0, **changes):
    with seeded(seed): return make_system('gfla', 'tiny', **changes)

@pytest.fixture(scope='module')
def features(): return load_features('people')

@pytest.fixture(scope='module')
def batch():
    "A drawn batch of true pairs"
    pairs = ValidationPairs(People(64, 'train', samples=1, device='cpu'), 4)
    return Draw(free_body('cpu'))(collate([pairs[i] for i in range(4)]))

@pytest.fixture(scope='module')
def pool(): return Pool(Sessions(64, 'train', samples=1, device='cpu'), 12)

def loaders(pool, bs=2, steps=2): return step_loaders(PairSteps(pool, bs, steps, 0.), draw=Draw(free_body('cpu')))

def test_mended_preset_sees_the_photo(batch):
    "As printed, instance norm takes the photo's contrast away; the rest of the two presets is the same"
    printed, mended = (asdict(Gfla.presets[o]()) for o in ('tiny', 'mended64'))
    assert [k for k in printed if printed[k] != mended[k]] == ['generator']
    change = {}
    for preset in ('tiny', 'mended64'):
        with seeded(0), torch.no_grad():
            system = make_system('gfla', preset).eval()
            bright, pale = (system(batch | dict(source_image=o*batch['source_image']))['image'] for o in (1., .5))
        change[preset] = float((bright - pale).abs().mean()/bright.std())
    assert change['tiny'] < 1e-3 < .05 < change['mended64'], change

# public weights

def test_public_weights_give_the_original_pictures(tmp_path):
    state, judge, size = lookalike('market'), critic_lookalike(3), (64, 32)
    torch.save({f'module.{k}': v for k, v in state.items()}, tmp_path/'latest_net_G.pth')
    torch.save(judge, tmp_path/'latest_net_D.pth')
    system = Gfla.from_public(tmp_path/'latest_net_G.pth', tmp_path/'latest_net_D.pth', 'market')
    assert not system.training and system.settings.whole_pixels and system.size == (128, 64)
    points = torch.cat([torch.rand(2, 18, 2)*torch.tensor([size[1], size[0]]), (torch.rand(2, 18, 1) > .2).float()], 2)
    data = dict(source_image=torch.rand(2, 3, *size)*2 - 1, source_points=points, target_points=points.flip(0))
    data |= {f'{o}_heat': heatmaps(data[f'{o}_points'], size) for o in ('source', 'target')}
    whole = [heatmaps(data[f'{o}_points'], size, whole_pixels=True) for o in ('source', 'target')]
    with torch.no_grad():
        made, (image, flows, masks) = system(data), gfla.generator(state, data['source_image'], *whole, LEVELS['market'])
        assert torch.allclose(made['image'], image, atol=1e-5) and not torch.allclose(made['image'], system.generator(
            data['source_image'], data['source_heat'], data['target_heat']).image, atol=1e-5)
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(made['flows'] + made['masks'], flows + masks))
        assert torch.allclose(system.critic(data['source_image']), gfla.critic(judge, data['source_image'], 3), atol=1e-5)
    system.save_pretrained(tmp_path/'kept')
    again = load_system(tmp_path/'kept', 'cpu')
    with torch.no_grad(): assert torch.equal(again(data)['image'], made['image'])

def test_public_weights_of_fashion():
    system = Gfla.from_public(lookalike('fashion'), bars=40)
    assert system.size == (256, 256) and system.settings.generator.stretched and (system.settings.whole_pixels, system.settings.bars) == (True, 40)
    assert {k: sum(p.numel() for p in v.parameters()) for k, v in system.parts().items()} == dict(flow=6_608_212, generator=14_047_395, critic=664_577)

def test_whole_pixels_as_ren_et_al_count_them():
    "On 176 columns that are stretched to 256: int(column*256/176)"
    system, columns = make_system('gfla', 'tiny', bars=40, whole_pixels=True), torch.arange(176)
    points = torch.zeros(176, 18, 3)
    points[:, 0] = torch.stack([40 + columns + .5, torch.full((176,), 8.5), torch.ones(176)], 1)
    photo = torch.zeros(176, 3, 16, 256)
    peak = system.seen(dict(source_image=photo, source_points=points, target_points=points))['source_heat'][:, 0, 8].argmax(1)
    assert torch.equal(peak, columns*256//176)

def test_bars_are_the_stretched_protocol():
    "A network that is trained with bars sees what `gfla-256` shows it without them"
    canvas = torch.full((1, 3, 256, 256), 255, dtype=torch.uint8)
    canvas[..., 40:216] = (F.interpolate(torch.rand(1, 3, 32, 22), (256, 176), mode='bicubic').clamp(0, 1)*255).byte()
    points = torch.rand(1, 18, 3)*torch.tensor([176., 256., 1.]) + torch.tensor([40., 0., 0.])
    batch = {f'{side}_{k}': v for side in ('source', 'target') for k, v in (('image', canvas), ('points', points))}
    whole, system = stretched(batch), make_system('gfla', 'tiny', bars=40, whole_pixels=True)
    mine = system.seen({k: v/127.5 - 1 if k.endswith('image') else v for k, v in batch.items()})
    rows, pairs = [system_row(system, 'barred')], SimpleNamespace(canvas=(64, 64), protocol=PROTOCOLS['gfla-256'])
    with pytest.raises(SpiceError, match='barred stretches photos itself, and gfla-256 does'): check_rows(rows, pairs)
    system.settings.bars = 0
    check_rows(rows, pairs)
    theirs = system.seen({k: v/127.5 - 1 if k.endswith('image') else v for k, v in whole.items()})
    assert (mine['source_image'] - theirs['source_image']).abs().max() < 2/127.5
    assert torch.equal(mine['target_heat'], theirs['target_heat']) and mine['target_heat'].amax() > .9

def test_starts(tmp_path):
    "From public files, or from a saved system; what is saved then needs no file"
    state = lookalike('market')
    torch.save(state, tmp_path/'latest_net_G.pth')
    begun = make_system('gfla', 'market', start=str(tmp_path/'latest_net_G.pth'))
    assert all(torch.equal(v, state[k]) for k, v in begun.generator.state_dict().items() if k in state)
    assert 'latest_net' not in json.dumps(asdict(begun.settings))
    first = new(3)
    first.save_pretrained(tmp_path/'first')
    second = new(4, start=str(tmp_path/'first'))
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())

def test_wrong_starts(tmp_path, bad_input):
    torch.save(lookalike('market'), tmp_path/'G.pth')
    new().save_pretrained(tmp_path/'tiny')
    with pytest.raises(WeightsError, match='Public weights fit the presets paper, market'): new(start=str(tmp_path/'G.pth'))
    with pytest.raises(WeightsError, match='saved system fits its own preset'): make_system('gfla', 'small', start=str(tmp_path/'tiny'))
    with pytest.raises(WeightsError, match='no such file'): Gfla.from_public(tmp_path/'other.pth', preset='market')
    with pytest.raises(SpiceError, match="no public weights for 'tiny'"): Gfla.from_public(tmp_path/'G.pth', preset='tiny')
    with pytest.raises(SpiceError, match="no adversarial form 'wgan'"): new(form='wgan')
    with pytest.raises(SpiceError, match='Both see the photo alone'): replace(gfla_settings('narrow64'), critic=dict(channels=6))

def test_settings_survive_json():
    for preset in Gfla.presets:
        s = Gfla.presets[preset]()
        assert GflaSettings(**json.loads(json.dumps(asdict(s)))) == s and not s.generator.spectral_norm

# terms

class Judge(torch.nn.Module):
    "A critic with one number to learn"
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(.7))
    def forward(self, x): return self.scale*x.mean((1, 2, 3), keepdim=True)

def test_terms_one_by_one(features, batch):
    source, target = batch['source_image'], batch['target_image']
    made, judge = (target*.5 + .1).requires_grad_(), Judge()
    flows = [(.3*torch.randn(4, 2, n, n)).requires_grad_() for n in (16, 32)]
    terms = GflaLoss(features, judge, GflaWeights()).for_generator(source, target, flows, made)
    of_made, of_target = features(made, features.names), features(target, features.names)
    by_hand = dict(pix=(made - target).abs().mean(), adv=(judge(made) - 1).square().mean(),
                   percep=sum((of_made[o] - of_target[o]).abs().mean() for o in ('relu1_1', 'relu2_1', 'relu3_1', 'relu4_1', 'relu5_1')),
                   correct=Correctness(features)(flows, source, target), regular=affine_regularisation(flows[0], 3) + affine_regularisation(flows[1], 5))
    gram = lambda x: x.flatten(2)@x.flatten(2).mT/x[0].numel()
    by_hand['style'] = sum((gram(of_made[o]) - gram(of_target[o])).abs().mean() for o in ('relu2_2', 'relu3_4', 'relu4_4', 'relu5_2'))
    weights = dict(pix=5, percep=.5, style=500, adv=2, correct=5, regular=.0025)
    assert set(terms) == set(weights) and terms.weights == weights
    for k, v in by_hand.items(): assert torch.allclose(terms[k], v, rtol=1e-4), k
    assert torch.allclose(terms.total, sum(weights[k]*v for k, v in by_hand.items()), rtol=1e-4)
    a, b = torch.autograd.grad(terms.total, made, retain_graph=True)[0], torch.autograd.grad(sum(weights[k]*v for k, v in by_hand.items()), made)[0]
    assert torch.allclose(a, b, atol=1e-3*float(b.abs().max()))

def test_the_critics_side(features, batch):
    source, made, judge = batch['source_image'], (batch['target_image']*.5).requires_grad_(), Judge()
    loss = GflaLoss(features, judge, GflaWeights()).for_critic(source, made)
    assert torch.allclose(loss['critic'], .5*((judge(source) - 1).square().mean() + judge(made).square().mean()))
    loss.total.backward()
    assert made.grad is None and judge.scale.grad is not None

def test_a_term_off_is_not_computed(features, batch):
    for name in vars(GflaWeights()):
        judge = GflaLoss(features, Judge(), replace(GflaWeights(), **{name: 0.}))
        assert name not in judge.for_generator(batch['source_image'], batch['target_image'], [torch.zeros(4, 2, 16, 16)], batch['target_image'])
    assert vars(FLOW_ALONE) == dict(pix=0., percep=0., style=0., adv=0., correct=20., regular=.01)

def test_flow_learns_from_correctness_to_point_right(features):
    "A photo that was moved: descending the term finds the way back"
    photo = People(64, 'train', samples=1, device='cpu').photos([0], 0).image
    moved, flow = photo.roll(4, 3), torch.zeros(1, 2, 32, 32, requires_grad=True)
    check, adam = Correctness(features, 'bilinear'), torch.optim.Adam([flow], lr=.2)
    for _ in range(25):
        adam.zero_grad()
        (check([flow], photo, moved) + .02*affine_regularisation(flow, 5)).backward()
        adam.step()
    person = (moved - moved[..., :1, :1]).abs().mean(1) > .2
    inside = F.avg_pool2d(person.float(), 2)[0] == 1
    assert inside.sum() > 20 and flow[0, 0, inside].median() < -1.                         # -2 is the truth, in pixels of this map

def test_who_learns(batch):
    system = new()
    for stage, parts in (('flow', {'flow_net'}), ('full', {'flow_net', 'source', 'target', 'critic'})):
        system.enter(stage).zero_grad()
        system.step(batch).total.backward()
        assert {k.split('.')[1] if k.startswith('generator') else 'critic' for k, p in system.named_parameters() if p.grad is not None} == parts
    system.zero_grad()
    step = system.step(batch)
    step.terms['generator'].total.backward(retain_graph=True)
    assert all(p.grad is None for p in system.critic.parameters())
    system.zero_grad()
    step.terms['critic'].total.backward()
    assert all(p.grad is None for p in system.generator.parameters())

def test_needs_the_truth_to_learn_only(batch, bad_input):
    system, alone = new().enter('full'), {k: v for k, v in batch.items() if k != 'target_image'}
    with torch.no_grad(): assert set(system(alone)) == {'image', 'flows', 'masks'} and 'truth' not in system.columns(alone, system(alone))
    with pytest.raises(SpiceError, match='the batch has no true photo'): system.step(alone)

def test_bars(batch):
    "The inside of the canvas alone matters, and comes back in its place"
    system = Gfla(replace(new().settings, bars=8)).eval()
    other = dict(batch, source_image=batch['source_image'].clone())
    other['source_image'][..., :8] = -1
    with torch.no_grad():
        a, b = system(batch)['image'], system(other)['image']
        inside = system.seen(batch)
        bare = system.generator(inside['source_image'], inside['source_heat'], inside['target_heat']).image
    assert torch.equal(a[..., 8:], b[..., 8:]) and torch.equal(b[..., :8], other['source_image'][..., :8])
    assert torch.equal(a[..., 8:56], fit_to(bare, (64, 48)))
    assert inside['target_image'].shape == batch['target_image'].shape and not torch.equal(inside['target_image'], batch['target_image'])
    step = system.enter('full').step(batch)
    assert torch.isfinite(step.total) and set(system.columns(batch, step.made)) == {'source', 'pose', 'made', 'truth'}
    assert set(system.enter('flow').step(batch).made) == set()

# pairs

def test_pairs_from_a_pool(pool):
    steps = PairSteps(pool, bs=16, steps=3)
    for k in range(3):
        source, target = steps.choose(k)
        assert torch.equal(pool.store['outfits'][source], pool.store['outfits'][target]) and (pool.store['views'][source] != pool.store['views'][target]).all()
        store = steps[k]
        assert torch.equal(store['target_image'], pool.store['image'][target]) and torch.equal(store['target_rotmats'], pool.store['rotmats'][target])
    assert torch.equal(steps[1]['source_image'], steps[1]['source_image']) and not torch.equal(steps[0]['source_image'], steps[1]['source_image'])

def test_pairs_are_renewed_and_come_back():
    pool = Pool(Sessions(64, 'train', samples=1, device='cpu'), 6, batch=4)
    state, before = pool.state(), pool.store['image'].clone()
    pool.renew(3)                                                                          # one and a half: somebody is alone
    assert (pool.store['image'] != before).flatten(1).any(1).sum() == 3
    source, target = PairSteps(pool, bs=32, steps=1).choose(0)
    assert torch.equal(pool.store['outfits'][source], pool.store['outfits'][target]) and 3 not in source.tolist()
    pool.restore(state)
    assert torch.equal(pool.store['image'], before)

def test_more_than_two_photos_of_an_outfit():
    store = Pool(Sessions(64, 'train', samples=1, device='cpu', each=3), 6).store
    assert store['outfits'].unique(return_counts=True)[1].tolist() == [3, 3] and len(store['views'].unique()) == 6

def test_pairs_are_mirrored_as_one(pool):
    raw = PairSteps(pool, bs=8, steps=1)[0]
    flipped = Flip()(raw)
    which = raw['source_flip'] < .5
    assert which.any() and not which.all() and not torch.equal(which, raw['target_flip'] < .5)
    for side in ('source', 'target'):
        assert torch.equal(flipped[f'{side}_image'], torch.where(which.view(-1, 1, 1, 1), raw[f'{side}_image'].flip(3), raw[f'{side}_image']))

@pytest.fixture(scope='module')
def data(tmp_path_factory): return prepare(PeoplePhotos(64, train=4, valid=2, test=1, views=3), tmp_path_factory.mktemp('data')/'people')

def test_pairs_from_a_dataset(data, tmp_path, bad_input):
    couples = Couples(Prepared(data))
    names, groups = couples.data.names, couples.data.groups
    seen = [{couples.target_of(k) for couples.epoch in range(12)} for k in range(len(couples))]
    assert len(couples) == 12 and all(len(o) == 2 for o in seen)                           # in time every other photo of the outfit
    assert all(groups[couples.rows[k][0]] == groups[j] and couples.rows[k][0] != j for k, o in enumerate(seen) for j in o)
    item = couples[0]
    assert item['target_image'].shape == item['source_image'].shape and names[couples.rows[0][0]][:-4] == names[couples.target_of(0)][:-4]
    one = Prepared(prepare(PeoplePhotos(64, train=2, valid=0, test=0, views=1), tmp_path/'one'))
    with pytest.raises(DataError, match='no two photos of one outfit'): Couples(one)

@pytest.fixture
def few_to_validate(monkeypatch): monkeypatch.setattr('spice.runs.ValidationPairs', lambda people: ValidationPairs(people, 2))

def test_only_paired_systems_get_the_truth(data, few_to_validate, bad_input):
    for source in ('people', str(data)):
        made = {o: plan_loaders(Plan(system=o, data=source, bs=2, pool=4, epoch=1), make_system(o), torch.device('cpu')) for o in ('gfla', 'spice')}
        batches = {k: v.train.one_batch() for k, v in made.items()}
        assert 'target_image' in batches['gfla'] and not [k for k in batches['spice'] if 'target_image' in k]
    assert isinstance(made['gfla'].train.dataset.photos, Couples)
    assert not System.paired and System.bodies

def test_trains_on_a_dataset_without_bodies(data, bad_input):
    from spice import runs
    bare = Prepared(data)
    bare.bodies = None
    old, runs.Prepared = runs.Prepared, lambda _: bare
    try:
        dls = plan_loaders(Plan(data='bare', bs=2, epoch=1), new(), torch.device('cpu'))
        with pytest.raises(DataError, match='has no bodies'): plan_loaders(Plan(data='bare'), make_system('spice'), torch.device('cpu'))
    finally: runs.Prepared = old
    assert 'source_rotmats' not in dls.train.one_batch()
    assert torch.isfinite(quietly(system_learner(new(), dls, 'full'), 1).step.total)

@pytest.mark.parametrize('name, bodies', [('spice', True), ('upis', False), ('gfla', False)])
def test_photos_with_bad_fits_are_used_where_no_body_is_needed(data, monkeypatch, name, bodies):
    "In training, in given pairs, and where there are no pairs to validate on"
    some = Prepared(data)
    monkeypatch.setattr('spice.runs.Prepared', lambda _: some)
    rows, held = some.rows('train').tolist(), some.rows('valid').tolist()
    some.bodies['good'][rows[:3] + held[:1]] = False
    def photos(train=True):
        dls = plan_loaders(Plan(system=name, data='some', bs=2, epoch=1), make_system(name), torch.device('cpu'))
        found = dls.train.dataset.photos if train else dls.valid.dataset
        if isinstance(found, Paired): return {i for pair in found.pairs for i in pair}
        return {i for i, _ in found.rows} if isinstance(found, Couples) else set(found.rows.tolist())
    assert photos() == set(rows[3:] if bodies else rows)
    if name == 'gfla':
        some.pairs = dict(some.pairs, train=[(some.names[rows[0]], some.names[rows[1]])])
        assert photos() == set(rows[:2])
    else:
        some.pairs = {}
        assert photos(train=False) == set(held[1:] if bodies else held)

# runs

def test_a_run_and_what_it_leaves(tmp_path, few_to_validate, bad_input):
    spice_train(str(tmp_path/'run'), system='gfla', steps='2', bs=2, pool=4, epoch=2, samples=2, device='cpu', quiet=True)
    system = load_system(tmp_path/'run', 'cpu')
    assert isinstance(system, Gfla) and not system.training
    assert {'correct', 'regular'} <= set(log_rows(tmp_path/'run'/'flow'/'log.csv')[0])
    assert {'pix', 'percep', 'style', 'adv', 'critic'} <= set(log_rows(tmp_path/'run'/'full'/'log.csv')[0])
    assert (tmp_path/'run'/'flow'/'samples'/'step_0000002.jpg').exists()
    shot = People(64, 'test', samples=1, device='cpu').photos([1], 0)
    made = repose(to_pil(shot.image)[0], 'walk', str(tmp_path/'run'), keypoints=shot.keypoints, device='cpu')
    assert made.size == (64, 64)
    result = evaluate(system, 'people-64', count=2, real=1, measures=['flow', 'l1'], device='cpu')
    assert 0 < result.values['flow.seen']['mean'] < 64 and 0 < result.values['l1']['mean'] < 1

def test_goes_on_exactly(pool, tmp_path):
    whole = quietly(system_learner(new(), loaders(pool), 'full'), 4)
    first = quietly(system_learner(new(), loaders(pool), 'full', cbs=[Checkpoints(tmp_path, every=2)]), 2)
    again = system_learner(new(7), loaders(pool), 'full')
    restore(again, read_checkpoint(last_checkpoint(tmp_path)))
    quietly(again, 4)
    assert first.done == 2 and all(torch.allclose(v, again.model.state_dict()[k], atol=1e-6) for k, v in whole.model.state_dict().items())

def overfit(batch, steps):
    "One batch again and again: L1 at first and at last, and that of a copy of the source"
    system = new()
    for _ in steps_on(system.enter('flow'), batch, steps//4, [1e-3], (0., .999)): pass
    pix = [float(o.terms['generator']['pix'].detach()) for o in steps_on(system.enter('full'), batch, steps, [1e-3, 1e-4], (0., .999))]
    return pix[0], pix[-1], float((batch['source_image'] - batch['target_image']).abs().mean())

def test_overfits_a_little(batch):
    first, last, _ = overfit(batch, 20)
    assert last < .65*first

@pytest.mark.long
def test_overfits_one_batch(batch):
    first, last, copy = overfit(batch, 1200)
    assert last < .12*first and last < .5*copy
