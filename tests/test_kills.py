"Stopped and killed at random moments, the same command ends where it would have: three commands once here, all ten times with `pytest -m long -n 0 tests/test_kills.py`."
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from processes import COMMANDS, Running
from safetensors.numpy import load_file

from spice.sources import PeoplePhotos
from spice.data import prepare
from spice.infer import demo_person
from spice.pose_files import write_openpose
from spice.train import make_system
from spice.film import Frames

TRAIN = ['--steps', '6', '--stage', 'flow', '--bs', '2', '--pool', '8', '--checkpoint', '2', '--epoch', '3', '--samples', '4', '--quiet', '--device', 'cpu']
SMALL = ['--bs', '4', '--photos', '12', '--test', '4', '--size', '64', '--device', 'cpu']
RUNS = { # name: command and its arguments; {out} is what it writes
    'train': ['spice_train', '{out}', *TRAIN], 'train --accumulate': ['spice_train', '{out}', *TRAIN, '--accumulate', '2'],
    'detector': ['spice_detector', '{out}', '--preset', 'tiny', '--steps', '12', *SMALL], 'regressor': ['spice_regressor', '{out}', '--preset', 'tiny', '--steps', '8', *SMALL],
    'prepare': ['spice_prepare', 'people', '{out}', '--size', '64', '--train', '30', '--valid', '2', '--test', '2'],
    'fit': ['spice_fit', '{out}'],
    'video': ['spice_video', '{kit}/me.png', 'walk', '--out', '{out}/film.mp4', '--keypoints', '{kit}/me.json', '--model', '{kit}/carried', '--fps', '5', '--device', 'cpu'],
}
CLOCKS = ('photos_per_second', 'MB', 'seconds', 'minutes')

@pytest.fixture(scope='module')
def kit(tmp_path_factory):
    "A photo with joints, a system, and a dataset without bodies"
    folder = tmp_path_factory.mktemp('kit')
    image, known = demo_person(19, 64)
    image.save(folder/'me.png')
    write_openpose(known['keypoints'], folder/'me.json')
    make_system('spice', 'tiny').save_pretrained(folder/'carried')
    prepare(PeoplePhotos(64, train=40, valid=2, test=2), folder/'data')
    (folder/'data'/'bodies.npz').unlink(missing_ok=True)
    return folder

def begin(name, kit, out):
    "The command in a process of its own"
    module, function = COMMANDS[RUNS[name][0]].split(':')
    if name == 'fit' and not out.exists(): shutil.copytree(kit/'data', out)
    arguments = [o.format(out=out, kit=kit) for o in RUNS[name][1:]]
    return Running(f'import sys\nfrom {module} import {function}\nsys.exit({function}())', *arguments, name=RUNS[name][0])

def rows(path): # without the columns that a clock fills
    head, *lines = [o.split(',') for o in path.read_text().splitlines()]
    keep = [i for i, o in enumerate(head) if o not in CLOCKS]
    return [[o[i] for i in keep] for o in (head, *lines)]

def what_came(out)->dict: # of a run, by file
    "Weights, tables, logs and films"
    found = {}
    for path in sorted(out.rglob('*')):
        name = str(path.relative_to(out))
        if path.suffix == '.safetensors': found |= {f'{name} {k}': v for k, v in load_file(path).items()}
        if path.suffix == '.npz' and 'parts' not in name:
            with np.load(path) as f: found |= {f'{name} {k}': f[k] for k in f.files}
        if path.name == 'log.csv': found[name] = np.array(rows(path))
        if path.suffix == '.mp4': found[name] = np.stack([np.asarray(o, np.float32)/255 for o in Frames(path)])
        if path.suffix == '.png' and 'samples' not in name: found[name] = np.frombuffer(path.read_bytes(), np.uint8)
    return found

def same(a, b):
    assert a.keys() == b.keys()
    for k, v in a.items():
        assert v.shape == b[k].shape, k
        if k.endswith('.mp4'): assert np.abs(v - b[k]).mean() < 1/255, k                   # an encoder does not promise its bytes
        elif v.dtype.kind == 'f': np.testing.assert_allclose(v, b[k], atol=1e-6, rtol=1e-6, err_msg=k)
        else: assert (v == b[k]).all(), k

whole = {} # {name: what an undisturbed run gives, its seconds}

def undisturbed(name, kit, tmp_path):
    if name not in whole:
        start, run = time.monotonic(), begin(name, kit, tmp_path/'whole').wait()
        assert run.returncode == 0, run.stderr
        whole[name] = what_came(tmp_path/'whole'), time.monotonic() - start
    return whole[name]

def disturbed(name, kit, out, chance, seconds):
    "One stop at a random moment, then the same command to its end"
    run, number = begin(name, kit, out), chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
    time.sleep(chance.uniform(.1, .7)*seconds)
    if run.returncode is None: os.kill(run.process.pid, number)
    run.wait()
    stopped = run.returncode != 0
    if stopped and number != signal.SIGKILL:
        assert run.returncode in (1, 130) and len(run.stderr.splitlines()) == 1 and 'stopped' in run.stderr, run.stderr
        assert not list(out.rglob('.writing-*'))
    again = begin(name, kit, out).wait()
    assert again.returncode == 0 or name == 'video' and not stopped and 'is there already' in again.stderr, again.stderr
    assert not list(Path(out).rglob('.writing-*')), 'what a killed process left is removed'
    return stopped

@pytest.mark.skipif(os.name != 'posix', reason='signals')
@pytest.mark.parametrize('name, times', [('prepare', 1), ('fit', 1), ('video', 1), *(pytest.param(o, 10, marks=pytest.mark.long) for o in RUNS)])
def test_going_on_gives_the_same(name, times, kit, tmp_path):
    wanted, seconds = undisturbed(name, kit, tmp_path)
    chance, stops = random.Random(f'{name} {times}'), 0
    for k in range(times):
        stops += disturbed(name, kit, tmp_path/str(k), chance, seconds)
        same(wanted, what_came(tmp_path/str(k)))
    print(f'{name}: {stops} of {times} were stopped, {seconds:.1f} s undisturbed')
