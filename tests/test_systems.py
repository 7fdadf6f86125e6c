"Every system does the same four things: it learns from a prepared folder, is measured on it, reposes a single photo and makes a film of it."
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from spice.core import to_pil
from spice.sources import PeoplePhotos
from spice.data import Prepared, prepare
from spice.measure.evaluate import evaluate
from spice.reposer import Reposer
from spice.infer import repose
from spice.people import People
from spice.measure.protocols import PROTOCOLS
from spice.regressor import Regressor, regressor_settings
from spice.runs import Plan, log_rows, train
from spice.train import load_system, make_system, system_names
from spice.video import animate

SMALL = { # settings that make a step quick; all of them have the preset `tiny`
    'spice': {}, 'gfla': {}, 'guided': {}, 'upis': dict(width=4, blocks=1),
    'dpt': dict(width=4, blocks=2, blend_width=4, chart_widths=(4, 8), embedding=8, critic_width=4),
    'intrinsic': dict(width=4, cap=8, levels=3, warped=2, flow_width=4, flow_cap=8, flow_levels=3, critic_width=4),
    'parsing': dict(width=4, cap=8, readers=4, critic_width=4, levels=3),
}

def test_no_system_is_forgotten(): assert set(SMALL) == set(system_names())

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Photos with joints, bodies and maps, in pairs; and an f_3D"
    root = tmp_path_factory.mktemp('systems')
    prepare(PeoplePhotos(64, train=4, valid=1, test=2, views=2), root/'data')
    data = Prepared(root/'data')
    (root/'data'/'parsing').mkdir()
    for split in ('train', 'valid', 'test'):
        for name in data.splits[split]:
            outfit, view = (int(o) for o in name.split('_')[1:])
            np.save(root/'data'/'parsing'/f'{name}.npy', People(64, split, samples=1, device='cpu').photos([outfit], [view]).parsing[0].numpy())
    torch.manual_seed(0)
    Regressor(regressor_settings('tiny')).save_pretrained(root/'f_3d')
    return root

def trained(name, folder, out):
    "One step of each stage, from the prepared folder; the guided system has a script of its own and stays as it is"
    if name == 'guided':
        make_system(name, 'tiny').save_pretrained(out)
        return out
    plan = Plan(name, data=str(folder/'data'), steps=[1], bs=2, epoch=1, quiet=True, ema=0., settings=SMALL[name],
                regressor=str(folder/'f_3d') if name == 'spice' else '')
    return train(out, plan, 'cpu')

@pytest.mark.parametrize('name', SMALL)
def test_a_system_from_end_to_end(name, folder, tmp_path, bad_input):
    out = trained(name, folder, tmp_path/'run')
    system = load_system(out, 'cpu')
    assert system.name == name and not system.training
    if name != 'guided':
        rows = [o for stage in system.stages() for o in log_rows(out/stage/'log.csv')]
        assert len(rows) >= len(system.stages()) and all(np.isfinite(o['loss']) for o in rows)
        assert json.loads((out/'plan.json').read_text())['system'] == name
    protocol = replace(PROTOCOLS['clean'], size=(64, 64), real=('test',), measures=('l1',), extra=())
    data = Prepared(folder/'data')
    if name == 'guided': # it has to know which pixels are the person's
        (folder/'data'/'mattes').mkdir(exist_ok=True)
        for i, o in enumerate(data.names): to_pil(data.parsing(i)[None, None].gt(0).float().expand(1, 3, -1, -1)*2 - 1)[0].convert('L').save(folder/'data'/'mattes'/f'{o}.png')
    figure = evaluate(system, protocol, data=data, device='cpu').values['l1']
    assert figure['count'] == 2 and 0 < figure['mean'] < 1
    people = People(64, 'test', samples=1, device='cpu').photos([3], 0)
    photo, tool = to_pil(people.image)[0], Reposer(str(out), device='cpu')
    how = dict(keypoints=people.keypoints, **(dict(matte=to_pil((people.parsing > 0).float()[:, None].expand(-1, 3, -1, -1)*2 - 1)[0].convert('L')) if name == 'guided' else {}))
    assert repose(photo, 'walk', tool, **how).size == (64, 64)
    film = animate(photo, 'walk', tool, **how, fps=4.)
    frames = list(film)
    assert len(frames) == len(film) > 1 and all(o.size == (64, 64) for o in frames)
