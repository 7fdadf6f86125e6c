"What is given to whom in SPICE's equations: networks and losses that write down their arguments, in the system's own step."
from types import SimpleNamespace

import pytest
import roma
import torch

from spice import losses
from spice.body import rest_pose
from spice.consistency import Appearance
from spice.features import load_features
from spice.losses import Correctness
from spice.objective import SpiceLoss, spice_weights
from spice.train import make_system

def recorded(monkeypatch, owner, name):
    "Let a function write down what it is given and what it answers"
    calls, real = [], getattr(owner, name)
    def _recorded(*args, **kwargs):
        answer = real(*args, **kwargs)
        calls.append(SimpleNamespace(args=args, kwargs=kwargs, answer=answer))
        return answer
    monkeypatch.setattr(owner, name, _recorded)
    return calls

class Regressor:
    "Stands in for f_3D: writes down what it sees; its shapes are the picture's mean, its rotations a quarter turn"
    def __init__(self): self.seen, self.learning = [], []
    def __call__(self, images):
        self.seen.append(images)
        self.learning.append(torch.is_grad_enabled())
        quarter = roma.rotvec_to_rotmat(torch.tensor([0., 0., torch.pi/2]))
        return SimpleNamespace(rotmats=quarter.expand(len(images), 24, 3, 3), betas=images.mean((1, 2, 3))[:, None].expand(-1, 10))

def turned(degrees): # the root alone, about y
    out = rest_pose(2)
    out[:, 0] = roma.rotvec_to_rotmat(torch.tensor([0., degrees*torch.pi/180, 0.]))
    return out

@pytest.fixture
def batch():
    "Every field is another one"
    field = lambda *shape: torch.rand(2, *shape)*2 - 1
    names = {'image': 3, 'wheel': 3, 'heat': 18}
    out = {f'{side}_{k}': field(c, 64, 64) for side in ('source', 'target') for k, c in names.items() if (side, k) != ('target', 'image')}
    out |= {f'{side}_torso': torch.rand(2, 2, 64, 64) > .5 for side in ('source', 'target')}
    return out | dict(source_rotmats=turned(0.), target_rotmats=turned(30.), source_betas=torch.randn(2, 10))

@pytest.fixture
def spice(): return make_system('spice', 'tiny').train()

def enter(spice, stage='full', regressor=None):
    return spice.enter(stage, features=load_features('random', width=4), regressor=regressor or Regressor())

def the_same(given, wanted):
    assert len(given) == len(wanted)
    for a, b in zip(given, wanted): assert a is b

def test_there_and_back(spice, batch, monkeypatch):
    "Eq. (1), and the way back with all roles exchanged"
    calls = recorded(monkeypatch, enter(spice).generator, 'forward')
    spice.step(batch)
    there, back = calls
    the_same(there.args, [batch[k] for k in ('source_image', 'source_heat', 'target_heat', 'source_wheel')])
    the_same(back.args, [there.answer.image] + [batch[k] for k in ('target_heat', 'source_heat', 'target_wheel')])
    assert back.args[0].requires_grad                                           # the cycle teaches the way there, too

def test_flow_network_alone(spice, batch, monkeypatch):
    calls = recorded(monkeypatch, enter(spice, 'flow').generator.flow_net, 'forward')
    spice.step(batch)
    there, back = calls
    the_same(there.args, [batch[k] for k in ('source_wheel', 'source_heat', 'target_heat')])
    the_same(back.args, [batch[k] for k in ('target_wheel', 'target_heat', 'source_heat')])

@pytest.mark.parametrize('stage', ['flow', 'full'])
def test_flow_is_checked_on_renderings(spice, batch, monkeypatch, stage):
    "Eq. (2): the way there fetches R_t from R_s, the way back R_s from R_t; no photo takes part"
    runs = recorded(monkeypatch, enter(spice, stage).generator.flow_net, 'forward')
    checks = recorded(monkeypatch, Correctness, '__call__')
    spice.step(batch)
    (check,), (there, back) = checks, runs
    _, flows, *renderings, flows_back = check.args
    the_same(renderings, [batch['source_wheel'], batch['target_wheel']])
    the_same([*flows, *flows_back], [*there.answer[0], *back.answer[0]])

def test_ways_of_the_flow(monkeypatch):
    "Eq. (2): features of the source's rendering are fetched on the way there, of the target's on the way back"
    features, calls = load_features('random', width=4), recorded(monkeypatch, losses, 'correctness')
    there, back, source, target = torch.zeros(1, 2, 16, 16), torch.ones(1, 2, 16, 16), torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    Correctness(features)([there], source, target, [back])
    of = lambda picture: features(picture, ['relu3_1'])['relu3_1']
    for call, flow, a, b in zip(calls, (there, back), (source, target), (target, source), strict=True):
        assert call.args[0] is flow and torch.equal(call.args[1], of(a)) and torch.equal(call.args[2], of(b))

def test_cycle_compares_what_came_back(spice, batch, monkeypatch):
    "Eq. (3): the photo and what the way back made of it"
    runs = recorded(monkeypatch, enter(spice).generator, 'forward')
    terms = spice.step(batch).terms['generator']
    assert torch.isclose(terms['pix'], (runs[1].answer.image - batch['source_image']).abs().mean())

def test_critic_sees_each_picture_with_its_own_rendering(spice, batch, monkeypatch):
    "Eq. (4): the made picture with R_t, the photo with R_s; the critic's turn leaves the generator alone"
    runs = recorded(monkeypatch, enter(spice).generator, 'forward')
    scores = recorded(monkeypatch, spice.critic, 'forward')
    spice.step(batch)
    made = runs[0].answer.image
    asked, photo, fake = scores
    the_same(asked.args, [made, batch['target_wheel']])
    the_same(photo.args, [batch['source_image'], batch['source_wheel']])
    assert torch.equal(fake.args[0], made) and not fake.args[0].requires_grad and fake.args[1] is batch['target_wheel']

def test_players_learn_from_their_own_terms(spice, batch):
    "What the generator is taught does not change the critic, and the other way round"
    step = enter(spice).step(batch)
    step.terms['generator'].total.backward()
    assert all(p.grad is None for p in spice.critic.parameters()) and any(p.grad is not None for p in spice.generator.parameters())
    before = [p.grad.clone() for p in spice.generator.parameters() if p.grad is not None]
    step.terms['critic'].total.backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(before, (p for p in spice.generator.parameters() if p.grad is not None)))
    assert any(p.grad is not None for p in spice.critic.parameters())

def test_regressor_sees_the_made_picture(spice, batch, monkeypatch):
    "Eq. (6) and (7): pose against what was asked for, shape against f_3D's own of the source, which is a constant"
    eye = Regressor()
    runs = recorded(monkeypatch, enter(spice, regressor=eye).generator, 'forward')
    terms = spice.step(batch).terms['generator']
    made, found = runs[0].answer.image, Regressor()(batch['source_image'])
    the_same(eye.seen, [made, batch['source_image']])
    assert eye.learning == [True, False]
    away = {side: (found.rotmats - batch[f'{side}_rotmats']).abs().mean() for side in ('source', 'target')}
    assert torch.isclose(terms['theta'], away['target']) and not torch.isclose(away['source'], away['target'])
    assert torch.isclose(terms['beta'], (made.mean((1, 2, 3)) - batch['source_image'].mean((1, 2, 3))).abs().mean())

def test_clothes_are_compared_on_each_ones_torso(spice, batch, monkeypatch):
    "Eq. (8) and (9): the made picture under the target's masks, the photo under the source's, weighted by the turn between their roots"
    calls = []
    monkeypatch.setattr(Appearance, '__call__', lambda self, *args: calls.append(args) or dict.fromkeys(self.names, args[0].sum((1, 2, 3))*0))
    runs = recorded(monkeypatch, enter(spice).generator, 'forward')
    spice.step(batch)
    (args,) = calls
    the_same(args[:4], [runs[0].answer.image, *(batch[k] for k in ('source_image', 'target_torso', 'source_torso'))])
    assert torch.allclose(args[4], torch.tensor(30.), atol=1e-3)

def test_own_pose_is_its_own_in_all_roles(batch, monkeypatch):
    "Beyond the paper: a photo made again in the pose it has"
    spice = make_system('spice', 'tiny', warm=True).train()
    calls = recorded(monkeypatch, enter(spice, 'copy').generator, 'forward')
    terms = spice.step(batch).terms['generator']
    the_same(calls[0].args, [batch[k] for k in ('source_image', 'source_heat', 'source_heat', 'source_wheel')])
    assert torch.isclose(terms['own_pix'], (calls[0].answer.image - batch['source_image']).abs().mean())

def test_use_is_wired_as_training(spice, batch, monkeypatch):
    calls = recorded(monkeypatch, spice.eval().generator, 'forward')
    with torch.no_grad(): spice(batch)
    the_same(calls[0].args, [batch[k] for k in ('source_image', 'source_heat', 'target_heat', 'source_wheel')])

def test_no_truth_is_read(spice, batch):
    "A step needs the fields above and no other: no photo of the target, no true flow, no parsing"
    class Read(dict):
        asked = set()
        def __getitem__(self, name):
            self.asked.add(name)
            return super().__getitem__(name)
    enter(spice).step(Read(batch))
    wanted = {f'{side}_{k}' for side in ('source', 'target') for k in ('image', 'wheel', 'heat', 'torso', 'rotmats')} - {'target_image'}
    assert Read.asked == wanted

def test_each_term_stands_alone(batch):
    "A term computed by itself is the term of the whole sum"
    spice = make_system('spice', 'tiny').eval()
    whole = enter(spice).step(batch).terms['generator']
    for name in ('cycle', 'flow', 'adv', 'theta', 'beta', 'app'):
        weights = spice_weights(**{k: 0. for k in ('cycle', 'flow', 'adv', 'theta', 'beta', 'app') if k != name})
        spice.enter('full', weights, features=load_features('random', width=4), regressor=Regressor())
        assert isinstance(spice.loss, SpiceLoss)
        for k, v in spice.step(batch).terms['generator'].items(): assert torch.allclose(v, whole[k], atol=1e-5), k
