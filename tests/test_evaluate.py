"Protocols on look-alikes of every dataset, memory of a long stream, results that can be compared, bad input"
import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data import deepfashion
from torchmetrics import Metric

import spice.measure.evaluate as ev
import spice.measure.protocols as pr
from spice.body import load_body
from spice.core import DataError, SpiceError, WeightsError, seeded, to_pil
from spice.sources import DeepFashion, PeoplePhotos, Source
from spice.data import Prepared, prepare, save_bodies
from spice.measure.editing import answer, reshaped, retextured, shape_distance, shape_figure, t_pose_figure, texture_figure
from spice.measure.metrics import GroupedFID
from spice.measure.evaluate import Row, evaluate, evaluate_rows, open_row, spice_eval, weights_hash
from spice.measure.results import Table, difference, read_result, read_results, sheet, table
from spice.keypoints import Keypoints
from spice.loaders import Batch
from spice.measure.metrics import FID, Rows, load_extractor
from spice.people import People, free_body
from spice.people.people_detector import JointNet
from spice.measure.protocols import BASELINES, PROTOCOLS, Case, PeoplePairs, PreparedPairs, driven_pairs, fill_holes, find_protocol, make_pairs, stretched, through
from spice.regressor import Regressor, regressor_settings
from spice.sources import Item
from spice.surface import BACKGROUND, SEEN
from spice.train import System, make_system

QUICK = dict(count=6, real=6, measures=('l1', 'lpips-people', 'fid-people'), device='cpu')

class Echo(System):
    "Gives the source back; `peeks` looks for the wanted photo"
    def __init__(self, size=(256, 256), peeks=False, made=None):
        torch.nn.Module.__init__(self)
        self.made_for, self.peeks, self.made, self.seen = size, peeks, made, []
        self.one = torch.nn.Parameter(torch.ones(1))
    @property
    def size(self): return self.made_for
    def parts(self): return dict(generator=self)
    def forward(self, batch):
        self.seen.append(batch)
        if self.peeks: return dict(image=batch['target_image'])
        return dict(image=batch['source_image']*self.one if self.made is None else self.made)

@pytest.fixture(scope='module')
def four(): return PeoplePairs(PROTOCOLS['people-64'], 4, 'cpu').case(range(4))

@pytest.fixture(scope='module')
def untrained():
    with seeded(0): return make_system('spice', 'tiny')

@pytest.fixture(scope='module')
def results(untrained): return evaluate_rows(['copy-source', 'warp-true-flow', 'truth', open_row(untrained, 'cpu', 'untrained')],
                                             **(QUICK | dict(measures=('l1', 'lpips-people', 'fid-people', 'flow'))))

@pytest.fixture(scope='module')
def fashion(tmp_path_factory):
    root = tmp_path_factory.mktemp('fashion')
    prepare(DeepFashion(deepfashion(root/'raw', 'photos')), root/'out')
    return Prepared(root/'out')

@pytest.fixture(scope='module')
def people_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('people')/'out'
    prepare(PeoplePhotos(64, train=3, valid=0, test=3), out)
    return Prepared(out)

class Films(Source):
    "Three short films of coloured squares"
    kind = 'video'
    def __init__(self, size=256):
        super().__init__(size)
        self.items = [Item(f'{film}_{k:04d}', None, 'test', film) for film in ('a', 'b', 'c') for k in (0, 10, 20, 100)]
    def load(self, i, detector=None):
        points = torch.rand(1, 18, 3, generator=torch.Generator().manual_seed(i))*self.size[0]
        points[..., 2] = 1
        return Image.new('RGB', self.size, (20*i, 250 - 20*i, 90)), Keypoints(points, self.size), None

@pytest.fixture(scope='module')
def films(tmp_path_factory):
    out = tmp_path_factory.mktemp('films')/'out'
    prepare(Films(), out)
    return Prepared(out)

def small(p, **changes): return replace(PROTOCOLS[p], **changes)

def test_protocols_name_what_there_is():
    assert set(PROTOCOLS) == {'people-64', 'people-128', 'people-256', 'people-crop-128', 'people-crop-256', 'gfla-256', 'cfld-256x176', 'clean', 'fashion-video',
                              'ccp-round', 'ccp-round-256', 'ccp-repose', 'ccp-repose-128', 'upis-256', 'defgan-256', 'dpt-256', 'market'}
    for name, p in PROTOCOLS.items():
        assert p.name == name and set(p.measures) | set(p.extra) <= set(ev.NEEDS) and p.frame in pr.FRAME_CHANGES
        assert through(torch.zeros(1, 3, 8, 8), p.codec).shape == (1, 3, 8, 8)
        field = {'lpips', 'fid', 'fid-field'}
        if name.startswith('people'): assert p.count == p.real_count == 1000 and not field & set(p.measures) and {'lpips', 'fid'} <= set(p.extra)
        else: assert not any('people' in m for m in (*p.measures, *p.extra)) and (field & set(p.measures) or name.startswith('ccp') or 'is' in p.extra)
    assert 'on another split' in PROTOCOLS['upis-256'].note and 'their own split' in PROTOCOLS['defgan-256'].note  # what is the paper's and what is not

def test_codecs():
    bytes_ = torch.arange(256.).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    for codec in ('png', 'cut'): assert torch.allclose(through(bytes_/127.5 - 1, codec), bytes_/127.5 - 1, atol=1e-6), 'what a file held comes back'
    between = (bytes_[..., :15] + .9)/127.5 - 1
    assert torch.allclose(through(between, 'cut'), bytes_[..., :15]/127.5 - 1, atol=1e-6) and (through(between) > between).all()
    assert not torch.equal(through(between, 'jpeg75'), through(between, 'cut-jpeg75'))

# ---- People

def test_rows_in_their_order(results):
    "The truth is best, the true flow better than a copy, nothing learnt worst"
    lpips = [o.values['lpips-people']['mean'] for o in results]
    assert lpips[2] < 1e-9 < lpips[1] < lpips[0] < lpips[3]
    assert results[2].values['l1']['mean'] == 0 and results[2].per_image['l1'].abs().max() == 0

def test_a_row_alone_is_the_row_among_others(results):
    alone = evaluate('warp-true-flow', **QUICK)
    assert alone.pairs == results[1].pairs and alone.real == results[1].real
    for k in ('l1', 'lpips-people', 'fid-people'): assert alone.values[k] == results[1].values[k]
    assert (alone.per_image['lpips-people'] == results[1].per_image['lpips-people']).all()

def test_the_first_pairs_are_the_same_whatever_the_count(monkeypatch):
    "Chunks start at the same numbers, since photos depend on their chunk in the last bit"
    monkeypatch.setattr(PeoplePairs, 'case', lambda self, numbers: list(numbers))
    few, many = (list(PeoplePairs(PROTOCOLS['people-64'], n, 'cpu')) for n in (pr.CHUNK + 2, 1000))
    assert few[0] == many[0] == list(range(pr.CHUNK)) and few[1] == many[1][:2] and sum(map(len, many)) == 1000

def test_fid_of_a_row_is_fid(results):
    pairs = PeoplePairs(PROTOCOLS['people-64'], 6, 'cpu')
    metric = FID(load_extractor())
    for o in pairs.real(6): metric.update(o, True)
    for o in pairs: metric.update(o.batch['source_image'], False)
    assert abs(float(metric.compute()) - results[0].values['fid-people']['mean']) < 1e-6

def test_grouped_fid_leaves_groups_out():
    x, y = torch.randn(60, 4), torch.randn(50, 4) + 1
    net = Rows(4, 'rows')
    metric = GroupedFID(net, 5)
    metric.update(x, True)
    for part in y.split(7): metric.update(part, False)
    low, high = metric.interval()
    found = []
    for i in range(5):
        one = FID(net)
        one.update(x, True), one.update(y[torch.arange(50) % 5 != i], False)
        found.append(float(one.compute()))
    se = (4/5*np.square(np.array(found) - np.mean(found)).sum())**.5
    assert abs((high - low)/2 - 1.96*se) < 1e-6 and low < metric.compute() < high

def test_flow_is_measured_where_there_is_one(results):
    assert 'flow.seen' in results[3].values and results[3].values['flow.seen']['mean'] > 0
    assert 'flow' in results[0].left_out and 'flow.seen' not in results[0].values

def test_a_system_does_not_see_the_answer():
    few = dict(count=4, real=2, measures=('l1',), device='cpu')
    with pytest.raises(DataError, match="echo needs 'target_image'"): evaluate(open_row(Echo((64, 64), peeks=True), 'cpu', 'echo'), **few)
    honest = Echo((64, 64))
    result, copied = evaluate_rows([open_row(honest, 'cpu', 'echo'), 'copy-source'], **few)
    true = PeoplePairs(PROTOCOLS['people-64'], 4, 'cpu').case(range(4))
    for batch in honest.seen:
        assert not any(torch.equal(v, true.wanted) for v in batch.values())
        assert (batch['target_betas'] - true['photos'].betas).abs().max() > 1e-2, 'fitted bodies, not the true ones'
    assert result.values['l1'] == copied.values['l1'] and result.system['weights'] == weights_hash(honest)

def test_detector_and_regressor_by_folder(tmp_path):
    with seeded(1): net, body = JointNet('tiny'), Regressor(regressor_settings('tiny', body=free_body('cpu').hash))
    net.eval().save_pretrained(tmp_path/'det'), body.eval().save_pretrained(tmp_path/'reg')
    result = evaluate('truth', 'people-64', count=3, real=3, measures=('pck', 'body'), detector=tmp_path/'det', regressor=str(tmp_path/'reg'), device='cpu')
    assert set(result.values) == {'pck.all', 'pck.seen', 'body.joints', 'body.aligned', 'body.rotation', 'body.shape'}
    assert result.networks['pck']['weights'] == weights_hash(net) and result.networks['body']['weights'] == weights_hash(body)
    assert str(tmp_path) not in result.json()
    given = ev.Tools(net, body, device='cpu')
    again = evaluate('truth', 'people-64', count=3, real=3, measures=('pck', 'body'), detector=given.detector, regressor=body, device='cpu')
    assert again.values == result.values

def test_pck_counts_joints_within_a_tenth(four):
    class Finds:
        def __call__(self, images): return list(Keypoints(points, tuple(images.shape[2:])))
    true, points = four['keypoints'], four['keypoints'].points.clone()
    points[:, 4, 0] += .2*four['height']
    points[:, 5, 2] = 0
    found = ev.height_pck(Finds(), four.wanted, true, four['seen'], four['height'])
    wrong = true.valid[:, [4, 5]].sum(1)
    assert torch.allclose(found['all'], 1 - wrong/true.valid.sum(1))
    seen = true.valid & four['seen']
    assert torch.allclose(found['seen'], 1 - seen[:, [4, 5]].sum(1)/seen.sum(1))
    taller = ev.height_pck(Finds(), four.wanted, true, None, 3*four['height'])
    assert torch.allclose(taller['all'], 1 - true.valid[:, 5]/true.valid.sum(1))

def test_warped_row_keeps_what_is_seen(four):
    made = BASELINES['warp-true-flow'](four, None)
    seen, back = four['visibility'] == SEEN, four['visibility'] == BACKGROUND
    carried = pr.warp(four.batch['source_image'], four['flow'])
    assert torch.equal(made.movedim(1, 3)[seen], carried.movedim(1, 3)[seen]) and made.abs().max() <= 1.001
    person = ((made - four.batch['source_image']).abs().amax(1) > .3) & back & four['source_mask']
    assert person.sum() > .3*(back & four['source_mask']).sum(), 'the source is gone from where nobody stands now'

def test_holes_filled_from_nothing_are_finite():
    out = fill_holes(torch.rand(2, 3, 9, 5), torch.zeros(2, 9, 5, dtype=torch.bool))
    assert torch.isfinite(out).all()

# ---- a stream holds nothing back

class Long:
    "Many tiny pairs, made as they are asked for"
    protocol = small('people-64', size=(16, 16))
    known = ('wanted',)
    def __init__(self, count): self.count, self.alive, self.most, self.made = count, weakref.WeakSet(), 0, 0
    def __len__(self): return self.count
    def __iter__(self):
        random = torch.Generator().manual_seed(0)
        for i in range(0, self.count, 100):
            n = min(100, self.count - i)
            source, wanted = torch.rand(2, n, 3, 16, 16, generator=random)*2 - 1
            case = Case(Batch(source_image=source, target_points=torch.zeros(n, 18, 3), target_image=wanted), [f'{i + k}' for k in range(n)], wanted, {})
            self.made += n
            for o in (source, wanted, case): self.alive.add(o)
            self.most = max(self.most, len(self.alive))
            yield case

def held(state): # bytes of all tensors that a run leaves behind
    seen, todo, total = set(), [state], 0
    while todo:
        o = todo.pop()
        if id(o) in seen: continue
        seen.add(id(o))
        if isinstance(o, torch.Tensor): total += o.untyped_storage().nbytes()
        elif isinstance(o, dict): todo += list(o.values())
        elif isinstance(o, (list, tuple, set)): todo += list(o)
        elif isinstance(o, (Metric, ev.Gallery)): todo += [v for k, v in vars(o).items() if k not in ('net', 'extractor', 'measure', '_defaults')]
    return total

def test_8570_pairs_need_no_more_memory_than_100():
    def run(count):
        gc.collect()
        pairs, tools = Long(count), ev.Tools(device='cpu')
        metrics = dict(ev.make_measures(('l1', 'fid-people'), (), tools, pairs.known)[0])
        for o in metrics.values():
            if isinstance(o, FID): o.update(torch.rand(50, 3, 16, 16)*2 - 1, True)
        state, names, pixels = ev.run_rows([open_row('copy-source'), open_row('truth')], pairs, metrics, torch.zeros(3, 16, 16))
        assert pairs.made == pixels.count//2 == len(names) == count
        return pairs.most, held([dict(o, kept=o['kept'].shelves) for o in state])
    few, many = run(100), run(8570)
    assert many[0] <= few[0] + 6, 'batches that are still alive'
    per_pair = (many[1] - few[1])/(8570 - 100)
    assert per_pair <= 2*8 + 1, f'{per_pair} bytes stay of each pair: two rows with one number each are 16, a picture would be 3,072'

# ---- results

def test_result_says_all_that_it_depends_on(results, tmp_path):
    found = json.loads(results[3].json())
    assert found['protocol']['codec'] == 'png' and found['protocol']['resize'] == 'none' and found['protocol']['frame'] == 'rendered'
    assert found['pairs']['count'] == 6 and found['real']['count'] == 6 and found['seed'] == 0
    for side in ('pairs', 'real'): assert len(found[side]['hash']) == len(found[side]['pixels']) == 16
    assert found['networks']['fid-people'] == found['networks']['lpips-people'] and len(found['networks']['fid-people']['weights']) == 16
    assert found['system']['weights'] and found['system']['parameters']['generator'] > 1000 and found['versions']['torch']
    assert found['values']['l1']['low'] < found['values']['l1']['mean'] < found['values']['l1']['high'] and found['values']['l1']['count'] == 6
    assert found['values']['fid-people']['interval'] == 'none' and found['values']['fid-people']['low'] is None          # six are too few for ten groups

def test_results_survive_the_disk(results, tmp_path):
    paths = [o.save(tmp_path) for o in results]
    back = [read_result(o) for o in paths]
    assert table(paths).text() == table(results).text() == table(back).text()
    assert difference(back[1], back[0]) == difference(results[1], results[0])
    assert {o.suffix for o in tmp_path.iterdir()} == {'.json', '.npz', '.jpg'}
    assert Image.open(tmp_path/'untrained.people-64.worst.jpg').size[0] > 500
    with pytest.raises(SpiceError, match='sheets are lost'): sheet(back[0])
    (tmp_path/'all.json').write_text('[' + ',\n'.join(o.json() for o in results) + ']')
    assert Table(read_results(tmp_path/'all.json')).text() == table(results).text()

def test_table_refuses_another_ground(results, bad_input):
    a = results[0]
    for other, words in ((replace(a, protocol=a.protocol | dict(name='clean')), 'people-64 and clean'), (replace(a, real=a.real | dict(hash='x', count=9)), r'other real photos \(6 and 9\)'),
                         (replace(a, pairs=a.pairs | dict(hash='x')), 'other pairs'),
                         (replace(a, networks={'fid-people': dict(name='people-eval', weights='x')}), 'fid-people through people-eval and')):
        with pytest.raises(SpiceError, match=words): table([a, other])
    for k, v in dict(codec='jpeg75', resize='bicubic', frame='photo', bodies='truth', size=[64, 48], pairs='test', real=['test'], data='clean', seed=1).items():
        with pytest.raises(SpiceError, match=f'not measured on the same ground: {k} '): table([a, replace(a, protocol=a.protocol | {k: v})])
    as_saved = {k: list(v) if isinstance(v, tuple) else v for k, v in a.protocol.items()} | dict(measures=['l1'], extra=[], note='', count=7, real_count=7)
    assert table([a, replace(a, protocol=as_saved)]).results[1].row == a.row, 'what was measured, and what is said about it, may differ'
    near = replace(a, pairs=a.pairs | dict(pixels='x'))
    assert 'made on other machines, or by another version of People' in table([a, near]).text()
    with pytest.raises(SpiceError, match='no results'): table([])

def test_files_that_hold_no_result(results, tmp_path):
    whole, path = json.loads(results[0].json()), tmp_path/'some.json'
    (tmp_path/'one.json').write_text(json.dumps(whole))
    assert [o.row for o in read_results(tmp_path/'one.json')] == ['copy-source'], 'a single one counts as a list of one'
    bare = {k: whole[k] for k in ('row', 'protocol', 'values')}
    for found, words in (([1, 2], 'holds no result'), ('text', 'holds no result'), ([whole, bare], 'departs is missing'), (bare, 'departs is missing'),
                         (whole | dict(pairs=None), 'pairs is missing'), (whole | dict(real={}), 'real.count is missing'), (whole | dict(protocol='clean'), 'protocol is missing'),
                         (whole | dict(pairs=dict(count=1, hash='x')), 'pairs.pixels is missing')):
        path.write_text(json.dumps(found))
        for read in (read_results, lambda o: table([o])) if isinstance(found, dict) else (read_results,):
            with pytest.raises(DataError, match=words) as e: read(path)
            assert '\n' not in str(e.value)

class OnMps(torch.Tensor):
    "A picture on a device without float64"
    def double(self): raise TypeError('MPS has no float64')
    def cpu(self): return self.as_subclass(torch.Tensor)

def test_the_mean_photo_needs_no_float64_on_the_device(four):
    class Pairs:
        def real(self, count): yield four.wanted.as_subclass(OnMps)
        def real_about(self, count): return {}
    about, mean = ev.read_real(Pairs(), 4, {}, (64, 64))
    assert about['count'] == 4 and torch.allclose(mean, four.wanted.mean(0), atol=1e-6)

def test_sheets_show_the_best_and_the_worst(results):
    for kind in ('random', 'best', 'worst'): assert sheet(results[1], kind).size == sheet(results[0], 'random').size
    scores = [o['score'] for o in results[1].kept['worst']]
    assert scores == sorted(results[1].per_image['lpips-people'].tolist(), reverse=True)
    with pytest.raises(SpiceError, match="there is no sheet 'funny'"): sheet(results[1], 'funny')

def test_best_is_high_where_high_is_good():
    shelf = ev.Gallery(4, 2, higher=True)
    case = Case(Batch(source_image=torch.zeros(4, 3, 8, 8), target_points=torch.zeros(4, 18, 3)), list('abcd'), torch.zeros(4, 3, 8, 8), {})
    shelf.offer(case, torch.zeros(4, 3, 8, 8), torch.tensor([.5, float('nan'), .9, .1]))
    assert [o['name'] for o in shelf.shelves['best']] == ['c', 'a'] and [o['name'] for o in shelf.shelves['worst']] == ['d', 'a'] and len(shelf.shelves['random']) == 2

# ---- prepared datasets

def test_deepfashion_frames(fashion):
    quick = dict(data=fashion, measures=('ssim', 'l1'), device='cpu', real=4)
    gfla, cfld, clean = (evaluate('copy-source', o, **quick) for o in ('gfla-256', 'cfld-256x176', 'clean'))
    assert [o.pairs['count'] for o in (gfla, cfld, clean)] == [5]*3 and gfla.real['splits'] == ['train', 'valid', 'partial']
    assert gfla.departs == ['the first 4 real photos only']
    assert clean.values['ssim']['mean'] > cfld.values['ssim']['mean'], 'white bars flatter: SSIM of the canvas with bars is higher'
    assert evaluate('truth', 'gfla-256', **quick).values['l1']['mean'] > 0 == evaluate('truth', 'clean', **quick).values['l1']['mean'], 'JPEG changes pictures'
    with pytest.raises(SpiceError, match='gfla-256 and clean'): table([gfla, clean])

def test_real_set_is_every_training_photo(fashion):
    pairs = make_pairs(PROTOCOLS['gfla-256'], fashion, device='cpu')
    photos = torch.cat(list(pairs.real()))
    assert len(photos) == sum(len(fashion.splits.get(o, [])) for o in ('train', 'valid', 'partial')) and photos.shape[2:] == (256, 256)
    assert (photos[:, :, :, :20].mean() < .9), 'no bars in the stretched frame'

def test_stretched_moves_joints_with_pixels(people_folder):
    item = pr.collate([pr.read_side(people_folder, 0, 'source', True) | pr.read_side(people_folder, 1, 'target', True)])
    for side in ('source', 'target'): item |= {f'{side}_{k}': item[f'{side}_{k}']*4 for k in ('focal', 'center')} | {f'{side}_points': item[f'{side}_points']*torch.tensor([4., 4., 1.]),
        f'{side}_image': torch.nn.functional.interpolate(item[f'{side}_image'].float(), (256, 256)).to(torch.uint8)}
    wide, body = stretched(item), free_body('cpu')
    posed = body(item['target_rotmats'], item['target_betas'])
    camera = pr.Camera(wide['target_focal'], wide['target_center'], wide['target_translation'], (256, 256))
    off = camera.project(posed.keypoints)[..., :2] - wide['target_points'][..., :2]
    off[..., 0] -= .5*(256/176 - 1)                                                                    # joints scale by the numbers of pixels, photos by their middles
    assert off.norm(dim=2).max() < .05 and wide['source_image'].dtype == torch.uint8 and wide['source_image'].shape == (1, 3, 256, 256)

def test_missing_weights_are_said_before_anything_is_made(fashion, monkeypatch, tmp_path):
    monkeypatch.setenv('SPICE_HOME', str(tmp_path)), monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(ev, 'read_real', lambda *_: pytest.fail('pictures were made first'))
    for name, file in (('gfla-256', 'alexnet'), ('clean', 'alexnet')):
        with pytest.raises(WeightsError, match=file): evaluate('copy-source', name, data=fashion, device='cpu')
    with pytest.raises(WeightsError, match='inception'): evaluate('copy-source', 'gfla-256', data=fashion, measures=('fid-field',), device='cpu')
    for name in ('lpips', 'fid'):
        with pytest.raises(WeightsError): evaluate('copy-source', 'people-64', count=2, measures=(name,), device='cpu')

def test_people_protocols_leave_out_what_they_lack(monkeypatch, tmp_path):
    monkeypatch.setenv('SPICE_HOME', str(tmp_path)), monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    light = small('people-64', measures=('l1',), count=2, real_count=2)
    result = evaluate('copy-source', light, device='cpu')
    assert set(result.values) == {'l1'} and result.departs == []
    assert {'pck', 'body', 'lpips', 'fid', 'flow'} == set(result.left_out) and 'alexnet' in result.left_out['lpips'] and str(tmp_path) not in result.json()
    assert 'Left out: ' in table([result]).text() and 'no detector was given' in table([result]).text()
    (tmp_path/'hub'/'checkpoints').mkdir(parents=True)
    (tmp_path/'hub'/'checkpoints'/ev.ALEXNET_FILE).write_bytes(b'nothing')
    with pytest.raises(WeightsError, match='can not be read'): evaluate('copy-source', light, device='cpu')          # broken is not missing

def test_bodies_of_a_dataset(people_folder):
    p = small('clean', name='clean-64', size=(64, 64), measures=('l1', 'regions', 'masked-ssim'), extra=())
    copied, carried = evaluate_rows(['copy-source', 'warp-true-flow'], p, data=people_folder, device='cpu')
    assert carried.values['regions.seen']['mean'] < .7*copied.values['regions.seen']['mean'] and copied.pairs['bodies'] == 'truth'
    assert copied.pairs['body'] == free_body('cpu').hash

def test_fitted_bodies_are_no_truth(people_folder, tmp_path):
    import shutil
    shutil.copytree(people_folder.folder, tmp_path/'fitted')
    b = people_folder.bodies
    fields = {k: b[k].numpy() for k in ('rotmats', 'betas', 'focal', 'center', 'translation')}
    save_bodies(tmp_path/'fitted', people_folder.names, fields, b['body'], 'smplify')
    p = small('clean', name='clean-64', size=(64, 64), measures=('l1',), extra=())
    with pytest.raises(DataError, match="'visibility' is not known"): evaluate('warp-true-flow', p, data=tmp_path/'fitted', device='cpu')
    with pytest.raises(DataError, match='visibility is not known'): evaluate('copy-source', p, data=tmp_path/'fitted', measures=('regions',), device='cpu')
    assert evaluate(open_row(Echo((64, 64)), 'cpu', 'echo'), p, data=tmp_path/'fitted', device='cpu').pairs['bodies'] == 'smplify'
    save_bodies(tmp_path/'fitted', people_folder.names, fields, 'another', 'smplify')
    with pytest.raises(DataError, match='belong to the body another'): evaluate('copy-source', p, data=tmp_path/'fitted', body=load_body('free'), device='cpu')

def test_a_system_without_bodies_is_told_what_to_do(fashion, untrained):
    class NeedsR(Echo):
        def forward(self, batch): return dict(image=batch['source_wheel'])
    with pytest.raises(DataError, match="r needs 'source_wheel'.*Run spice_fit"): evaluate(open_row(NeedsR(), 'cpu', 'r'), 'clean', data=fashion, measures=('l1',), real=2, device='cpu')
    echo = evaluate_rows([open_row(Echo(), 'cpu', 'echo'), 'copy-source'], 'cfld-256x176', data=fashion, measures=('l1',), real=2, device='cpu')
    assert echo[0].values == echo[1].values, 'a system sees the canvas, its pictures are cut as all others'

def test_fashion_video_has_one_driver(films):
    rows = driven_pairs(films, seed=0)
    driver = {films.groups[b] for _, b in rows}
    assert len(driver) == 1 and len(rows) == 2*4 and driven_pairs(films, seed=0) == rows
    assert len({tuple({films.groups[b] for _, b in driven_pairs(films, seed=s)}) for s in range(12)}) == 3
    for a, b in rows: assert films.names[a].endswith('_0000') and films.groups[a] != films.groups[b]
    assert [films.names[b][-4:] for _, b in rows[:4]] == ['0000', '0010', '0020', '0100']
    result = evaluate('copy-source', 'fashion-video', data=films, measures=('fid-people',), device='cpu')
    assert result.pairs['count'] == 8 and result.real['count'] == 12 and result.values['fid-people']['mean'] > 0 and set(result.kept) == {'random'}
    with pytest.raises(DataError, match="'ssim' can not be measured: the true photo is not known"): evaluate('copy-source', 'fashion-video', data=films, measures=('ssim',), device='cpu')

def test_data_that_a_protocol_is_not_for(fashion, films, people_folder, bad_input):
    for name, data, words in (('gfla-256', films, 'holds video. gfla-256 is for deepfashion'), ('fashion-video', fashion, 'holds deepfashion'), ('clean', people_folder, r'photos of \(64, 64\)'),
                              ('people-64', fashion, 'makes its photos itself'), ('clean', None, 'needs a prepared dataset'), ('clean', 'nowhere', 'nowhere is no prepared dataset'),
                              ('clean', films, 'has no pairs in test')):
        with pytest.raises(SpiceError, match=words): evaluate('copy-source', name, data=data, measures=('l1',), device='cpu')
    with pytest.raises(DataError, match='7 of 5 pairs'): PreparedPairs(PROTOCOLS['clean'], fashion, 7, 'cpu')

@pytest.mark.parametrize('change, words', [
    (dict(what='copy-sorce'), 'no such folder or model'), (dict(protocol='people-65'), "no protocol 'people-65'"), (dict(count=-1), 'count=-1'), (dict(count=0), 'count=0'), (dict(count=2.5), 'count=2.5'),
    (dict(real=0), 'real=0'), (dict(real=-3), 'real=-3'), (dict(real=1.5), 'real=1.5'), (dict(keep=0), 'keep=0'), (dict(measures='fod'), "no measure 'fod'"), (dict(count=1001), '1001 pairs'),
    (dict(measures=('fod',)), "no measure 'fod'"), (dict(measures=('pck',)), 'Give detector='), (dict(measures=('body',)), 'Give regressor='), (dict(detector='nowhere'), 'nowhere'),
    (dict(regressor='nowhere'), 'nowhere'), (dict(weights={'lpips': 'nowhere.pth'}, measures=('lpips',)), 'nowhere.pth: there is no such file'), (dict(device='abacus'), "'abacus' is no device"),
    (dict(measures=('masked-ssim', 'kid-people'), real=1, count=2), '1 real')])
def test_bad_input_is_one_line(change, words, bad_input):
    options = QUICK | dict(what='copy-source', protocol='people-64') | change
    with pytest.raises(SpiceError, match=words) as e: evaluate(**options)
    assert '\n' not in str(e.value)

def test_bad_rows(bad_input, untrained):
    with pytest.raises(SpiceError, match="two rows are called 'spice'"): evaluate_rows([untrained, untrained], **QUICK)
    with pytest.raises(SpiceError, match='no rows'): evaluate_rows([], **QUICK)
    with pytest.raises(SpiceError, match='people-64 shows photos of 64 x 64, echo is for 256 x 256'): evaluate(open_row(Echo(), 'cpu', 'echo'), **QUICK)
    few = dict(count=2, real=2, measures=('l1',), device='cpu')
    with pytest.raises(SpiceError, match='echo makes pictures of'): evaluate(open_row(Echo((64, 64), made=torch.zeros(2, 3, 32, 32)), 'cpu', 'echo'), **few)
    with pytest.raises(SpiceError, match='nan'): evaluate(open_row(Echo((64, 64), made=torch.full((2, 3, 64, 64), float('nan'))), 'cpu', 'echo'), **few)

def test_a_measure_by_its_name():
    assert set(evaluate('truth', count=2, real=2, measures='l1', device='cpu').values) == {'l1'}

def test_rows_of_one_name_are_told_apart_by_their_folders():
    assert ev.told_apart(['run1/last', 'run2/last', 'run3/best/', 'copy-source']) == ['run1/last', 'run2/last', 'best', 'copy-source']
    assert ev.told_apart([Path('a/x/last'), 'b/x/last', 'x/last', Row('last', lambda case, mean: mean, {})]) == ['a/x/last', 'b/x/last', 'last', '']
    assert ev.told_apart(['truth', 'truth']) == ['truth', 'truth']

# ---- the command

def test_command_measures_and_writes(tmp_path, capsys, untrained):
    untrained.save_pretrained(tmp_path/'run')
    spice_eval(f'{tmp_path}/run,copy-source', count=3, real=3, measures='l1,lpips-people', out=str(tmp_path/'out'), device='cpu')
    said = capsys.readouterr().out
    assert 'people-64' in said and 'run' in said and 'lpips-people ↓' in said and said.strip().endswith(f'Wrote {tmp_path}/out')
    assert {'run.people-64.json', 'copy-source.people-64.npz', 'run.people-64.worst.jpg', 'people-64.md'} <= {o.name for o in (tmp_path/'out').iterdir()}
    assert (tmp_path/'out'/'people-64.md').read_text().startswith('| people-64 | run | copy-source |')
    saved = read_result(tmp_path/'out'/'run.people-64.json')
    assert saved.system['weights'] == weights_hash(untrained) and str(tmp_path) not in (tmp_path/'out'/'run.people-64.json').read_text()
    spice_eval('copy-source', count=2, real=2, measures='l1', device='cpu', json=True)
    found = json.loads(capsys.readouterr().out)
    assert found[0]['row'] == 'copy-source' and found[0]['values']['l1']['count'] == 2
    untrained.save_pretrained(tmp_path/'b'/'run')
    spice_eval(f'{tmp_path}/run,{tmp_path}/b/run', count=2, real=2, measures='l1', out=str(tmp_path/'two'), device='cpu')
    assert f'{tmp_path.name}/run  b/run' in capsys.readouterr().out
    assert {o.name for o in (tmp_path/'two').glob('*.json')} == {f'{tmp_path.name}_run.people-64.json', 'b_run.people-64.json'}
    with pytest.raises(SpiceError, match="no protocol 'clear'"): spice_eval('truth', protocol='clear')

# ---- figure 2 and editing

def test_t_pose_figure_is_blue_for_one_body(four):
    betas = four['photos'].betas
    same, other = (np.asarray(t_pose_figure(betas[:1], o)).astype(int) for o in (betas[:1], betas[:1] + 1.))
    right = same.shape[1]*2//3
    blue = lambda o: ((o[..., 2] - o[..., 0]) > 60).sum()
    assert blue(same[:, right:]) > 500 and blue(same[:, :right]) == 0 and blue(other[:, right:]) < .5*blue(same[:, right:])
    assert t_pose_figure(four['photos'], betas, [four.wanted, four.wanted]).size[1] > 4*128

def test_figure_2_measures_millimetres():
    body, a, b = free_body('cpu'), torch.zeros(1, 10), torch.full((1, 10), .3)
    eye = torch.eye(3).expand(1, 24, 3, 3)
    assert torch.allclose(shape_distance(body, a, b), (body(eye, a).verts - body(eye, b).verts).norm(dim=2)*1000, atol=1e-2)

def test_another_shape_keeps_pose_and_floor(four, untrained):
    wide = four.batch.source_betas.clone()
    wide[:, 0] += 2
    new = reshaped(four.batch, wide)
    assert not torch.equal(new.target_wheel, four.batch.target_wheel) and torch.equal(new.source_wheel, four.batch.source_wheel)
    body = free_body('cpu')
    lowest = lambda o, betas: o.camera('target').project(body(o.target_rotmats, betas).verts)[..., 1].amax(1)
    assert (lowest(new, wide) - lowest(four.batch, four.batch.source_betas)).abs().max() < .6                              # pixels; perspective moves it a little
    missing = Batch(four.batch | dict(target_points=four.batch.target_points*torch.tensor([1., 1., 0.])))
    assert (reshaped(missing, wide).target_points[..., 2] == 0).all()
    assert answer(untrained, new).shape == (4, 3, 64, 64) and not torch.allclose(answer(untrained, new), answer(untrained, four.batch))
    two, one = (shape_figure(four.batch, wide[:2], o).size for o in (untrained, None))                                       # rows of pictures
    assert two[0] == one[0] > 4*128 and one[1] < 200 < two[1]

def test_another_texture_is_on_the_torso_only(four, untrained):
    other = Batch({k: v.roll(1, 0) for k, v in four.batch.items()})
    new = retextured(four.batch, other)
    changed = (new.source_image != four.batch.source_image).any(1)
    assert changed.any() and not (changed & ~four.batch.source_torso.any(1)).any() and torch.equal(new.target_heat, four.batch.target_heat)
    whole = (retextured(four.batch, other, 'body').source_image != four.batch.source_image).any(1)
    assert whole.sum() > changed.sum()
    assert texture_figure(four.batch, other, untrained).size[0] > 6*64
    blank = Batch(other | dict(source_translation=other.source_translation + torch.tensor([100., 0., 0.])))                 # the lender is not in the photo
    assert torch.equal(retextured(four.batch, blank).source_image, four.batch.source_image)

def test_bad_editing(four, bad_input):
    for f, words in ((lambda: reshaped(four.batch, torch.zeros(3, 10)), 'betas of shape'), (lambda: reshaped(four.batch, torch.zeros(10)), 'betas of shape'),
                     (lambda: retextured(four.batch, four.batch, 'hat'), "where='hat'"), (lambda: t_pose_figure(torch.zeros(1, 10), torch.zeros(2, 10)), 'betas of shapes'),
                     (lambda: retextured(four.batch, Batch({k: v[:2] for k, v in four.batch.items()})), 'different sizes'), (lambda: find_protocol('x'), 'no protocol'),
                     (lambda: through(torch.zeros(1, 3, 8, 8), 'jpeg0'), 'no codec'), (lambda: through(torch.zeros(1, 3, 8, 8), 'cut-png1'), 'no codec'), (lambda: four['x'], "'x' is not known")):
        with pytest.raises(SpiceError, match=words): f()

def test_row_objects_pass_through():
    row = Row('mine', lambda case, mean: case.wanted, dict(kind='test'))
    assert open_row(row) is row and Path(open_row('truth').name).name == 'truth'

def test_a_small_system_in_a_table_of_large_photos(bad_input):
    from spice.measure.evaluate import enlarged_row, shrunk
    from spice.loaders import Draw
    from spice.measure.protocols import PROTOCOLS, PeoplePairs
    torch.manual_seed(0)
    system = make_system('spice', 'tiny').eval()
    case = next(iter(PeoplePairs(PROTOCOLS['people-128'], 2, 'cpu')))
    row = open_row(system, 'cpu')
    large = enlarged_row(row, 'enlarged:mine', 'cpu').make(case, None)
    assert large.shape == case.wanted.shape and large.abs().max() <= 1
    small = shrunk(case.asked, (64, 64))
    assert torch.allclose(small.camera('source').project(torch.tensor([[[.1, .2, .3]]]).expand(2, 1, 3)), case.batch.camera('source').project(torch.tensor([[[.1, .2, .3]]]).expand(2, 1, 3))*torch.tensor([.5, .5, 1.]), atol=1e-4)
    with torch.no_grad(): made = system(Draw(case.body, retarget=False)(small))['image']
    assert (torch.nn.functional.interpolate(large, (64, 64), mode='area') - made).abs().mean() < .3*made.std(), 'but for the noise that enlarging blurs'
    found = evaluate_rows(['enlarged:people', 'copy-source'], 'people-128', count=2, real=2, measures='l1', device='cpu')
    assert [o.row for o in found] == ['enlarged:people', 'copy-source'] and found[0].system['size'] == [64, 64]
    with pytest.raises(SpiceError, match='has no size of its own'): open_row('enlarged:copy-source', 'cpu')

def test_failures_of_a_prepared_dataset(fashion):
    "Masks around joints, in the protocol's frame; the worst come first, whatever batch they are in"
    from spice.measure.failures import FAILURES, failure_sheet, find_failures
    shares, worst = find_failures('copy-source', 'cfld-256x176', data=fashion, count=4, each=3, device='cpu')
    assert list(shares) == list(FAILURES) and abs(sum(shares.values()) - 1) < 1e-6 and shares['left over'] + shares['pasted'] > .1
    assert all([o.error for o in some] == sorted((o.error for o in some), reverse=True) and len(some) == 3 for some in worst.values())
    assert {o.size for o in worst['shape'][0].pictures} == {(176, 256), (256, 256)} and failure_sheet(worst).height > 5*256      # the pose is on the canvas
    many, few = (find_failures('copy-source', 'people-64', count=n, each=1, device='cpu')[1]['shape'][0].error for n in (22, 4))
    assert many >= few
    assert sum(find_failures('truth', 'people-64', count=2, device='cpu')[0].values()) == 0, 'nothing is wrong'
    with pytest.raises(SpiceError, match='no true photos'): find_failures('copy-source', 'ccp-repose', data=fashion, device='cpu')

def test_failures_by_command(tmp_path, bad_input):
    "A sheet for each row: so many pairs of each kind, the worst; refused before anything is measured"
    from spice.measure.failures import FAILURES, failure_sheet, find_failures
    how = dict(count=4, real=2, measures='l1', device='cpu')
    spice_eval('copy-source,mean-image', failures=2, out=str(tmp_path/'out'), **how)
    assert sorted(o.name for o in (tmp_path/'out').glob('*_failures.png')) == ['copy-source_failures.png', 'mean-image_failures.png']
    worst = find_failures('copy-source', count=4, each=2, device='cpu')[1]
    assert np.array_equal(np.asarray(Image.open(tmp_path/'out'/'copy-source_failures.png')), np.asarray(failure_sheet(worst))) and len(worst) == len(FAILURES)
    for says, out, failures in (('Say where the sheets go', '', 2), ('each=-1', str(tmp_path/'other'), -1)):
        with pytest.raises(SpiceError, match=says): spice_eval('copy-source', failures=failures, out=out, **how)
    assert not list((tmp_path/'other').glob('*')), 'nothing was measured'
    spice_eval('copy-source', out=str(tmp_path/'plain'), **how)
    assert not list((tmp_path/'plain').glob('*_failures.png'))

def test_photos_before_other_backgrounds(tmp_path, bad_input):
    "From paths; a system that gives the photo's canvas back changes outside the person only"
    from spice.infer import Reposer
    from spice.measure.failures import photos_before
    people = People(64, 'valid', samples=1, device='cpu').photos([1, 2])
    paths, mattes = [tmp_path/f'{k}.png' for k in range(2)], [to_pil((people.parsing[k:k + 1, None] > 0).float().expand(-1, 3, -1, -1)*2 - 1)[0] for k in range(2)]
    for path, image in zip(paths, to_pil(people.image)): image.save(path)
    known, joints = dict(mattes=mattes), [people.keypoints[k] for k in range(2)]
    guided, spice = Reposer(make_system('guided', 'tiny'), device='cpu'), Reposer(make_system('spice', 'tiny'), device='cpu')
    sheet, change = photos_before(paths, 'walk', guided, keypoints=joints, **known)
    assert change['person'] < .5*change['rest'] > .1 and sheet.width > 5*64 and sheet.height > 2*64
    again, _ = photos_before(paths, 'walk', spice, keypoints=joints, **known)
    assert again.width == sheet.width
    white = photos_before(paths[:1], 'walk', guided, torch.ones(1, 3, 8, 8), joints[:1], mattes[:1])[1]
    assert white['rest'] > .1
    with pytest.raises(SpiceError, match='which pixels are the person'): photos_before(paths, 'walk', spice, keypoints=joints)
    for photos, some in (([], None), (paths, mattes[:1])):
        with pytest.raises(SpiceError, match='Give at least one'): photos_before(photos, 'walk', guided, mattes=some)

def test_protocols_of_the_papers(tmp_path, bad_input):
    "On look-alikes: Market-1501 with masks around the joints, DeepFashion as Def-GAN, DPT and UPIS measured it"
    from spice.measure.measures import pose_mask
    from spice.measure.metrics import masked_ssim
    from test_data import person, picture, table as annotations
    from spice.sources import Market
    root, names = tmp_path/'market', [f'{i:04d}_c1s1_000{v}51_00.jpg' for i in range(1, 5) for v in (1, 2)]
    for i, n in enumerate(names): picture(root/('bounding_box_train' if i < 4 else 'bounding_box_test')/n, (64, 128), i)
    for split, some in (('train', names[:4]), ('test', names[4:])):
        annotations(root/f'market-annotation-{split}.csv', [(n, person(64, 128, names.index(n))) for n in some])
    (root/'market-pairs-test.csv').write_text('from,to\n' + ''.join(f'{a},{b}\n' for a, b in zip(names[4::2], names[5::2])))
    data = Prepared(prepare(Market(root), tmp_path/'out'))
    found = evaluate('copy-source', 'market', data=data, count=2, device='cpu')
    assert found.left_out.keys() >= {'is', 'mask-is', 'detection'} and all('is not here' in found.left_out[k] for k in ('mask-is', 'detection'))
    case = make_pairs(PROTOCOLS['market'], data, 2, 'cpu').case(make_pairs(PROTOCOLS['market'], data, 2, 'cpu').rows)
    mask = pose_mask(case.batch['target_points'], (128, 64))[:, 0]
    assert torch.equal(case['pose_mask'], mask) and .02 < mask.mean() < .6
    assert abs(found.values['mask-ssim']['mean'] - float(masked_ssim(through(case.batch['source_image']), case.wanted, mask).mean())) < 1e-5
    from spice.measure.measures import MaskedScore
    seen = []
    score = MaskedScore(lambda images: seen.append(images) or images.mean((2, 3)), [3], 1)
    score.update(case.wanted, mask)
    assert (seen[0].permute(0, 2, 3, 1)[mask == 0] == -1).all() and torch.equal(seen[0].permute(0, 2, 3, 1)[mask > 0], case.wanted.permute(0, 2, 3, 1)[mask > 0])
    for name, kind in (('dpt-256', 'defgan'), ('defgan-256', 'defgan'), ('upis-256', 'deepfashion')):
        with pytest.raises(DataError, match=f'{name} is for {kind}'): evaluate('copy-source', name, data=data, device='cpu')
