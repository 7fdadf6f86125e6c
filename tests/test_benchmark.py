"Budgets that can't be got around, and the commands of a comparison."
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spice.measure.benchmark import SHARES, budget, compare_commands, comparison
from spice.core import SpiceError, seeded
from spice.measure.results import read_results
from spice.measure.evaluate import weights_hash
from spice.train import make_system, system_class, system_names

ROWS = Path(__file__).parent.parent/'benchmarks'/'results'/'rows_people_64.json'

def made_up(folder, steps=100, **plan):
    "A run"
    (folder/'full').mkdir(parents=True)
    (folder/'plan.json').write_text(json.dumps(dict(system='spice', preset='tiny', bs=8) | plan))
    (folder/'full'/'log.csv').write_text(f'step,loss,photos_per_second\n{steps},1,4\n')
    return folder

@pytest.fixture(scope='module')
def rows(): return read_results(ROWS)[:2]

def learnt(rows, name, weights=''): return replace(rows[0], row=name, system=dict(kind='spice', weights=weights))

def test_what_has_learnt_needs_its_run(rows, tmp_path):
    a, b = learnt(rows, 'a'), learnt(rows, 'b')
    run = made_up(tmp_path/'a')
    for results, runs, words in (([*rows, a], None, "a has learnt.*Give runs={'a': FOLDER}"), ([*rows, a, b], dict(a=run), 'b has learnt'),
                                 ([*rows, a], dict(a=run, c=run), "no result of 'c'"), ([*rows, a, b], dict(a=run, b=made_up(tmp_path/'b', 90)), 'spice saw 720 photos')):
        with pytest.raises(SpiceError, match=words) as e: comparison(results, runs)
        assert '\n' not in str(e.value)
    assert comparison([*rows, a], dict(a=run))[1].startswith('Each system saw 800 photos') and comparison(rows)[1] == 'No trained system is in this table'

def test_a_result_belongs_to_the_weights_of_its_run(rows, tmp_path):
    with seeded(0): system = make_system('gfla', 'tiny').eval()
    run = made_up(tmp_path/'run')
    system.save_pretrained(run)
    assert comparison([learnt(rows, 'a', weights_hash(system))], dict(a=run))[1].startswith('Each system saw 800 photos')
    with pytest.raises(SpiceError, match='a was measured with other weights'): comparison([learnt(rows, 'a', '0'*16)], dict(a=run))

def test_every_process_counts(tmp_path):
    four = budget(made_up(tmp_path/'four', processes=4))
    assert four.total == 3200 and four.hours == pytest.approx(800/3600) and budget(made_up(tmp_path/'one')).total == 800

@pytest.mark.parametrize('text, words', [('{"system": "spice", ', 'is no run of spice_train'), ('[1, 2]', 'plan.json does not say system'), ('{}', 'plan.json does not say system'),
                                         ('{"system": "spice", "preset": "tiny", "bs": "8"}', 'plan.json does not say bs')])
def test_broken_plans(text, words, tmp_path):
    (made_up(tmp_path/'run')/'plan.json').write_text(text)
    with pytest.raises(SpiceError, match=words) as e: budget(tmp_path/'run')
    assert '\n' not in str(e.value)

def test_commands_make_all_that_they_use():
    lines = compare_commands()
    assert [o.split()[0] for o in lines] == ['spice_detector', 'spice_regressor', *['spice_train']*len(SHARES), 'spice_eval']
    made = [o.split()[1] for o in lines[:-1]]
    for k, line in enumerate(lines):
        words = line.split()
        for flag in ('--trunk', '--regressor'):
            if flag in words: assert words[words.index(flag) + 1] in made[:k]
    assert set(lines[-1].split()[1].split(',')[:-3]) == set(made[2:])
    assert [o.split()[0] for o in compare_commands(systems=('upis',))] == ['spice_train', 'spice_eval']
    for wrong, words in ((dict(systems=('spyce',)), "no system 'spyce'"), (dict(preset='huge'), "no preset 'huge'")):
        with pytest.raises(SpiceError, match=words): compare_commands(**wrong)

def test_every_system_has_its_share():
    for name in {*system_names()} - {'guided'}:                                   # it has a script of its own
        kind = system_class(name)
        assert list(SHARES[name]) == list(kind(kind.presets['tiny']()).stages()) and sum(SHARES[name].values()) == pytest.approx(1)
    for line in compare_commands(30_000, bs=8)[2:-1]:
        words = line.split()
        of = lambda flag: words[words.index(flag) + 1]
        with torch.device('meta'): system = make_system(of('--system'), 'tiny')
        photos = sum(int(n)*8*system.photos_in(stage) for stage, n in zip(of('--stage').split(','), of('--steps').split(',')))
        assert photos == pytest.approx(30_000, rel=.005)                               # photos, not items: a pair is two

def test_same_generator_same_name():
    system = make_system('upis', 'tiny')
    before = weights_hash(system)
    system.past.pictures[:] = 7
    assert weights_hash(system) == before
