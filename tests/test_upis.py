"""UPIS: each equation by hand and by its gradient, the critic's memory, runs from the command line, overfitting one batch."""
import json, os, subprocess, sys
from pathlib import Path
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from overfitting import off_person, quietly, steps_on
from spice.callbacks import Checkpoints, History, last_checkpoint, read_checkpoint, restore
from spice.core import SpiceError, seeded, to_pil
from spice.features import FeatureSettings, Features, load_features
from spice.infer import repose
from spice.loaders import Batch, Draw, collate, pool_loaders
from spice.losses import critic_loss, generator_loss
from spice.people import People, Pool, free_body
from spice.runs import ValidationPairs, log_rows
from spice.train import HOMES, SYSTEMS, load_system, make_system, system_class, system_learner, system_names
from spice.systems.upis import (JohnsonNet, PastPictures, PatchCritic, UpisLoss, UpisWeights, belief_maps, content, patch_side, patch_style, squares, upis_paper_run,
                        visible_maps)

ROOT = Path(__file__).parent.parent
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}

def double(*shape): return torch.rand(*shape, dtype=torch.float64)*2 - 1
def learn(x): return x.requires_grad_(True)
def right_gradient(f, x):
    "gradcheck of a function that is scaled to have slopes of about 1"
    scale = torch.autograd.grad(f(x), x)[0].abs().max()
    assert scale > 0
    return gradcheck(lambda o: f(o)/scale, x, eps=1e-7, atol=1e-4, fast_mode=True)
def small_features():
    with seeded(3): return Features(FeatureSettings((2, 2, 3), 4)).double().freeze()
def small_nets():
    with seeded(4): return JohnsonNet(21, 3, 2, 1).double(), JohnsonNet(3, 18, 2, 1).double(), PatchCritic(2, 1).double()
def points(n=2, size=16):
    xy = torch.rand(n, 18, 2, dtype=torch.float64)*size
    return torch.cat([xy, torch.ones(n, 18, 1, dtype=torch.float64)], 2)
def new(**settings):
    with seeded(0): return make_system('upis', 'tiny', **settings)
@pytest.fixture(scope='module')
def pairs():
    found = ValidationPairs(People(64, 'train', samples=1, detail=1, device='cpu'), 4)
    return Draw(free_body('cpu'))(collate([found[i] for i in range(4)]))

@pytest.fixture
def batch(pairs): return Batch({k: v for k, v in pairs.items() if k != 'target_image'})

@pytest.fixture
def dls(): return pool_loaders(Pool(People(64, 'train', samples=1, detail=1, device='cpu'), 8, batch=8), bs=2, steps=2, renew=0.)

# the equations

def test_eq_1_by_hand():
    p, sigma2 = points(1, 20), .03*10**2
    maps = belief_maps(p, (20, 16))
    for k, r, c in ((0, 3, 4), (7, 19, 15), (17, 10, 0)):
        d2 = (p[0, k, 0] - c - .5)**2 + (p[0, k, 1] - r - .5)**2
        assert torch.isclose(maps[0, k, r, c], torch.exp(-d2/(2*sigma2)))
    assert gradcheck(lambda o: belief_maps(torch.cat([o, torch.ones_like(o[..., :1])], 2), 8), learn(torch.rand(1, 2, 2, dtype=torch.float64)*8))

@pytest.mark.parametrize('form', ['squares', 'minimax'])
def test_eq_2(form):
    _, _, critic = small_nets()
    real, fake = double(2, 3, 16, 16), learn(double(2, 3, 16, 16))
    a, b = critic(real), critic(fake)
    if form == 'squares': hand, made = .5*((a - 1)**2).mean() + .5*(b**2).mean(), ((b - 1)**2).mean()
    else: hand, made = -(a.sigmoid().log().mean() + (1 - b.sigmoid()).log().mean()), (1 - b.sigmoid()).log().mean()
    assert torch.isclose(critic_loss(a, b, form), hand) and torch.isclose(generator_loss(b, form), made)
    assert right_gradient(lambda o: generator_loss(critic(o), form), fake)

def test_eq_3():
    _, detector, _ = small_nets()
    image, maps = learn(double(2, 3, 16, 16)), belief_maps(points(), 16)
    loss = squares(detector(image), maps)
    assert torch.isclose(loss, sum((detector(image)[i, k] - maps[i, k]).square().sum() for i in range(2) for k in range(18))/(2*18*256))
    assert right_gradient(lambda o: squares(detector(o), maps), image)
    assert float(squares(maps, maps)) == 0

def test_eq_4():
    features, a, b = small_features(), double(2, 3, 16, 16), learn(double(2, 3, 16, 16))
    found, wanted = features(b, ['relu3_3']), features(a, ['relu3_3'])
    assert torch.isclose(content(found, wanted, ['relu3_3']), (found['relu3_3'] - wanted['relu3_3']).square().sum()/(2*16*4*4))
    assert right_gradient(lambda o: content(features(o, ['relu3_3']), wanted, ['relu3_3']), b)

def test_eq_5_and_6_by_hand():
    "Patches and Gram matrices, joint by joint"
    x, y, p, q = double(2, 3, 4, 5), double(2, 3, 4, 5), points(2), points(2)
    p[0, :9, 2], q[1, 4:, 2] = 0, 0                                       # missing joints
    p_maps, q_maps = (belief_maps(o, (16, 20)) for o in (p, q))
    down = lambda maps, r, c: maps[4*r:4*r + 4, 4*c:4*c + 4].mean()       # average pooling
    total, count = 0, 0
    for i in range(2):
        for k in range(18):
            if not (p[i, k, 2] and q[i, k, 2]): continue
            grams = []
            for maps, features in ((p_maps, x), (q_maps, y)):
                X = torch.stack([torch.stack([down(maps[i, k], r, c)*features[i, :, r, c] for c in range(5)], 1) for r in range(4)], 1).flatten(1)
                grams.append(X@X.T/(3*20))
            total, count = total + (grams[0] - grams[1]).square().mean(), count + 1
    assert count == 9 + 4
    assert torch.isclose(patch_style(y, x, q_maps, p_maps), total/count)

def test_eq_6_gradient():
    features, a, b = small_features(), double(1, 3, 16, 16), learn(double(1, 3, 16, 16))
    maps, more, wanted = belief_maps(points(1), 16), belief_maps(points(1), 16), features(a, ['relu2_2'])['relu2_2']
    assert right_gradient(lambda o: patch_style(features(o, ['relu2_2'])['relu2_2'], wanted, maps, more), b)

def test_style_has_no_place():
    "Under a map of ones a shuffled picture has the same style"
    x, whole = double(1, 3, 6, 6), torch.ones(1, 2, 6, 6, dtype=torch.float64)
    mixed = x.flatten(2)[..., torch.randperm(36)].view_as(x)
    assert float(patch_style(mixed, x, whole, whole)) < 1e-30 < float(squares(mixed, x))

def test_eq_7_and_8_by_hand():
    net, detector, critic = small_nets()
    photo, p, q = double(2, 3, 16, 16), belief_maps(points(), 16), belief_maps(points(), 16)
    made = net(torch.cat([photo, q], 1))
    again = net(torch.cat([made, p], 1))
    weights, features = UpisWeights(adv=1.5, pose=20., identity=.3, style=1e3, back=.5, pixel=2.), small_features()
    loss = UpisLoss(critic, detector, features, weights, 'relu2_1')
    psi = lambda o: features(o, ['relu2_1'])['relu2_1']
    L_I, L_P = lambda image: ((critic(image) - 1)**2).mean(), lambda image, maps: ((detector(image) - maps)**2).mean()
    L_Id = ((psi(photo) - psi(again))**2).mean() + 1e3*patch_style(psi(made), psi(photo), q, p)
    hand = 1.5*L_I(made) + 20*L_P(made, q) + .5*(1.5*L_I(again) + 20*L_P(again, p)) + .3*L_Id + 2*(again - photo).abs().mean()
    assert torch.isclose(loss.for_generator(photo, made, again, (p, q)).total, hand)
    assert torch.isclose(loss.for_detector(photo, p).total, 20*L_P(photo, p))
    assert torch.isclose(loss.for_critic(photo, made).total, 1.5*.5*(((critic(photo) - 1)**2).mean() + (critic(made)**2).mean()))

def test_eq_8_gradient():
    "The whole loss along a direction of the generator's weights, in 64 bits"
    net, detector, critic = small_nets()
    photo, p, q = double(1, 3, 16, 16), belief_maps(points(1), 16), belief_maps(points(1), 16)
    loss = UpisLoss(critic, detector, small_features(), UpisWeights(style=1e3), 'relu2_1')
    start, along = {k: v.detach().clone() for k, v in net.named_parameters()}, {k: double(*v.shape) for k, v in net.named_parameters()}
    def total(t):
        run = lambda x, maps: torch.func.functional_call(net, {k: v + t*along[k] for k, v in start.items()}, (torch.cat([x, maps], 1),))
        made = run(photo, q)
        return loss.for_generator(photo, made, run(made, p), (p, q)).total
    t = learn(torch.zeros((), dtype=torch.float64))
    slope = torch.autograd.grad(total(t), t)[0]
    number = (total(torch.tensor(1e-7).double()) - total(torch.tensor(-1e-7).double()))/2e-7
    assert abs(slope) > 1e-3 and torch.isclose(slope, number, rtol=1e-4)

def test_eq_9_each_player_has_its_own(batch):
    system = new().enter('full').train()
    for player, terms in system.step(batch).terms.items():
        for part, net in system.parts().items():
            grads = torch.autograd.grad(terms.total, list(net.parameters()), allow_unused=True, retain_graph=True)
            assert all((g is None) != (part == player) for g in grads), (player, part)

# the networks

@pytest.mark.parametrize('levels, side', [(1, 16), (2, 34), (3, 70)])
@pytest.mark.parametrize('padded', [False, True])
def test_patches_of_the_critic(levels, side, padded):
    "Which pixels a score depends on, without the norms, which look at all of them"
    critic = PatchCritic(4, levels, padded)
    for o in critic.modules():
        if isinstance(o, nn.Sequential):
            for k, layer in enumerate(o):
                if isinstance(layer, nn.InstanceNorm2d): o[k] = nn.Identity()
    x = learn(torch.randn(1, 3, 128, 128))
    scores = critic(x)
    middle = scores.shape[2]//2
    seen = torch.autograd.grad(scores[0, 0, middle, middle], x)[0].abs().amax((0, 1)) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == side == patch_side(levels)

def test_generator_sees_photo_and_both_borders():
    net = JohnsonNet(21, 3, 2, 1).eval()
    assert net(torch.rand(1, 21, 20, 28)).shape == (1, 3, 20, 28)
    x = learn(torch.rand(1, 21, 16, 16))
    grad = torch.autograd.grad(net(x).sum(), x)[0]
    assert (grad.abs().sum((0, 2, 3)) > 0).all()

# the critic's memory

def test_past_by_hand():
    "The same rule, one picture after the other"
    past, n = PastPictures(3, (2, 2), .4), 2
    value = lambda *v: torch.tensor(v, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)/127.5 - 1
    store, filled = [0]*3, 0
    for k in range(40):
        given = [2*k % 256, (2*k + 1) % 256]
        with seeded(k): out = past(value(*given))
        with seeded(k): places, old = torch.randperm(3)[:n].tolist(), (torch.rand(n) >= .4).tolist()
        full, expected = filled >= 3, []
        for i, o in enumerate(given):
            place = places[i] if full else (filled + i) % 3
            expected.append(store[place] if full and old[i] else o)
            if old[i] or not full: store[place] = o
        filled += n
        assert ((out[:, 0, 0, 0] + 1)*127.5).round().tolist() == expected
        assert past.pictures[:, 0, 0, 0].tolist() == store

def test_past_sizes():
    pictures = torch.rand(9, 3, 4, 4)*2 - 1
    assert torch.equal(PastPictures(0, (4, 4))(pictures), pictures)
    few = PastPictures(2, (4, 4))
    assert few(pictures).shape == pictures.shape and few(pictures.double()).dtype == torch.float64
    assert not few(learn(pictures.clone())).requires_grad
    only_old = PastPictures(9, (4, 4), fresh=0.)
    assert torch.equal(only_old(pictures), pictures)                                # none is older yet
    later = only_old(-pictures)
    assert torch.allclose(later.sum(0), pictures.sum(0), atol=9/127) and torch.allclose(only_old.pictures.float().sum(0)/127.5 - 9, -pictures.sum(0), atol=9/127)

def test_off_is_off(batch):
    system = new(history=0).enter('full', weights=UpisWeights(adv=0., pose=0.)).train()
    step = system.step(batch)
    assert set(step.terms) == {'generator'} and set(step.terms['generator']) == {'content', 'style'}
    step.total.backward()
    assert all(p.grad is None for o in (system.critic, system.detector) for p in o.parameters())

def test_joints_that_do_not_count(batch):
    points = batch['source_points'].clone()
    points[:, ::2, 2] *= .3
    maps = belief_maps(points, 64)
    kept = visible_maps(maps, points, .5).amax((2, 3)) > 0
    assert not kept[:, ::2].any() and torch.equal(kept[:, 1::2], maps.amax((2, 3))[:, 1::2] > 0)
    all_of = lambda **settings: new(**settings).enter('full').step(batch | dict(source_points=points))
    one, other = all_of(), all_of(visible=.5)
    assert one.terms['generator']['style'] != other.terms['generator']['style'] and torch.equal(one.made['image'], other.made['image'])
    assert float(all_of(visible=1.).terms['generator']['style'].detach()) == 0

# the system

def test_needs_points_and_photos_only(batch):
    "No body, no renderings, no heat-maps, no truth"
    least = Batch({k: batch[k] for k in ('source_image', 'source_points', 'target_points')})
    system = new().enter('full').train()
    assert torch.isfinite(system.step(least).total) and not system.bodies
    assert system(least)['image'].shape == least['source_image'].shape
    assert {'source', 'pose', 'made', 'joints in it', 'and back'} == set(system.columns(least, system.step(least).made))

def test_half_precision(batch):
    with torch.autocast('cpu', dtype=torch.bfloat16): step = new(width=4, blocks=1, critic_width=4).enter('full').train().step(batch)
    step.total.backward()
    assert step.total.dtype == torch.float32 and torch.isfinite(step.total)

def test_tall_pictures():
    system = new(size=(128, 64), history=4).enter('full').train()
    p = points(2, 64).float()
    least = Batch(source_image=torch.rand(2, 3, 128, 64)*2 - 1, source_points=p, target_points=p.flip(0))
    assert torch.isfinite(system.step(least).total) and system.size == (128, 64)

def test_bad_settings(bad_input, batch, tmp_path):
    for wrong, what in ((dict(size=(30, 64)), 'multiples of 4'), (dict(form='wgan'), "no adversarial form 'wgan'"), (dict(breadth=3), "no setting 'breadth'")):
        with pytest.raises(SpiceError, match=what): make_system('upis', 'tiny', **wrong)
    with pytest.raises(SpiceError, match='relu9_1'): new(layer='relu9_1').enter('full')
    with pytest.raises(SpiceError, match="no stage 'flow'"): new().enter('flow')
    with pytest.raises(SpiceError, match='there are no weights'): new(features='nowhere').enter('full')
    with pytest.raises(SpiceError, match='unit'): new(unit='yard').enter('full').step(batch)
    with pytest.raises(SpiceError, match=r'pictures of \(64, 64\) for a system of \(32, 32\)'): new(size=(32, 32)).past(torch.zeros(1, 3, 64, 64))

def test_saved_and_loaded(batch, tmp_path):
    system = new(visible=.25, size=(64, 64)).eval()
    system.past(batch['source_image'])
    for half in (False, True):
        again = load_system(system.save_pretrained(tmp_path/f'half{half}', half), 'cpu')
        assert type(again) is SYSTEMS['upis'] and again.settings == system.settings and again.size == (64, 64)
        assert int(again.past.filled) == 0 and int(system.past.filled) == 4
        with torch.no_grad(): assert torch.allclose(system(batch)['image'], again(batch)['image'], atol=.05 if half else 0)
    past = system.past.pictures.clone()
    assert torch.equal(system.read_weights(tmp_path/'halfFalse'/'model.safetensors').past.pictures, past)
    with pytest.raises(SpiceError): system.read_weights(tmp_path/'halfFalse'/'config.json')
    assert torch.equal(system.past.pictures, past)                                  # also when it fails

def test_judge_of_features_stands_still(dls):
    features = load_features('people', device='cpu')
    before = {k: v.clone() for k, v in features.state_dict().items()}
    learner = quietly(system_learner(new(), dls, 'full', features=features), 2)
    assert all(torch.equal(v, before[k]) for k, v in features.state_dict().items())
    assert not any(k.startswith(('loss', 'features')) for k in learner.model.state_dict())
    assert [g['lr'] for g in learner.opt.opt.param_groups] == [5e-4, 2.5e-4, 2.5e-4]

def test_goes_on_exactly(tmp_path):
    "With the critic's memory and its chances: the weights of a run that nobody stopped"
    def learner(folder):
        pool = Pool(People(64, 'train', samples=1, detail=1, device='cpu'), 8, batch=8)
        return system_learner(new(history=6, width=4, blocks=1), pool_loaders(pool, bs=2, steps=3, renew=0.), 'full', cbs=[Checkpoints(folder, every=3, keep=9), History()])
    torch.manual_seed(5)
    whole = quietly(learner(tmp_path), 6)
    state = read_checkpoint(tmp_path/'step_0000003.pt')
    torch.manual_seed(99)
    rest = learner(tmp_path/'rest')
    restore(rest, state)
    assert int(rest.model.past.filled) == 12 and rest.model.past.pictures.any()
    quietly(rest, 6)
    a, b = whole.model.state_dict(), rest.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a) and rest.done == 6
    assert last_checkpoint(tmp_path/'rest').name == 'step_0000006.pt'

def test_papers_schedule():
    plan, callbacks = upis_paper_run('somewhere', photos=1200, epochs=30, full=10, accumulate=2)
    assert (plan.system, plan.preset, plan.bs, plan.epoch, plan.steps, plan.ema, plan.accumulate) == ('upis', 'paper', 12, 100, [3000], 0., 2)
    (fall,) = callbacks()
    assert [round(fall.share(o), 6) for o in (0, 1000, 2000, 3000)] == [1., 1., .5, 0.]

# overfitting

def overfit(batch, steps, full=1.):
    "One batch again and again: terms (and L1 after the way back) of the first and the last step, distances to the true photo of what was made and of a copy, where a person is"
    batch, system = Batch(batch), new().enter('full').train()
    truth = batch.pop('target_image')
    logs, back = [], lambda made: float((made['again'] - batch['source_image']).abs().mean())
    for step in steps_on(system, batch, steps, (1e-3, 1e-3, 5e-4), full=full): logs.append({k: float(v) for k, v in step.log().items()} | dict(back=back(step.made)))
    return logs[0], logs[-1], *(off_person(batch, o, truth) for o in (step.made['image'], batch['source_image']))

def test_without_the_way_back(batch):
    "Neither the generator nor the critic then has it"
    counts = {}
    for back in (0., 1.):
        system = new(history=0).enter('full', weights=UpisWeights(back=back)).train()
        system.critic.register_forward_hook(lambda net, given, out, back=back: counts.setdefault(back, []).append(len(given[0])))
        system.step(batch)
    assert max(counts[0.]) == len(batch['source_image']) < max(counts[1.])

def test_overfits_a_little(pairs):
    first, last, made, copy = overfit(pairs, 40)
    assert last['content'] < .75*first['content'] and last['pose'] < .15*first['pose'] and last['detector'] < .15*first['detector']
    assert last['style'] < .8*first['style'] and made < copy

@pytest.mark.long
def test_overfits_one_batch(pairs):
    first, last, made, copy = overfit(pairs, 400, .5)
    assert last['content'] < .25*first['content'] and last['pose'] < .03*first['pose'] and last['style'] < .3*first['style']
    assert last['back'] < .3*first['back'] and made < .7*copy

# the command

FRESH = """
import sys
from spice.runs import spice_train
from spice.train import SYSTEMS, load_system
assert 'upis' not in SYSTEMS and 'spice.systems.upis' not in sys.modules
if len(sys.argv) > 3: print(load_system(sys.argv[3], 'cpu').name)
spice_train(sys.argv[1], system='upis', preset='tiny', steps=sys.argv[2], bs=2, pool=4, epoch=2, samples=2, checkpoint=2, settings='width=4,blocks=1',
            device='cpu', quiet=True)
"""

def test_command_from_a_fresh_process(tmp_path):
    "`spice_train` imports nothing of chapter 51, and finds it; the result is repose's"
    run = lambda *more: subprocess.run([sys.executable, '-c', FRESH, str(tmp_path/'run'), *more], cwd=ROOT, env=ENV, capture_output=True, text=True)
    said = run('2')
    assert said.returncode == 0 and 'done' in said.stdout, said.stderr
    files = {str(o.relative_to(tmp_path/'run')) for o in (tmp_path/'run').rglob('*') if o.is_file()}
    assert {'model.safetensors', 'config.json', 'README.md', 'full/log.csv', 'full/samples/step_0000002.jpg', 'full/checkpoints/step_0000002.pt'} <= files
    (row,) = log_rows(tmp_path/'run'/'full'/'log.csv')
    assert {'adv', 'pose', 'adv_back', 'pose_back', 'content', 'style', 'critic', 'detector', 'generator_total'} <= set(row)
    again = run('1', str(tmp_path/'run'))                                           # loads it before chapter 51 is imported
    assert again.stdout.strip() == 'upis' and again.returncode != 0 and 'has done 2 steps already, not 1' in again.stderr
    assert json.loads((tmp_path/'run'/'plan.json').read_text())['system'] == 'upis'
    people = People(64, 'valid', samples=1, device='cpu').photos([3])
    made = repose(to_pil(people.image)[0], ['walk', 'arms_up'], model=tmp_path/'run', keypoints=people.points, device='cpu', return_all=True)
    assert len(made) == 2 and made[0].image.size == (64, 64) and 'result' in made[0].steps

def test_a_class_of_a_notebook_that_is_gone_is_not_taken(monkeypatch):
    "nbdev_test runs one notebook after the other in a process; each defines its classes in `__main__`"
    own = system_class('upis')
    gone = type('Upis', (own,), dict(__module__='__main__'))
    assert SYSTEMS['upis'] is gone and system_class('upis') is own and isinstance(make_system('upis'), own) and type(make_system('upis')) is own
    monkeypatch.setattr(sys.modules['__main__'], 'Upis', gone, raising=False)
    assert system_class('upis') is gone                                               # while its notebook runs
    SYSTEMS['upis'] = own

def test_homes(bad_input, monkeypatch):
    "Only chapters that exist are named"
    there = {k for k, v in HOMES.items() if (ROOT/(v.replace('.', '/') + '.py')).exists()}
    assert set(system_names()) == {'spice'} | there and system_class('upis') is type(new())
    monkeypatch.setitem(HOMES, 'later', 'spice.chapter_of_tomorrow')
    with pytest.raises(SpiceError, match="no system 'later'. Take one of spice, .*upis"): make_system('later')
