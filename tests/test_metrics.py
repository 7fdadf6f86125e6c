"Measures against the packages that others use, over processes, and with bad input"
import math

import lpips
import numpy as np
import pytest
import scipy.linalg
import torch
import torch.multiprocessing as mp
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.models import alexnet, inception_v3

import spice.measure.metrics as metrics
from spice.core import DataError, ImageError, SpiceError, WeightsError
from spice.features import load_features
from spice.keypoints import Keypoints
from spice.measure.measures import (BODY_ERRORS, MEASURES, DetectionScore, attribute_recall, attribute_score, body_errors, flow_errors, geodesic, make_measure, oks, person_scores,
                            pose_scores, region_errors, regressed_errors, right_joints, top_k_recall, word_recall)
from spice.measure.evaluate import evaluate
from spice.measure.metrics import (ALEXNET_FILE, FID, INCEPTION_FILE, KID, LPIPS, FIDInception, FieldInception, InceptionScore, PerImage, Rows, bootstrap, contextual_similarity,
                           feature_distance, frechet, l1, load_extractor, masked, masked_ssim, ms_ssim, psnr, ssim)
from spice.measure.protocols import find_protocol, make_pairs
from spice.people import People, free_body
from spice.people.wardrobe import ATTRIBUTES

def pictures(n=4, size=48, seed=0):
    "Smooth colours with some noise, and the same with more"
    random = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 3, 6, 6, generator=random)*2 - 1
    x = nn.functional.interpolate(low, size=(size, size), mode='bicubic').clamp(-.9, .9)
    return x, (x + .1*torch.randn(x.shape, generator=random)).clamp(-1, 1)

def array(x): return ((x.double() + 1)/2).movedim(0, -1).numpy()

def fed(metric, real, made, batch=32):
    for rows, kind in ((real, True), (made, False)):
        for part in rows.split(batch): metric.update(part, kind)
    return metric

@pytest.fixture(scope='module')
def rows():
    random = torch.Generator().manual_seed(1)
    mix = torch.randn(24, 24, generator=random)
    return torch.randn(150, 24, generator=random)@mix, torch.randn(130, 24, generator=random)@mix*1.2 + .3

@pytest.fixture(scope='module')
def pair(): return People(64, 'test', device='cpu').pairs(range(4))

@pytest.mark.parametrize('data_range', [1., 'made'])
def test_ssim_and_psnr_are_scikit_images(data_range):
    a, b = pictures()
    for x, y, value, noise in zip(a, b, ssim(b, a, data_range), psnr(b, a)):
        span = 1. if data_range == 1. else array(y).max() - array(y).min()
        wanted = structural_similarity(array(y), array(x), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2, data_range=span)
        assert abs(float(value) - wanted) < 1e-6
        assert abs(float(noise) - peak_signal_noise_ratio(array(x), array(y), data_range=1)) < 1e-6

def test_ms_ssim_is_torchmetrics():
    a, b = (o.double() for o in pictures(2, 192))
    for x, y, value in zip(a, b, ms_ssim(b, a)):
        wanted = multiscale_structural_similarity_index_measure((y[None] + 1)/2, (x[None] + 1)/2, data_range=1.)
        assert abs(float(value) - float(wanted)) < 1e-5

@pytest.mark.parametrize('n', [150, 9])
def test_fid_is_torchmetrics_torch_fidelitys_and_scipys(rows, n):
    "Also with fewer rows than dimensions"
    real, made = rows[0][:n].double(), rows[1][:n].double()
    value = float(fed(FID(Rows(24)), real, made, 7).compute())
    theirs = fid_statistics_to_metric(fid_features_to_statistics(real), fid_features_to_statistics(made), False)['frechet_inception_distance']
    assert abs(value/theirs - 1) < 1e-5
    (mu, a), (nu, b) = ((o.mean(0).numpy(), np.cov(o.numpy(), rowvar=False)) for o in (real, made))
    root = scipy.linalg.sqrtm(a@b)
    assert abs(value/(((mu - nu)**2).sum() + np.trace(a + b - 2*root.real)) - 1) < 1e-4
    other = FrechetInceptionDistance(feature=Identity())
    other.update(real, True), other.update(made, False)
    assert abs(value/float(other.compute()) - 1) < 1e-5

class Identity(nn.Module):
    num_features = 24
    def forward(self, x): return x

def test_frechet_of_gaussians():
    "Covariances that commute: sum of (a - b)^2 over the roots of eigenvalues"
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    a, b = torch.rand(2, 6, dtype=torch.float64) + .1
    mean = torch.randn(2, 6, dtype=torch.float64)
    wanted = (mean[0] - mean[1]).square().sum() + (a - b).square().sum()
    assert abs(frechet(mean[0], turn@torch.diag(a**2)@turn.mT, mean[1], turn@torch.diag(b**2)@turn.mT) - float(wanted)) < 1e-9

@pytest.mark.parametrize('subsets,size', [(20, 60), (1, 1000)])
def test_kid_is_torch_fidelitys(rows, subsets, size):
    real, made = rows[0][:130], rows[1]
    value = float(fed(KID(Rows(24), subsets, size), real, made).compute())
    theirs = kid_features_to_metric(made.double(), real.double(), kid_subsets=subsets, kid_subset_size=min(size, 130), verbose=False)['kernel_inception_distance_mean']
    assert abs(value/theirs - 1) < 1e-5

@pytest.mark.parametrize('splits', [1, 10])
def test_inception_score_is_torch_fidelitys(splits):
    "They cut the set into parts, this deals them out: the same rows in another order"
    logits = 2*torch.randn(120, 15)
    metric = InceptionScore(lambda o: o, [15], splits)
    for part in logits.split(17): metric.update(part)
    dealt = torch.cat([logits[i::splits] for i in range(splits)])
    theirs = isc_features_to_metric(dealt, splits, shuffle=False)
    assert abs(float(metric.compute())/theirs['inception_score_mean'] - 1) < 1e-9
    assert abs(float(metric.parts().std(unbiased=False)) - theirs['inception_score_std']) < 1e-9

def test_sets_do_not_depend_on_order_batches_or_processes(rows):
    real, made = rows
    whole = {k: fed(k(Rows(24)), real, made).compute() for k in (FID, KID)}
    for kind, value in whole.items():
        other = fed(kind(Rows(24)), real[torch.randperm(150)], made.flip(0), 41)
        assert abs(float(other.compute())/float(value) - 1) < 1e-6
        parts = [fed(kind(Rows(24)), real[i::3], made[i::3]) for i in range(3)]
        parts[0].merge_state(parts[1]), parts[0].merge_state(parts[2])
        assert abs(float(parts[0].compute())/float(value) - 1) < 1e-6

def test_state_does_not_grow():
    def kept(n):
        fid, score = FID(Rows(8)), InceptionScore(lambda o: o, [8], 1)
        for _ in range(n):
            x = torch.randn(10, 8)
            fid.update(x, True), fid.update(x, False), score.update(x)
        return sum(getattr(m, k).numel() for m in (fid, score) for k in m._defaults)
    assert kept(2) == kept(50)

def test_reset_and_values():
    metric = PerImage(l1)
    a, b = pictures()
    metric.update(a[:3], b[:3]), metric.update(a[3:], b[3:])
    assert torch.equal(metric.values, l1(a, b)) and torch.allclose(metric.compute(), l1(a, b).mean())
    metric.reset()
    metric.update(a, a)
    assert metric.compute() == 0

def _work(rank, port, real, made, out):
    torch.distributed.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    torch.set_num_threads(1)
    fid, score = fed(FID(Rows(24)), real[rank::2], made[rank::2]), InceptionScore(lambda o: o, [24], 1)
    score.update(made[rank::2])
    one = PerImage(lambda a: a[:, 0])
    one.update(made[:5] if rank == 0 else made[5:])                               # not the same number in each
    found = [float(fid.compute()), float(score.compute()), float(one.compute())]
    if rank == 0: torch.save(found, out)
    torch.distributed.destroy_process_group()

def test_two_processes_give_what_one_gives(rows, tmp_path):
    import socket
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    real, made = rows
    mp.spawn(_work, (port, real, made, tmp_path/'out.pt'), nprocs=2)
    score = InceptionScore(lambda o: o, [24], 1)
    score.update(made)
    wanted = [float(fed(FID(Rows(24)), real, made).compute()), float(score.compute()), float(made[:, 0].double().mean())]
    assert np.allclose(torch.load(tmp_path/'out.pt'), wanted, rtol=1e-6)

def test_lpips_is_the_package(tmp_path):
    net = alexnet(weights=None)
    torch.save(net.state_dict(), tmp_path/ALEXNET_FILE)
    theirs = lpips.LPIPS(net='alex', pnet_rand=True, verbose=False).eval()
    for name, o in theirs.net.named_parameters(): o.data.copy_(net.state_dict()[f'features.{name.split(".", 1)[1]}'])
    a, b = pictures(2, 64)
    ours = LPIPS(tmp_path/ALEXNET_FILE, 'cpu')
    assert torch.allclose(ours(b, a), theirs(b, a).flatten(), rtol=1e-5) and (ours(b, a) > 0).all()
    plain = lpips.LPIPS(net='alex', lpips=False, pretrained=False, pnet_rand=True, verbose=False).eval()        # without weights of channels
    maps = lambda x: plain.net(plain.scaling_layer(x))._asdict()
    assert torch.allclose(feature_distance(maps, b, a), plain(b, a).flatten(), rtol=1e-5)

def test_inceptions_with_made_up_weights(tmp_path, monkeypatch):
    kind, a = feature_extractor_inceptionv3.FeatureExtractorInceptionV3, pictures(3, 64)[0]
    with monkeypatch.context() as m:
        m.setattr(kind, 'load_state_dict', lambda self, state: None)
        m.setattr(feature_extractor_inceptionv3, 'load_state_dict_from_url', lambda *args, **kwargs: None)
        theirs = kind('inception-v3-compat', ['2048', 'logits_unbiased'])
    torch.save(theirs.state_dict(), tmp_path/'fid.pth')
    ours = FIDInception(tmp_path/'fid.pth')
    wanted = theirs(((a + 1)*127.5).round().byte())
    assert torch.equal(ours(a), wanted[0]) and torch.equal(ours.logits(a), wanted[1]) and ours(a).shape == (3, ours.dim)
    net = inception_v3(weights=None, init_weights=False).eval()
    monkeypatch.setattr(metrics, 'read_state', lambda path: net.state_dict())
    field = FieldInception(tmp_path/'fid.pth')
    x = nn.functional.interpolate((a + 1)/2, (299, 299), mode='bilinear')
    net.transform_input = True
    assert torch.allclose(field.logits(a), net(x), atol=1e-4)                           # torchvision's transform on colours from 0 to 1
    net.transform_input = False
    assert torch.allclose(FieldInception(tmp_path/'fid.pth', exact=True).logits(a), net(2*x - 1), atol=1e-4)

@pytest.mark.parametrize('name', ['lpips', 'fid', 'kid-field', 'is', 'is-field', 'detection'])
def test_missing_weights_are_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setenv('SPICE_HOME', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with pytest.raises(WeightsError) as error: make_measure(name)
    assert '\n' not in str(error.value) and '.pth was not found' in str(error.value)
    assert ("people" in str(error.value)) == (name != 'detection')
    with pytest.raises(WeightsError, match='there is no such file'): make_measure(name, weights=tmp_path/'none.pth')

def test_weights_of_something_else(tmp_path):
    torch.save({'a': torch.zeros(2)}, tmp_path/INCEPTION_FILE)
    with pytest.raises(WeightsError): LPIPS(tmp_path/INCEPTION_FILE)
    with pytest.raises(WeightsError): FieldInception(tmp_path/INCEPTION_FILE)
    with pytest.raises(WeightsError): FIDInception(tmp_path/INCEPTION_FILE)

def test_without_torch_fidelity(monkeypatch, pair):
    monkeypatch.setitem(__import__('sys').modules, 'torch_fidelity.feature_extractor_inceptionv3', None)
    with pytest.raises(SpiceError, match='needs torch-fidelity'): FIDInception()
    assert float(fed(make_measure('fid-people'), pair[1].image, pair[0].image).compute()) > 0

def test_people_features_have_their_own_names(pair):
    assert FID('people-eval').name == 'people-eval' and FID('people').name == 'people'
    assert not torch.allclose(fed(FID('people-eval'), pair[0].image, pair[1].image).compute(), fed(FID('people'), pair[0].image, pair[1].image).compute(), rtol=.01)

@pytest.mark.parametrize('name', ['l1', 'psnr', 'ssim', 'ms-ssim', 'masked-ssim', 'lpips-people', 'cx-people', 'regions', 'fid-people', 'kid-people'])
def test_measures_by_name(name, pair):
    "The truth is best, and `MEASURES` says which way that is"
    source, target = pair
    def value(made):
        metric = make_measure(name)
        if MEASURES[name][0] == 'images, real': return float(fed(metric, target.image, made).compute())
        extra = dict(regions=[target.flow_from(source)[1]]).get(name, []) + ([target.surface.mask] if name == 'masked-ssim' else [])
        metric.update(made, target.image, *extra)
        o = metric.compute()
        return float(sum(o.values()) if isinstance(o, dict) else o)
    assert MEASURES[name][1]*(value(target.image) - value(source.image)) > 0

def test_pose_and_detection_by_name(pair):
    target = pair[1]
    metric = make_measure('pose', detector=lambda images: list(target.keypoints))
    metric.update(target.image, target.keypoints)
    assert metric.compute() == {'oks': 1., 'pck': 1.}
    none = DetectionScore(lambda images: [dict(labels=torch.zeros(0, dtype=torch.long), scores=torch.zeros(0))]*len(images), device='cpu')
    assert none(target.image).tolist() == [0.]*4
    assert person_scores([dict(labels=torch.tensor([2, 1]), scores=torch.tensor([.9, .4]), boxes=torch.zeros(2, 4))]).tolist() == [pytest.approx(.4)]

def test_regressed_bodies(pair):
    source, target = pair
    class Exact:
        def __call__(self, images): return self
        def placed(self, size): return target
    body = free_body('cpu')
    metric = make_measure('body', regressor=Exact())
    metric.update(target.image, target)
    assert all(v < .05 for v in metric.compute().values()) and set(metric.compute()) == set(BODY_ERRORS)
    other = regressed_errors(Exact(), body, target.image, source)
    assert all((other[k] > 0).all() for k in ('joints', 'aligned', 'rotation')) and other['shape'].max() < 1e-3     # one person, two poses
    assert torch.allclose(other['joints'], body_errors(body, target, source)['joints'])

def test_geodesic():
    import roma
    a, b = roma.random_rotmat(50).double(), roma.random_rotmat(50).double()
    assert torch.allclose(geodesic(a, b), torch.rad2deg(roma.rotmat_geodesic_distance(a, b)), atol=1e-3)
    tiny = roma.rotvec_to_rotmat(torch.tensor([[1e-5, 0, 0]], dtype=torch.float64))
    assert abs(float(geodesic(tiny, torch.eye(3, dtype=torch.float64)[None])) - math.degrees(1e-5)) < 1e-9

def test_oks_by_hand():
    points = torch.zeros(1, 18, 3)
    points[0, :, :2], points[0, 0, 2], points[0, 10, 2] = 10., 1., 1.                     # a nose and an ankle are there
    true, found = Keypoints(points, (64, 64)), points.clone()
    found[0, 0, 0] += 3
    value = oks(Keypoints(found, (64, 64)), true, torch.tensor([400.]))
    assert float(value) == pytest.approx((math.exp(-9/(2*400*.052**2)) + 1)/2, rel=1e-5)
    found[0, 10, 2] = 0                                                                  # not found
    assert float(oks(Keypoints(found, (64, 64)), true, torch.tensor([400.]))) == pytest.approx(math.exp(-9/(2*400*.052**2))/2, rel=1e-5)
    nobody = Keypoints(torch.zeros(1, 18, 3), (64, 64))
    assert oks(true, nobody).isnan().all() and right_joints(true, nobody).isnan().all()
    with pytest.raises(DataError): oks(true, Keypoints(points, (32, 64)))

def test_mean_counts_only_what_there_is():
    metric = PerImage(region_errors, ('seen', 'hidden', 'background'))
    a, b = pictures(2)
    visibility = torch.zeros(2, 48, 48, dtype=torch.long)
    visibility[0, :24] = 1
    metric.update(a, b, visibility)
    values = metric.values
    assert values['hidden'][1].isnan() and values['background'].isnan().all()
    assert metric.compute()['hidden'] == values['hidden'][0] and metric.compute()['background'].isnan()
    top, rest = (a - b).abs()[0, :, :24].mean()/2, (a - b).abs()[0, :, 24:].mean()/2
    assert values['hidden'][0] == pytest.approx(float(top), rel=1e-5) and values['seen'][0] == pytest.approx(float(rest), rel=1e-5)

def test_flow_errors_by_hand():
    wanted, flow = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    flow[0, :, 0] = torch.tensor([3., 4.])[:, None]
    visibility = torch.full((1, 4, 4), 2)
    visibility[0, 0], visibility[0, 1, 0] = 0, 1
    visibility[0, 2, 0] = 0
    found = flow_errors(flow, wanted, visibility)
    assert float(found['seen']) == pytest.approx(4.) and float(found['hidden']) == 0.

def test_attributes_by_hand():
    "A classifier that always answers with the first word"
    heads = lambda images: [torch.eye(len(v))[0].expand(len(images), -1)*50 for v in ATTRIBUTES.values()]
    images = pictures(6)[0]
    labels = torch.tensor([[i % len(v) for v in ATTRIBUTES.values()] for i in range(6)])
    assert torch.allclose(attribute_recall(heads(images), labels), (labels == 0).double().mean(1))
    score = attribute_score(heads, tuple(ATTRIBUTES), splits=1)
    score.update(images)
    assert float(score.compute()) == pytest.approx(1.)                                    # never another answer
    assert top_k_recall(torch.tensor([[3., 2., 1.]]), torch.tensor([[0, 0, 0]])[:, :3], 2).isnan().all()

def test_the_surest_of_all_words(monkeypatch):
    "AttrRec-5 and AttrRec-20: one question is answered wrongly and most surely, three are left open, eleven are right"
    assert word_recall([torch.tensor([[2., 0.]]), torch.tensor([[101., 100., 100.]])], torch.tensor([[0, 1]]), 1).tolist() == [.5]   # likely, whatever is added to a question's scores
    assert [float(word_recall([torch.tensor([[2., 0.]]), torch.tensor([[3., 2., 0.]])], torch.tensor([[1, 1]]), k)) for k in (2, 3, 5)] == [0., .5, 1.]
    labels = torch.tensor([[i % len(v) for v in ATTRIBUTES.values()] for i in range(6)])
    def heads(images):
        scores = [10.*torch.nn.functional.one_hot(labels[:, i], len(v)) for i, v in enumerate(ATTRIBUTES.values())]
        return [3*o.roll(1, 1) if k == 'top' else 0*o if k in ('shoes', 'jacket', 'glasses') else o for k, o in zip(ATTRIBUTES, scores)]
    monkeypatch.setattr('spice.measure.measures.people_heads', lambda size, device: heads)
    for name, wanted in (('attrrec-5-people', 4/15), ('attrrec-20-people', 14/15)):
        metric = make_measure(name)
        metric.update(pictures(6)[0], labels)
        assert metric.compute() == pytest.approx(wanted) and MEASURES[name] == ('made, labels', 1)
    first = lambda images: [9.*(i < 5)*torch.eye(len(v))[0].expand(len(images), -1) for i, v in enumerate(ATTRIBUTES.values())]
    monkeypatch.setattr('spice.measure.measures.people_heads', lambda size, device: first)
    found = evaluate('truth', 'people-64', count=6, measures=('attrrec-5-people',), device='cpu').values['attrrec-5-people']['mean']
    worn = make_pairs(find_protocol('people-64'), None, 6, 'cpu').case(range(6))['labels'][:, :5]
    assert found == pytest.approx(float((worn == 0).sum(1).double().mean()/15)) and found > 0            # whoever always answers with the first words of five questions

def test_masked():
    a, b = pictures(2)
    whole, none = torch.ones(2, 48, 48), torch.zeros(2, 1, 48, 48)
    assert torch.equal(masked(a, whole), a) and (masked(a, none) == -1).all()
    for form in ('field', 'inside'): assert torch.allclose(masked_ssim(b, a, whole, form), ssim(b, a))
    assert torch.allclose(masked_ssim(b, a, none), torch.ones(2, dtype=torch.float64))                  # the field's form rewards nothing
    half = torch.rand(2, 48, 48).round()
    for form in ('field', 'inside'): assert torch.equal(masked_ssim(b, a, half[:, None], form), masked_ssim(b, a, half, form))

def test_measures_can_be_pickled_and_are_not_moved():
    import copy
    metric = fed(FID(Rows(4)), torch.randn(9, 4), torch.randn(9, 4))
    assert torch.equal(copy.deepcopy(metric).compute(), metric.compute())
    assert not list(FID('people-eval').parameters())                                      # its network is no part of its state

def test_bootstrap():
    values = torch.randn(300, dtype=torch.float64)
    mean, low, high = bootstrap(values)
    assert low < mean < high and bootstrap(values) == (mean, low, high) and bootstrap(values, seed=1) != (mean, low, high)
    assert bootstrap(torch.cat([values, torch.full((20,), math.nan)])) == (mean, low, high)
    assert bootstrap(torch.ones(5)) == (1., 1., 1.)
    narrow = bootstrap(values, level=.5)
    assert low < narrow[1] < narrow[2] < high

def bad_cases():
    a, b = pictures()
    score = InceptionScore(lambda o: o, [5])
    yield 'another size', lambda: l1(a, b[..., :40]), 'Give pictures of one size'
    yield 'another number', lambda: ssim(a, b[:2]), 'Give pictures of one size'
    yield 'bytes', lambda: ssim((a*100).to(torch.uint8), b), 'Give a tensor of floats'
    yield 'up to 255', lambda: psnr(a*255, b), 'Give colours from -1 to 1'
    yield 'NaN', lambda: l1(a/0*0, b), 'without NaN'
    yield 'none', lambda: l1(a[:0], b[:0]), 'are empty'
    yield 'one picture', lambda: l1(a[0], b[0]), 'Give a tensor of floats'
    yield 'an array', lambda: l1(a.numpy(), b), 'as ndarray'
    yield 'too small', lambda: ssim(a[..., :10], b[..., :10]), '11 x 11'
    yield 'too many scales', lambda: ms_ssim(a, b, 5), 'They allow 3'
    yield 'form', lambda: masked_ssim(a, b, torch.ones(4, 48, 48), 'both'), "Give 'field' or 'inside'"
    yield 'mask', lambda: masked_ssim(a, b, torch.ones(4, 24, 48)), 'Give [b, h, w]'
    yield 'features of wrong pictures', lambda: load_extractor('people-eval')(a*9), 'Give colours'
    yield 'CX of two sizes', lambda: contextual_similarity(load_features('people-eval'), a, b[..., :40]), 'one size'
    yield 'a single row', lambda: fed(FID(Rows(4)), torch.randn(5, 4), torch.randn(1, 4)).compute(), 'at least two of each'
    yield 'no row', lambda: KID(Rows(4)).compute(), 'at least two of each'
    yield 'no score', lambda: score.compute(), 'at least two'
    yield 'other classes', lambda: score.update(torch.randn(3, 4)), 'The score was made for [5]'
    yield 'no picture', lambda: PerImage(l1).compute(), 'nothing was measured yet'
    yield 'flow', lambda: flow_errors(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8)), 'see resize_flow'
    yield 'regions', lambda: region_errors(a, b, torch.zeros(4, 9, 9, dtype=torch.long)), 'Give one size'
    yield 'labels', lambda: attribute_recall([torch.zeros(2, 3)], torch.zeros(2, 2, dtype=torch.long)), 'a label for each question'
    yield 'people', lambda: pose_scores(lambda images: [Keypoints(torch.ones(1, 18, 3), (48, 48))]*4, a, Keypoints(torch.ones(2, 18, 3), (48, 48))), 'the same people'
    yield 'no values', lambda: bootstrap(torch.tensor([math.nan])), 'at least one number'
    yield 'name', lambda: make_measure('FID'), 'Take one of l1'
    yield 'regressor', lambda: make_measure('body'), 'Give regressor='

@pytest.mark.filterwarnings('ignore:The ``compute`` method')
@pytest.mark.parametrize('what,call,says', [pytest.param(*o, id=o[0]) for o in bad_cases()])
def test_bad_input_is_one_line(what, call, says, bad_input):
    with pytest.raises((SpiceError, ImageError)) as error: call()
    assert says in str(error.value) and '\n' not in str(error.value)
