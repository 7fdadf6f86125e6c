"""Systems, the learner, callbacks and runs: who learns from what, resume, failures, two processes."""
import json, math, os, shutil, signal, socket, time
from dataclasses import asdict
from itertools import count
from pathlib import Path
from types import SimpleNamespace
import pytest
import torch
from fastai.callback.core import Callback
from overfitting import off_person, quietly, steps_on
from PIL import Image
from processes import Running
from safetensors.torch import load_file
from spice.callbacks import EMA, Accumulate, Checkpoints, Clip, Guard, History, Judged, last_checkpoint, read_checkpoint, restore
from spice.core import SpiceError, WeightsError, seeded
from spice.sources import PeoplePhotos
from spice.data import prepare
from spice.features import load_features
from spice.generator import generator_settings
from spice.loaders import Draw, PoolSteps, collate, pool_loaders
from spice.people import People, Pool, free_body
from spice.regressor import Regressor, regressor_settings
from spice.runs import Plan, ValidationPairs, claim, log_rows, pairs_of, run_stage, spice_train, train
from spice.train import SYSTEMS, frozen, load_system, make_system, system_learner

ROOT = Path(__file__).parent.parent

@pytest.fixture(scope='module')
def f_3d():
    with seeded(1): return frozen(Regressor(regressor_settings('tiny')))

@pytest.fixture(scope='module')
def f_3d_folder(f_3d, tmp_path_factory): return str(f_3d.save_pretrained(tmp_path_factory.mktemp('f3d')/'f3d'))

@pytest.fixture
def dls(): return pool_loaders(Pool(People(64, 'train', samples=1, detail=1, device='cpu'), 8, batch=8), bs=2, steps=2, renew=0.)

def new(seed=0, **kwargs):
    with seeded(seed): return make_system('spice', 'tiny', **kwargs)

def test_judges_are_not_changed(dls, f_3d):
    features = load_features('people', device='cpu')
    before = [{k: v.clone() for k, v in o.state_dict().items()} for o in (f_3d, features)]
    learn = quietly(system_learner(new(), dls, 'full', regressor=f_3d, features=features), 2)
    assert not f_3d.training and not features.training and learn.model.training
    for net, old in zip((f_3d, features), before):
        assert all(torch.equal(v, old[k]) for k, v in net.state_dict().items())
        assert all(p.grad is None for p in net.parameters())
    assert not any(k.startswith(('loss', 'features', 'regressor')) for k in learn.model.state_dict())

def test_stages_move_what_they_should(dls, f_3d):
    system = new()
    start = {k: v.clone() for k, v in system.state_dict().items()}
    changed = lambda old: {k.split('.')[0] + '.' + k.split('.')[1] for k, v in system.state_dict().items() if not torch.equal(v, old[k]) and '_u' not in k and '_v' not in k}
    quietly(system_learner(system, dls, 'flow'), 2)
    assert changed(start) == {'generator.flow_net'}
    middle = {k: v.clone() for k, v in system.state_dict().items()}
    quietly(system_learner(system, dls, 'full', regressor=f_3d), 2)
    assert {o.split('.')[0] for o in changed(middle)} == {'generator', 'critic'}

def test_trains_with_every_truth_deleted(f_3d):
    pool = Pool(People(64, 'train', samples=1, detail=1, device='cpu'), 4, batch=4)
    for k in ('attributes', 'parsing', 'seen', 'views'): del pool.store[k]
    batch = PoolSteps(pool, 2, 1)[0]
    assert not [k for k in batch if 'target_image' in k or 'parsing' in k]
    learn = quietly(system_learner(new(), pool_loaders(pool, bs=2, steps=1, renew=0.), 'full', regressor=f_3d), 1)
    assert torch.isfinite(learn.step.total)

def test_a_term_off_is_not_computed(dls, f_3d):
    from spice.objective import spice_weights
    learn = quietly(system_learner(new(), dls, 'full', weights=spice_weights(theta=0., beta=0., adv=0., app=0.)), 2)
    assert set(learn.step.log()) == {'percep', 'style', 'pix', 'correct', 'regular', 'generator_total'}

def test_the_warm_up_needs_no_critic(dls, f_3d):
    system = new(warm=True)
    assert list(system.stages()) == ['flow', 'copy', 'full'] and list(new().stages()) == ['flow', 'full']
    before = {k: v.clone() for k, v in system.critic.state_dict().items()}
    learn = quietly(system_learner(system, dls, 'copy'), 2)
    assert set(learn.step.log()) == {'own_percep', 'own_style', 'own_pix', 'correct', 'regular', 'generator_total'}
    assert all(torch.equal(v, before[k]) for k, v in system.critic.state_dict().items())

def test_true_flow_in_both_stages(dls, f_3d):
    from dataclasses import replace
    body, system = free_body('cpu'), new()
    for stage in ('flow', 'full'):
        weights = replace(system.stages()[stage].weights, true_flow=1.)
        learn = quietly(system_learner(system, dls, stage, weights=weights, regressor=f_3d, body=body), 2)
        assert 0 < float(learn.step.log()['true_flow']) < 2

def test_missing_tools_are_named(dls, bad_input):
    with pytest.raises(SpiceError, match='no regressor'): system_learner(new(), dls, 'full')
    with pytest.raises(SpiceError, match='does not learn in stage'): system_learner(new(), dls, 'flow', rates=dict(critic=1.))

def pairs_batch(n, size=64):
    "A drawn batch of true pairs"
    pairs = ValidationPairs(People(size, 'train', samples=1, detail=1, device='cpu'), n)
    return Draw(free_body('cpu'))(collate([pairs[i] for i in range(n)]))

def overfit(steps, f_3d, rate=1e-3):
    "One batch again and again: the cycle's pixel loss, first and last, and distances to the true photo of what was made and of a copy, where a person is"
    batch, system, pix = pairs_batch(4), new(), []
    truth = batch.pop('target_image')
    for _ in steps_on(system.enter('flow', regressor=f_3d), batch, steps//4, [1e-3]): pass
    for step in steps_on(system.enter('full', regressor=f_3d), batch, steps, [rate, rate]): pix.append(float(step.terms['generator']['pix'].detach()))
    return pix[0], pix[-1], *(off_person(batch, o, truth) for o in (step.made['image'], batch['source_image']))

def test_overfits_a_little(f_3d):
    first, last, made, copy = overfit(60, f_3d)                                            # at 40 last bits could decide whether `made` beats `copy`
    assert last < .6*first and made < copy

@pytest.mark.long
def test_overfits_one_batch(f_3d):
    first, last, made, copy = overfit(2600, f_3d)
    assert last < .1*first and made < copy

# checkpoints

def test_a_broken_save_keeps_the_one_before(dls, tmp_path, monkeypatch):
    learn = system_learner(new(), dls, 'flow', cbs=[Checkpoints(tmp_path, every=1)])
    quietly(learn, 2)
    good = last_checkpoint(tmp_path)
    def full_disk(state, f): Path(f).write_bytes(b'half'); raise OSError(28, 'No space left on device')
    monkeypatch.setattr(torch, 'save', full_disk)
    learn.done = 3
    with pytest.raises(SpiceError, match='Free some space'): learn.checkpoints.save()
    assert last_checkpoint(tmp_path) == good and [o.name for o in tmp_path.iterdir() if 'half' in o.read_bytes()[:4].decode('latin1')] == []
    assert read_checkpoint(good)['done'] == 2

def test_foreign_checkpoints(dls, f_3d, tmp_path, bad_input):
    learn = quietly(system_learner(new(), dls, 'flow', cbs=[Checkpoints(tmp_path, every=2)]), 2)
    state = read_checkpoint(last_checkpoint(tmp_path))
    with pytest.raises(WeightsError, match="of stage 'flow', this run of 'full'"): restore(system_learner(new(), dls, 'full', regressor=f_3d), state)
    state['weights'] = {k: v for k, v in list(state['weights'].items())[1:]}
    with pytest.raises(WeightsError, match='another preset'): restore(learn, state)
    torch.save(dict(a=1), tmp_path/'other.pt')
    with pytest.raises(WeightsError, match='no checkpoint'): read_checkpoint(tmp_path/'other.pt')

def test_ema_by_hand(dls):
    "Weights are averaged by the rule; the vectors of spectral norm are those of the last step"
    class Diary(Callback):
        order = 54
        def after_step(self): seen.append({k: v.clone() for k, v in self.learn.model.state_dict().items()})
    seen, system = [], new()
    start = {k: v.clone() for k, v in system.state_dict().items()}
    learn = quietly(system_learner(system, dls, 'flow', cbs=[EMA(.2), Diary()]), 2)
    name = next(k for k, p in system.named_parameters() if p.requires_grad and not torch.equal(p, start[k]))
    d1, d2 = 2/11, .2                                                                      # min(decay, (1 + n)/(10 + n))
    first = d1*start[name] + (1 - d1)*seen[0][name]
    assert torch.allclose(learn.ema.mean[name], d2*first + (1 - d2)*seen[1][name], atol=1e-6)
    vectors = [k for k in start if k.endswith('._u')]
    assert vectors and all(torch.equal(learn.ema.mean[k], seen[1][k]) for k in vectors)

def test_accumulated_gradients_survive(dls, tmp_path):
    "Stopped between two steps of the optimizer, and after one; and nothing leaks into another stage"
    def run(stop, folder):
        system, cbs = new(), lambda: [Accumulate(6), Checkpoints(folder, every=1)]
        learn = quietly(system_learner(system, dls, 'flow', cbs=cbs()), stop)
        if stop < 8:
            learn = system_learner(new(1), dls, 'flow', cbs=cbs())
            restore(learn, read_checkpoint(last_checkpoint(folder)))
            quietly(learn, 8)
        return learn
    state = lambda: (dls.train.dataset.epoch, dls.train.dataset.skip)
    start, ends = state(), []
    for stop in (8, 5):
        dls.train.dataset.epoch, dls.train.dataset.skip = start
        learn = run(stop, tmp_path/str(stop))
        ends.append({k: v.clone() for k, v in learn.model.state_dict().items()})
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())
    assert learn.accumulate.count == 4 and read_checkpoint(last_checkpoint(tmp_path/'5'))['pending']['count'] == 4
    assert any(p.grad is not None and p.grad.abs().sum() for p in learn.model.parameters())
    fresh = system_learner(learn.model, dls, 'flow', cbs=[Accumulate(1000)])
    fresh.create_opt()
    fresh.accumulate.before_fit()
    assert not any(p.grad is not None and p.grad.abs().sum() for g in learn.model.groups() for p in g)

def test_players_are_clipped_apart(dls, f_3d):
    "The critic's gradient, however long, leaves the generator's as it is"
    class Look(Callback):
        order = Clip.order + 1
        def before_step(self): self.learn.norms = [float(torch.stack([p.grad.norm() for p in g if p.grad is not None]).norm()) for g in self.learn.model.groups()]
    class Long(Callback):
        order = Clip.order - 1
        def before_step(self):
            for p in self.learn.model.critic.parameters(): p.grad.mul_(1e6)
    learn = quietly(system_learner(new(), dls, 'full', regressor=f_3d, cbs=[Long(), Clip(1e-3), Look()]), 1)
    assert learn.norms == pytest.approx([1e-3, 1e-3], rel=1e-2)

def test_best_is_nearest_to_the_truth(f_3d):
    "Not what the generator and its critic think of each other"
    pool, pairs = Pool(People(64, 'train', samples=1, detail=1, device='cpu'), 4, batch=4), ValidationPairs(People(64, 'valid', samples=1, detail=1, device='cpu'), 3)
    dls = pool_loaders(pool, pairs, bs=2, steps=1, renew=0.)
    learn = quietly(system_learner(new(), dls, 'full', regressor=f_3d, metrics=Judged()), 1)
    offs = [(o['target_image'], learn.model(o)['image']) for o in dls.valid]
    assert learn.recorder.log[3] == pytest.approx(sum(float((a - b).abs().mean())*len(a) for a, b in offs)/3, rel=1e-3)

def test_mended_run(tmp_path, f_3d_folder):
    "All stages of the mended preset from a plan, which finds the body by itself; and back from its folder"
    plan = Plan(preset='mended64', steps=(1,), bs=2, pool=4, epoch=1, checkpoint=1, every=1, samples=100, quiet=True, regressor=f_3d_folder,
                settings=dict(generator=asdict(generator_settings('mended64', width=8, cap=16, flow_width=4, flow_cap=8, hidden=4))))
    train(tmp_path/'run', plan, 'cpu')
    last = {o: log_rows(tmp_path/'run'/o/'log.csv')[-1] for o in ('flow', 'copy', 'full')}
    assert all(o['masks'] > 0 for o in last.values()) and last['full']['parts_content'] >= 0 and 'parts_content' not in last['flow']
    assert (tmp_path/'run'/'full'/'best'/'config.json').is_file() and load_system(tmp_path/'run', 'cpu').settings.beyond['masks'] == 10

def test_guard_names_the_term(dls, tmp_path):
    learn = system_learner(new(), dls, 'flow', cbs=[Guard(tmp_path)])
    with torch.no_grad(): next(learn.model.generator.flow_net.parameters()).fill_(float('nan'))
    with pytest.raises(SpiceError, match='correct.* is not finite at step 0'): quietly(learn, 2)
    assert 'source_image' in torch.load(tmp_path/'bad_batch_0000000.pt', weights_only=True)

# runs

RUN = """
import sys, torch
torch.set_num_threads(1)
from spice.runs import spice_train
spice_train(sys.argv[1], stage='full', steps='8', bs=2, pool=4, epoch=4, checkpoint=2, samples=100, device='cpu', quiet=True, regressor=sys.argv[2])
"""

def test_killed_and_gone_on_with(tmp_path, f_3d_folder):
    "Kill -9 somewhere in the middle; then the weights are those of a run that nobody disturbed"
    for out, kill in ((tmp_path/'whole', False), (tmp_path/'killed', True)):
        run = Running(RUN, out, f_3d_folder)
        if kill:
            for _ in range(2000):
                if (out/'full'/'checkpoints').is_dir() and len(list((out/'full'/'checkpoints').glob('step_*.pt'))) > 1 or run.returncode is not None: break
                time.sleep(.02)
            run.kill()
            assert not (out/'model.safetensors').exists()
            run = Running(RUN, out, f_3d_folder)
        assert run.wait().returncode == 0, run.stderr
    a, b = (load_file(tmp_path/o/'full'/'checkpoints'/'..'/'last'/'model.safetensors') for o in ('whole', 'killed'))
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)
    assert [o['step'] for o in json.loads(read_checkpoint(last_checkpoint(tmp_path/'killed'/'full'/'checkpoints'))['history'])][-1] == 8

def test_killed_between_stages(tmp_path):
    "The next stage finds photos and chance as the one before left them"
    plan = Plan(stages=('flow', 'copy'), steps=(2, 2), bs=2, pool=4, renew=.5, epoch=1, checkpoint=1, every=1, samples=100, ema=0., quiet=True, settings=dict(warm=True))
    train(tmp_path/'run', plan, 'cpu')
    whole = load_file(tmp_path/'run'/'copy'/'last'/'model.safetensors')
    shutil.rmtree(tmp_path/'run'/'copy')
    train(tmp_path/'run', plan, 'cpu')
    again = load_file(tmp_path/'run'/'copy'/'last'/'model.safetensors')
    assert all(torch.equal(whole[k], again[k]) for k in whole)

def test_trains_just_as_many_steps(tmp_path):
    "Also where they are no whole epochs; and not one more when it goes on"
    plan = Plan(stages=('flow',), steps=(3,), bs=2, pool=4, epoch=2, checkpoint=1, every=1, samples=100, quiet=True)
    train(tmp_path/'run', plan, 'cpu')
    assert [o['step'] for o in log_rows(tmp_path/'run'/'flow'/'log.csv')] == [1, 2, 3]
    assert read_checkpoint(last_checkpoint(tmp_path/'run'/'flow'/'checkpoints'))['done'] == 3
    shutil.rmtree(tmp_path/'run'/'flow'/'last')
    train(tmp_path/'run', plan, 'cpu')
    assert len(log_rows(tmp_path/'run'/'flow'/'log.csv')) == 3

RUN_OF = dict(stages=('flow',), steps=(7,), bs=2, pool=4, epoch=4, checkpoint=3, every=2, samples=100, quiet=True)

@pytest.mark.parametrize('at, accumulate', [(1, 1), (2, 2), (4, 1), (5, 3), (7, 2)])
def test_ctrl_c_and_the_same_command(tmp_path, monkeypatch, at, accumulate):
    "In the middle of a step; it is finished, and going on gives the same weights and the same log as nobody's interruption"
    plan, step, calls = Plan(**RUN_OF, accumulate=accumulate), SYSTEMS['spice'].step, []
    train(tmp_path/'whole', plan, 'cpu')
    def impatient(self, batch):
        calls.append(self.training)
        if sum(calls) == at and self.training: os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch)
    monkeypatch.setattr(SYSTEMS['spice'], 'step', impatient)
    with pytest.raises(SpiceError, match=f'stopped at step {at} of 7. The same command goes on'): train(tmp_path/'again', plan, 'cpu')
    assert read_checkpoint(last_checkpoint(tmp_path/'again'/'flow'/'checkpoints'))['done'] == at
    train(tmp_path/'again', plan, 'cpu')
    for kind in ('last', 'best'): # also where it was stopped before an epoch was judged
        a, b = (load_file(tmp_path/o/'flow'/kind/'model.safetensors') for o in ('whole', 'again'))
        assert all(torch.equal(v, b[k]) for k, v in a.items()), kind
    logs = [[{k: v for k, v in row.items() if k not in ('photos_per_second', 'MB')} for row in log_rows(tmp_path/o/'flow'/'log.csv')] for o in ('whole', 'again')]
    assert logs[0] == logs[1] and [o['step'] for o in logs[0]] == [2, 4, 6, 7]

def test_speed_is_of_photos(dls, monkeypatch):
    "Not of the entries of a batch"
    seconds = count()
    monkeypatch.setattr('spice.callbacks.time', SimpleNamespace(perf_counter=lambda: next(seconds))) # a second from row to row
    learn = system_learner(new(), dls, 'flow', cbs=[History(every=2)])
    with learn.no_bar(), learn.no_logging(): learn.train_to(4)
    assert [o['photos_per_second'] for o in learn.history.rows] == [4, 4]

def test_a_second_ctrl_c_saves_nothing(tmp_path, dls):
    before = signal.getsignal(signal.SIGINT)                                             # a shell may ignore it for jobs in the background
    learn = system_learner(new(), dls, 'flow', cbs=[Checkpoints(tmp_path/'checkpoints', every=1000), History()])
    step = learn.model.step
    def impatient(batch):
        for _ in range(2): os.kill(os.getpid(), signal.SIGINT)
        return step(batch)
    learn.model.step = impatient
    with pytest.raises(KeyboardInterrupt): run_stage(learn, tmp_path, 4, quiet=True)
    assert learn.done == 0 and last_checkpoint(tmp_path/'checkpoints') is None
    assert signal.getsignal(signal.SIGINT) is before

def test_nan_is_never_saved(tmp_path):
    "Rates so large that weights are lost in the first step"
    plan = Plan(**RUN_OF | dict(checkpoint=1, rates=dict(flow=100.), settings=dict(flow_rate=1e9)))
    with pytest.raises(SpiceError, match='Give 0 to 100'): train(tmp_path/'a', Plan(**RUN_OF | dict(rates=dict(flow=1e38))), 'cpu')
    assert not (tmp_path/'a').exists()
    try: train(tmp_path/'b', plan, 'cpu')
    except SpiceError as e: assert 'is not finite' in str(e)
    for o in (tmp_path/'b').rglob('*.pt'):
        if o.name.startswith('step_'): assert all(torch.isfinite(v).all() for v in read_checkpoint(o)['weights'].values() if v.is_floating_point())

def test_photos_are_known_by_content(tmp_path):
    "Moved data are the same data; replaced ones are not; a word typed wrong leaves nothing"
    prepare(PeoplePhotos(64, 3, 2, 0, 1), tmp_path/'data')
    plan = lambda data: Plan(**RUN_OF | dict(data=str(tmp_path/data), steps=(1,), epoch=1))
    with pytest.raises(SpiceError, match='is no prepared dataset'): train(tmp_path/'run', plan('dta'), 'cpu')
    assert not (tmp_path/'run').exists()
    train(tmp_path/'run', plan('data'), 'cpu')
    (tmp_path/'data').rename(tmp_path/'moved')
    train(tmp_path/'run', plan('moved'), 'cpu')
    picture = next((tmp_path/'moved'/'images').glob('*.png'))
    Image.new('RGB', (64, 64), 'red').save(picture)
    with pytest.raises(SpiceError, match='was begun with photos = '): train(tmp_path/'run', plan('moved'), 'cpu')

def test_out_of_memory_is_one_line(tmp_path, dls, bad_input):
    learn = system_learner(new(), dls, 'flow', cbs=[Checkpoints(tmp_path/'checkpoints', every=1000), History()])
    def greedy(batch): raise torch.OutOfMemoryError('CUDA out of memory')
    learn.model.step = greedy
    with pytest.raises(SpiceError, match='Give a smaller --bs'): run_stage(learn, tmp_path, 4, quiet=True)

def test_bad_plans(tmp_path, f_3d_folder, bad_input, monkeypatch):
    with pytest.raises(SpiceError, match='Give --regressor'): train(tmp_path/'a', Plan(steps=[1]), 'cpu')
    with pytest.raises(SpiceError, match="no stage 'third'"): train(tmp_path/'a', Plan(stages=['third']), 'cpu')
    with pytest.raises(SpiceError, match='is no prepared dataset'): train(tmp_path/'a', Plan(data=str(tmp_path), stages=['flow']), 'cpu')
    with pytest.raises(SpiceError, match='whole numbers'): spice_train(str(tmp_path/'a'), steps='many')
    with pytest.raises(WeightsError, match='no such folder'): train(tmp_path/'a', Plan(regressor='nowhere'), 'cpu')
    for plan, says in ((dict(bs=0), 'bs = 0'), (dict(epoch=0), 'epoch = 0'), (dict(rates=dict(genrator=1.)), "no part 'genrator' that learns"),
                       (dict(rates=dict(flow='abc')), "flow = 'abc'"), (dict(weights=dict(correct=-1.)), 'correct = -1'), (dict(clip=-1.), 'clip = -1'), (dict(decay=math.nan), 'decay = nan'),
                       (dict(ema=5.), 'ema = 5'), (dict(rates=dict(flow=-1e-3)), 'flow = -0.001'), (dict(settings=dict(crop=10**9)), 'settings.crop = 1000000000'), (dict(seed=-1), 'seed = -1'), (dict(weights=dict(flow=0.)), 'no term counts')):
        with pytest.raises(SpiceError, match=says): train(tmp_path/'e', Plan(stages=['flow'], **plan), 'cpu')
    assert not (tmp_path/'e').exists()
    (tmp_path/'d').mkdir()
    (tmp_path/'d'/'plan.json').write_text('{"sys')
    with pytest.raises(SpiceError, match='plan.json is no valid JSON'): claim(tmp_path/'d', Plan())
    claim(tmp_path/'b', Plan())
    with pytest.raises(SpiceError, match="was begun with preset = 'tiny', not 'small'"): claim(tmp_path/'b', Plan(preset='small'))
    (tmp_path/'c').write_text('a file')
    with pytest.raises(SpiceError, match='can not write there'): claim(tmp_path/'c', Plan())
    assert pairs_of('a=1,b=x,c=.5') == dict(a=1, b='x', c='.5') or pairs_of('c=0.5') == dict(c=.5)

def test_saved_systems_come_back(tmp_path):
    system = new().eval()
    system.save_pretrained(tmp_path/'s')
    again, batch = load_system(tmp_path/'s', 'cpu'), pairs_batch(1)
    assert type(again) is SYSTEMS['spice']
    with torch.no_grad(): assert torch.equal(system(batch)['image'], again(batch)['image'])

# two processes

def free_port():
    "A port that no other test uses"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return str(s.getsockname()[1])

TWO = '''
import sys, torch, torch.distributed as dist
torch.set_num_threads(1)
from spice.core import seeded
from spice.data import Prepared
from spice.distributed import ProcessGroup, together
from spice.features import load_features
from spice.loaders import Draw, PhotoSteps, Unpaired, step_loaders
from spice.regressor import Regressor, regressor_settings
from spice.train import frozen, make_system, system_learner
data, out, bs = Prepared(sys.argv[1]), sys.argv[2], int(sys.argv[3])
class Exact:
    "In 64 bits, photo by photo: drawing is 32 bits, and its rounding depends on how many are drawn at once"
    def __call__(self, batch):
        each = [Draw()(type(batch)({k: v[i:i + 1] for k, v in batch.items()})) for i in range(len(batch))]
        whole = {k: torch.cat([o[k] for o in each]) for k in each[0]}
        return type(batch)({k: v.double() if v.is_floating_point() else v for k, v in whole.items()})
with together(cpu=True) as share:
    torch.set_num_threads(1)                                                            # accelerate sets its own number
    with seeded(share[0]): system = make_system('spice', 'tiny').double()              # the starts differ: the first process decides
    with seeded(1): f_3d = frozen(Regressor(regressor_settings('tiny')).double())
    dls = step_loaders(PhotoSteps(Unpaired(data), bs, 3, share=share), draw=Exact(), device='cpu')
    learn = system_learner(system, dls, 'full', regressor=f_3d, features=load_features('people', device='cpu').double(), cbs=[ProcessGroup()])
    with learn.no_bar(), learn.no_logging(): learn.train_to(3)
    if share[0] == 0: torch.save(system.state_dict(), out)
'''

def test_two_processes_train_as_one(tmp_path):
    prepare(PeoplePhotos(64, train=6, valid=1, test=1), tmp_path/'data')
    run = lambda out, bs, **env: Running(TWO, tmp_path/'data', tmp_path/out, bs, cwd=tmp_path, env={**os.environ, **env})
    group = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port(), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2', ACCELERATE_USE_CPU='true')
    both = [run('two.pt', 2, RANK=str(i), LOCAL_RANK=str(i), **group) for i in range(2)]
    for o in (*both, run('one.pt', 4)): assert o.wait().returncode == 0, o.stderr
    a, b = (torch.load(tmp_path/f'{o}.pt', weights_only=True) for o in ('one', 'two'))
    worst = max(float((a[k] - b[k]).abs().max()) for k in a)
    assert worst < 1e-8, worst

def test_a_run_of_two_processes(tmp_path, f_3d_folder):
    "One folder, one log, one set of weights"
    code = RUN.replace("steps='8'", "steps='2'").replace('epoch=4', 'epoch=2')
    env = {**os.environ, 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': free_port(), 'WORLD_SIZE': '2', 'LOCAL_WORLD_SIZE': '2'}
    both = [Running(code, tmp_path/'run', f_3d_folder, env={**env, 'RANK': str(i), 'LOCAL_RANK': str(i)}) for i in range(2)]
    for o in both: assert o.wait().returncode == 0, o.stderr
    assert len((tmp_path/'run'/'full'/'log.csv').read_text().splitlines()) == 2
    assert load_system(tmp_path/'run', 'cpu').size == (64, 64)

def test_the_first_step_is_told(tmp_path, capsys):
    "Each term times its weight, once for each stage, printed unless the run is quiet; the same after a stop"
    few = dict(system='upis', bs=2, pool=8, epoch=2, checkpoint=1, device='cpu', weights='style=100')
    spice_train(str(tmp_path/'run'), **few, steps='2')
    said, text = capsys.readouterr().out, (tmp_path/'run'/'full'/'first_step.txt').read_text()
    assert said.count('full, first step: generator: adv') == 1 and text.strip() in said and text.strip() in (tmp_path/'run'/'README.md').read_text()
    parts = dict(o.split(' ', 1) for player in text.strip().split('; ') for o in player.split(': ')[1].split(', '))
    assert set(parts) == {'adv', 'pose', 'adv_back', 'pose_back', 'content', 'style', 'critic', 'detector'}
    for k, v in parts.items():
        value, times, weight, equals, product = v.split()
        assert (times, equals) == ('x', '=') and abs(float(value)*float(weight) - float(product)) <= .02*abs(float(product)), k
    assert parts['style'].split()[2] == '30', 'lambda_Id times the weight that was given'
    spice_train(str(tmp_path/'quiet'), **few, steps='1', quiet=True)
    assert 'first step' not in capsys.readouterr().out and (tmp_path/'quiet'/'full'/'first_step.txt').is_file()

def test_papers_schedules_by_command(tmp_path, monkeypatch, bad_input):
    from spice.sources import PeoplePhotos
    from spice.data import prepare
    from spice.runs import spice_train
    asked = []
    monkeypatch.setattr('spice.runs.train', lambda out, plan, device, cbs: asked.append((plan, cbs)) or out)
    data = str(prepare(PeoplePhotos(64, train=30, valid=1, test=1), tmp_path/'data'))
    spice_train(str(tmp_path/'a'), system='upis', data=data, paper=True)
    plan, cbs = asked.pop()
    assert (plan.preset, plan.bs, plan.ema, plan.steps) == ('paper', 12, 0., [1500]) and cbs()[0].form == 'line'      # 60 photos, 300 epochs
    spice_train(str(tmp_path/'a'), system='parsing', preset='market', data=data, paper=True, seed=3)
    plan, cbs = asked.pop()
    assert (plan.preset, plan.bs, plan.ema, plan.seed, plan.steps, cbs) == ('market', 16, 0., 3, [150], None)
    spice_train(str(tmp_path/'a'), preset='mended64', steps='3,4', weights='beta=0', quiet=True)
    plan, cbs = asked.pop()
    assert (plan.preset, plan.steps, plan.weights, plan.ema, plan.quiet, cbs) == ('mended64', [3, 4], dict(beta=0), .999, True, None)
    spice_train(str(tmp_path/'a'), system='gfla', data=data, paper=True, settings='bars=0')
    plan, cbs = asked.pop()
    assert (plan.preset, plan.bs, plan.ema, plan.stages, plan.settings, cbs) == ('paper', 8, 0., ['flow', 'full'], dict(whole_pixels=True, bars=0), None)
    assert plan.steps == [80*plan.epoch, 40*plan.epoch] and plan.epoch == 101_966//8, 'a dataset without training pairs has the number of the paper'
    for options, says in ((dict(system='guided'), 'no schedule of a paper'), (dict(steps='5'), '--steps beside --paper'), (dict(stage='full'), '--stage beside --paper')):
        with pytest.raises(SpiceError, match=says): spice_train(str(tmp_path/'a'), paper=True, **options)
