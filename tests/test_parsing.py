"""Semantic parsing transformation: boxes, the search, each equation, the stages, the data, runs."""
import json, os, signal, subprocess, sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.autograd import gradcheck
from overfitting import steps_on
from spice.core import DataError, SpiceError, seeded, to_pil
from spice.sources import PeoplePhotos
from spice.data import Prepared, prepare, read_parsing
from spice.measure.evaluate import evaluate
from spice.features import load_features
from spice.keypoints import heatmaps
from spice.loaders import Batch, Draw, collate
from spice.losses import critic_loss, generator_loss
from spice.measure.measures import pose_mask
from spice.systems.parsed import FlipMaps, ParsedPairs, ParsedPhotos, ParsedSteps
from spice.systems.parsing import ParsingSettings, Unet, faces, region_style, smaller, weighted_cross_entropy
from spice.systems.deformable import part_motion
from spice.people import PARSING, People, Pool
from spice.systems.pseudo_pairs import BOX_PARTS, FLIPPED, PseudoPairs, one_hot, part_boxes, part_distance, part_labels, part_masks
from spice.systems.restyle import EDITS, HumanParser, edit_parsing, human_parser, label_table, parse_folder, redraw, relabel, spice_parse, swap_sides, transfer_clothes
from spice.runs import Plan, log_rows, run_stage, spice_train, stage_learner, train
from spice.train import load_system, make_system, system_learner
from spice.systems.upis import content, squares

SMALL = dict(width=4, cap=8, readers=4, critic_width=4, levels=3)

@pytest.fixture(scope='module')
def many(): return People(64, 'train', samples=1, detail=1, device='cpu').photos(np.arange(48)//2, np.arange(48) % 2)

@pytest.fixture(scope='module')
def features(): return load_features('people', device='cpu')

def new(seed=0, **changes):
    with seeded(seed): return make_system('parsing', 'tiny', **{**SMALL, **changes})

def pairs_batch(n, size=64):
    pairs = ParsedPairs(People(size, 'train', samples=1, detail=1, device='cpu'), n)
    return Draw(wheels=False, torso=False)(collate([pairs[i] for i in range(n)]))

@pytest.fixture(scope='module')
def batch(): return pairs_batch(2)

@pytest.fixture
def few(monkeypatch):
    "Validation on two pairs"
    monkeypatch.setattr('spice.systems.parsing.ParsedPairs', partial(ParsedPairs, count=2))

def with_pair(batch): # the true pair in place of one that was found
    return Batch(batch | dict(pseudo_points=batch['target_points'], pseudo_parsing=batch['target_parsing']))

# boxes

def test_boxes_move_with_the_person(many):
    boxes, there = part_boxes(many.points)
    moved, _ = part_boxes(many.points*torch.tensor([2., 2., 1.]) + torch.tensor([3., -5., 0.]))
    want = 2*boxes
    want[..., 2] += torch.tensor([3., -5.])
    assert torch.allclose(moved[there], want[there], atol=1e-3)
    assert (torch.linalg.det(boxes[..., :2])[there].abs() > 1).all()

def test_boxes_of_half_a_person():
    nobody = torch.zeros(1, 18, 3)
    assert not part_boxes(nobody)[1].any() and torch.isfinite(part_boxes(nobody)[0]).all()
    one = nobody.clone()
    one[0, [2, 3, 10]] = torch.tensor([[30., 20., 1.], [30., 20., 1.], [30., 55., 1.]])    # a limb that points at the camera, and a foot
    boxes, there = part_boxes(one)
    assert [BOX_PARTS[i] for i in there[0].nonzero()[:, 0]] == ['right upper arm']
    assert float(torch.linalg.det(boxes[0, 2, :, :2]).abs()) > 0
    assert float(part_masks(one, (64, 64))[0, 2].sum()) > 0 and float(part_masks(one, (64, 64)).sum(1).amax()) == 1

def test_boxes_hold_the_body(many):
    covered = part_masks(many.points, (64, 64)).amax(1) > 0
    body = (many.parsing > 0) & (many.parsing != 5)
    assert float((covered & body).sum()/body.sum()) > .85

# Eq. (1)

def by_pixels(source, points, candidate, candidate_points):
    "Eq. (1) as it is written: pixel by pixel, each part after its affine transformation"
    (a, has), (b, wants), total = part_boxes(points[None]), part_boxes(candidate_points[None]), 0.
    for j in range(10):
        if not has[0, j] or not wants[0, j]:
            total += float(part_masks((points if has[0, j] else candidate_points)[None], source.shape)[0, j].sum())*bool(has[0, j] or wants[0, j])
            continue
        inside = part_masks(candidate_points[None], candidate.shape)[0, j].nonzero()
        place = torch.cat([inside.flip(1) + .5, torch.ones(len(inside), 1)], 1).T
        square = torch.linalg.solve(b[0, j, :, :2], place[:2] - b[0, j, :, 2:])
        x, y = (a[0, j, :, :2]@square + a[0, j, :, 2:]).floor().long()
        ok = (x >= 0) & (y >= 0) & (x < source.shape[1]) & (y < source.shape[0])
        found = torch.where(ok, source[y.clamp(0, source.shape[0] - 1), x.clamp(0, source.shape[1] - 1)], 0)
        total += float((one_hot(found[None, None]) - one_hot(candidate[inside[:, 0], inside[:, 1]][None, None])).square().sum())
    return total

def test_grid_is_the_sum_over_pixels(many):
    k = 6
    t = part_labels(many.parsing[:k], many.points[:k])
    ours = part_distance((t[0][:, None], t[1][:, None]), t)
    slow = torch.tensor([[by_pixels(many.parsing[i], many.points[i], many.parsing[j], many.points[j]) for j in range(k)] for i in range(k)])
    off = ~torch.eye(k, dtype=torch.bool)
    assert float(np.corrcoef(ours[off], slow[off])[0, 1]) > .98
    assert float(((ours - slow)[off].abs()/slow[off]).median()) < .1
    assert (ours.diagonal() == 0).all() and (slow.diagonal() == 0).all()

def test_search_against_everybody(many):
    search = PseudoPairs(many.parsing, many.points, many.outfits, candidates=8)
    t, asked = search.table, torch.arange(len(many))
    exact = part_distance((t['labels'][:, None], t['areas'][:, None]), (t['labels'], t['areas']))
    assert (search.coarse(asked) <= exact + 1e-2).all()
    same, near = search.refused(asked)
    allowed = exact.masked_fill(same | near, torch.inf)
    pair, far = search.best(asked, everybody=True)
    assert torch.equal(far, allowed.amin(1)) and not (same | near)[asked, pair].any()
    pair, far = search.best(asked)
    assert (far >= allowed.amin(1)).all() and float((far == allowed.amin(1)).float().mean()) > .8
    assert (many.outfits[pair] != many.outfits).all()

def test_who_is_refused(many):
    still = many.points.clone()
    still[..., :2] += 3                                                                     # the same poses elsewhere
    search = PseudoPairs(torch.cat([many.parsing, many.parsing]), torch.cat([many.points, still]), torch.arange(96))
    _, near = search.refused(torch.arange(48))
    assert near[torch.arange(48), torch.arange(48) + 48].all() and float(near.float().mean()) < .2
    everybody = PseudoPairs(many.parsing, many.points, many.outfits, similar=100.)          # all are too similar: still never the same outfit
    pair, far = everybody.best(torch.arange(48))
    assert (many.outfits[pair] != many.outfits).all() and (far >= 1e8).all()

def test_search_without_a_second_group(many, bad_input):
    with pytest.raises(DataError, match='one group'): PseudoPairs(many.parsing, many.points, torch.zeros(48).long())

# gradients, and limits that the chapter doesn't show

def test_eq2_gradient():
    scores, labels, body = torch.randn(1, 10, 4, 4, dtype=torch.float64, requires_grad=True), torch.randint(10, (1, 4, 4)), torch.rand(1, 4, 4).double()
    assert gradcheck(lambda o: weighted_cross_entropy(o, labels, body), scores)
    by_hand = -(one_hot(labels).double()*scores.log_softmax(1)*(1 + body[:, None])).sum(1).mean()
    assert torch.allclose(weighted_cross_entropy(scores, labels, body), by_hand)

@pytest.mark.parametrize('form', ['log', 'minimax', 'squares'])
def test_eq3_5_9_gradients(form):
    real, fake = (torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(lambda a, b: critic_loss(a, b, form), (real, fake)) and gradcheck(lambda b: generator_loss(b, form), fake)

def test_eq6_7_gradients():
    a, b = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert gradcheck(lambda o: squares(o, b), a) and gradcheck(lambda o: content(dict(z=o), dict(z=b), ['z']), a)
    assert float(squares(b, b)) == 0 and float(content(dict(z=b), dict(z=b), ['z'])) == 0

def test_eq8_gradient_reaches_pictures_and_maps():
    made, source = (torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    maps, known = (torch.randn(1, 3, 4, 4, dtype=torch.float64).mul(4).softmax(1).requires_grad_() for _ in range(2))
    assert gradcheck(region_style, (made, source, maps, known))
    both = [int(o) for o in ((maps.flatten(2).amax(2) > .5) & (known.flatten(2).amax(2) > .5))[0]]
    g = lambda x, m: torch.einsum('cp,dp->cd', (x*m).flatten(1), (x*m).flatten(1))/16
    by_hand = sum(on*(g(made[0], maps[0, i]) - g(source[0], known[0, i])).square().mean() for i, on in enumerate(both))
    assert sum(both) and torch.allclose(region_style(made, source, maps, known), by_hand)

def test_eq9_gradient(many):
    points = many.points[:1].double()/8
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda o: faces(o, points, 4)[0], image)

def test_deformable_skip_gradient(many):
    move = part_motion(many.points[:1].double(), many.points[1:2].double(), (64, 64))
    assert gradcheck(move, torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True))

def test_parts_go_where_they_belong(many):
    "A colour for each part of the source lands in the target's box"
    a, b = many.points[0:1], many.points[1:2]
    move = part_motion(a, b, (64, 64))
    for j in range(10):
        if not (part_boxes(a)[1] & part_boxes(b)[1])[0, j] or j == BOX_PARTS.index('torso'): continue
        paint, want = part_masks(a, (64, 64))[:, j:j + 1], part_masks(b, (64, 64))[:, j:j + 1]
        assert float((move(paint)*want).sum()/want.sum()) > .8

def test_unet_learns_in_all_parts():
    with seeded(0): net = Unet((3, 2), 1, 4, 8, 2, dropout=.5)
    net(torch.randn(2, 3, 16, 16), torch.randn(2, 2, 16, 16), moved=lambda o: o).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())

# the system

def test_stages_move_what_they_should(batch, features):
    system = new()
    for stage, o in system.stages().items():
        system.enter(stage, features=features).zero_grad()
        system.step(with_pair(batch)).total.backward()
        moved = {k for k, part in system.parts().items() if any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())}
        assert moved == set(o.rates), stage
    assert list(system.stages()) == ['semantic', 'appearance', 'joint']
    assert not any(k.startswith(('tools', 'features')) for k in system.state_dict())

@pytest.mark.parametrize('term', ['adv', 'pose', 'content', 'style', 'face'])
def test_every_appearance_term_corrects_the_map(batch, features, term):
    "Joint training: each term of Eq. (10) alone gives the semantic network a gradient"
    system = new()
    weights = replace(system.stages()['joint'].weights, **{k: 1.*(k == term) for k in ('ce', 'semantic_adv', 'adv', 'pose', 'content', 'style', 'face')})
    system.enter('joint', weights, features=features)
    with torch.no_grad(): system.semantic.last[1].bias[PARSING.index('upper clothes')] = 4.  # a map that is sure of something
    step = system.step(batch)
    step.terms['generator'].total.backward()
    assert set(step.terms['generator']) <= {term, f'{term}_back'}
    assert sum(float(p.grad.abs().sum()) for p in system.semantic.parameters() if p.grad is not None) > 0

def test_judges_learn_from_photos_only(batch, features):
    "Gradients of a critic come from its own term, those of generators from theirs"
    system = new().enter('appearance', features=features)
    step = system.step(batch)
    step.terms['generator'].total.backward()
    assert all(p.grad is None for o in (system.critic, system.face_critic, system.detector, system.semantic) for p in o.parameters())
    system.zero_grad()
    sum(step.terms[k].total for k in ('critic', 'face_critic', 'detector')).backward()
    assert all(p.grad is None for p in system.appearance.parameters())

def test_terms_by_name(batch, features):
    system = new().enter('joint', features=features)
    names = {'adv', 'adv_back', 'pose', 'pose_back', 'content', 'style', 'style_back', 'face', 'face_back', 'critic', 'face_critic', 'detector', 'semantic_adv',
             'semantic_critic', 'ce'}
    log = system.step(batch).log()
    assert {k for k in log if not k.endswith('_total')} == names and all(torch.isfinite(v) for v in log.values())
    weights = system.stages()['joint'].weights
    assert (weights.pose, weights.content, weights.style) == (700, 1, 30) and weights.terms['style_back'] == 30
    off = system.enter('joint', replace(weights, ce=0., face=0., adv=0., semantic_adv=0., style=0., content=0.), features=features)
    assert {k for k in off.step(batch).log() if not k.endswith('_total')} == {'pose', 'pose_back', 'detector'}

@pytest.mark.parametrize('settings', [dict(variant='Baseline'), dict(variant='TS-Pred'), dict(variant='TS-GT'), dict(style='mask'), dict(style='patch'),
                                      dict(conditional=True), dict(deformable=False), dict(form='minimax'), dict(face_weight=0.), dict(variant='Baseline', style='patch')])
def test_variants(batch, features, settings):
    system = new(**settings)
    stages = [*system.stages()]
    assert stages == (['appearance'] if settings.get('variant') == 'Baseline' else ['semantic', 'appearance'] + ['joint']*('variant' not in settings))
    for stage in stages[-1:]:
        step = system.enter(stage, features=features).step(with_pair(batch))
        assert torch.isfinite(step.total) and system.sheet(batch, step.made, 2).size[0] > 100
    with torch.no_grad(): assert system.eval()(batch)['image'].shape == batch['source_image'].shape

def test_baseline_needs_no_map(batch, features):
    plain = Batch({k: v for k, v in batch.items() if 'parsing' not in k})
    system = new(variant='Baseline').enter('appearance', features=features)
    assert torch.isfinite(system.step(plain).total) and not hasattr(system, 'semantic')

def test_bad_settings(bad_input):
    for wrong, text in ((dict(variant='E3E'), 'variant'), (dict(style='pixel'), 'style'), (dict(form='least'), 'form')):
        with pytest.raises(SpiceError, match=f"there is no {text}.*Take one of"): new(**wrong)
    with pytest.raises(SpiceError, match='no maps for a semantic style'): new(variant='Baseline', style='semantic')
    with pytest.raises(SpiceError, match='multiples of 8'): new(size=(60, 64))

def test_maps_given_or_found(batch):
    system = new().eval()
    without = Batch({k: v for k, v in batch.items() if 'parsing' not in k and 'target_image' not in k})
    with torch.no_grad():
        given, found = system(batch), system(without)
        assert torch.equal(given['source_parsing'], one_hot(batch['source_parsing']))
        assert torch.allclose(found['source_parsing'], system.parser(batch['source_image']).softmax(1))
        again = system(Batch(without | dict(source_parsing=found['source_parsing'])))
    assert torch.equal(again['image'], found['image']) and not torch.equal(given['image'], found['image'])
    assert torch.allclose(found['parsing'].sum(1), torch.ones(2, 64, 64), atol=1e-5)

def test_true_map_of_the_target(batch, bad_input):
    system = new(variant='TS-GT').eval()
    with torch.no_grad(): out = system(batch)
    assert torch.equal(out['parsing'], one_hot(batch['target_parsing']))
    with pytest.raises(SpiceError, match='Give target_parsing'): system(Batch({k: v for k, v in batch.items() if not k.startswith('target_i') and k != 'target_parsing'}))

def test_small_first_then_large(features):
    "The stages of the preset `paper`, at 32 and 64 pixels"
    system, big = new(size=(64, 64), first=(32, 32), levels=3), with_pair(pairs_batch(2))
    assert list(system.stages()) == ['semantic', 'appearance', 'joint', 'large']
    for stage, side in zip(system.stages(), (32, 32, 32, 64)):
        step = system.enter(stage, features=features).step(big)
        assert step.made['parsing'].shape[2:] == (side, side) and torch.isfinite(step.total)
        system.sheet(big, step.made, 2)
    with torch.no_grad(): out = system.eval()(big)
    assert out['image'].shape == (2, 3, 64, 64) and out['parsing'].shape == (2, 10, 64, 64)
    paper = ParsingSettings(first=(128, 128))
    assert (paper.size, paper.pose, paper.content, paper.texture, paper.rate, paper.betas) == ((256, 256), 700, .03, 1, 2e-4, (.5, .999))
    with torch.device('meta'): market = make_system('parsing', 'market')
    weights = market.stages()['joint'].weights
    assert (weights.pose, weights.content, weights.style, weights.face) == (1, .003, 1, 0) and not hasattr(market, 'face_critic')

def test_smaller_batches(batch):
    small = smaller(batch, (32, 32))
    assert small['source_image'].shape == (2, 3, 32, 32) and torch.allclose(small['source_points'][..., :2], batch['source_points'][..., :2]/2)
    assert torch.allclose(small['source_heat'], heatmaps(small['source_points'], 32)) and small['source_parsing'].max() < 10
    assert float((small['source_parsing'] == batch['source_parsing'][:, ::2, ::2]).float().mean()) > .9
    assert pose_mask(small['source_points'], 32).shape == (2, 1, 32, 32)

def test_nobody_has_a_face(batch, features):
    faceless = Batch(batch | {k: batch[k].clone() for k in ('source_points', 'target_points')})
    for k in ('source_points', 'target_points'): faceless[k][:, [0, 14, 15, 16, 17]] = 0
    log = new().enter('appearance', features=features).step(faceless).log()
    assert 'face' not in log and all(torch.isfinite(v) for v in log.values())

# data

def test_pool_batches(many):
    pool, on = Pool(People(64, 'train', samples=1, detail=1, device='cpu'), 12, batch=6), [True]
    steps = ParsedSteps(pool, 4, 2, wanted=lambda: on[0])
    batch, store = steps[0], pool.store
    assert not [k for k in batch if k in ('target_image', 'target_parsing', 'source_rotmats')]           # nothing about the wanted photo
    where = lambda points: [int((store['points'] == o).all((1, 2)).nonzero()[0, 0]) for o in points]
    source, pseudo = where(batch['source_points']), where(batch['pseudo_points'])
    assert (store['outfits'][source] != store['outfits'][pseudo]).all()
    assert torch.equal(store['parsing'][pseudo].long(), batch['pseudo_parsing']) and torch.equal(steps[0]['source_image'], batch['source_image'])
    before = steps.pairs()
    assert steps.pairs() is before
    pool.renew(6)
    assert steps.pairs() is not before                                                                    # other people, another table
    on[0] = False
    assert 'pseudo_points' not in steps[1]

def test_mirrored_maps(batch):
    plain = Batch({k: v for k, v in with_pair(batch).items() if k != 'target_image'} | dict(source_flip=torch.tensor([0., 1.]), target_flip=torch.tensor([1., 1.])))
    out = FlipMaps(.5)(plain)
    assert torch.equal(out['source_parsing'][0], torch.tensor(FLIPPED)[batch['source_parsing'][0].flip(1)])
    assert torch.equal(out['source_parsing'][1], batch['source_parsing'][1]) and not [k for k in out if k.endswith('_flip')]
    assert torch.equal(out['pseudo_parsing'][0], torch.tensor(FLIPPED)[batch['target_parsing'][0].flip(1)])    # with its source
    assert torch.equal(out['target_points'], batch['target_points'])
    boxes = part_masks(out['source_points'], (64, 64))[0, BOX_PARTS.index('head')]
    assert float(out['source_parsing'][0][boxes > 0].gt(0).float().mean()) > .3                            # joints and map still agree

@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp('parsed')/'data'
    source = PeoplePhotos(64, train=3, valid=1, test=1)
    prepare(source, folder)
    (folder/'parsing').mkdir()
    for split in ('train', 'valid', 'test'):
        for name in Prepared(folder).splits[split]:
            outfit, view = (int(o) for o in name.split('_')[1:])
            np.save(folder/'parsing'/f'{name}.npy', People(64, split, samples=1, device='cpu').photos([outfit], [view]).parsing[0].numpy())
    return folder

def test_a_prepared_folder(prepared, tmp_path):
    photos = ParsedPhotos(Prepared(prepared))
    item = photos[0]
    assert set(item) == {'source_points', 'source_image', 'source_parsing', 'target_points', 'pseudo_points', 'pseudo_parsing'}
    pair = photos.pairs().best(torch.arange(len(photos)))[0]
    assert (photos.groups[pair.numpy()] != photos.groups).all()
    out = train(tmp_path/'run', Plan('parsing', data=str(prepared), settings=SMALL, steps=[1], bs=2, epoch=1, quiet=True, ema=0.), 'cpu')
    assert load_system(out, 'cpu').name == 'parsing'

def test_photos_with_bad_fits_are_used(prepared):
    "Maps come from files: no body is needed"
    data = Prepared(prepared)
    rows = data.rows('train').tolist()
    data.bodies['good'][rows[:3]] = False
    photos = ParsedPhotos(data)
    assert photos.rows.tolist() == rows and torch.equal(photos[0]['source_points'], data.points[rows[0]])

def test_maps_reach_evaluation_and_repose(prepared, tmp_path, bad_input):
    from dataclasses import replace
    from spice.reposer import Reposer
    from spice.infer import repose
    from spice.measure.protocols import PROTOCOLS
    with seeded(0): system = make_system('parsing', 'tiny', **SMALL, variant='TS-GT')
    given = []
    monkey = system.maps_of
    object.__setattr__(system, 'maps_of', lambda batch, side='source': given.append(monkey(batch, side).argmax(1)) or monkey(batch, side))
    data = Prepared(prepared)
    result = evaluate(system, replace(PROTOCOLS['clean'], size=(64, 64), real=('test',), measures=('l1',), extra=()), data=data, device='cpu')
    pairs = data.pairs['test']
    assert result.values['l1']['count'] == len(pairs)
    assert result.pairs['source_maps'] == result.pairs['target_maps'] == ['parsing'], 'a result says what systems were given'
    for k in range(2): assert torch.equal(given[k], torch.stack([data.parsing(data.index[o[k]]) for o in pairs]))
    people = People(64, 'test', samples=1, device='cpu').photos([1], 0)
    known = lambda photo: dict(parsing=people.parsing[0])
    tool = Reposer(system, device='cpu', maps=known)
    seen = tool.see(people.image[0], people.keypoints)
    assert torch.equal(seen.maps['parsing'], people.parsing[0])
    with pytest.raises(SpiceError, match='the target has no map and no photo'): repose(people.image[0], 'walk', tool, keypoints=people.keypoints)

def test_a_photo_keeps_its_map_beside_photos_without(bad_input):
    "What is known of a photo does not depend on who is reposed with it"
    from spice.reposer import Reposer
    from spice.infer import repose
    two = People(64, 'test', samples=1, device='cpu').photos([1, 2], 0)
    with seeded(0): system = new()
    tool = Reposer(system, device='cpu', maps=lambda photo: dict(parsing=two.parsing[0]) if photo is two_photos[0] else {})
    two_photos, joints = [two.image[0], two.image[1]], [two.keypoints[0], two.keypoints[1]]
    both = repose(two_photos, 'walk', tool, keypoints=joints)
    alone = [repose(o, 'walk', tool, keypoints=k) for o, k in zip(two_photos, joints)]
    bare = repose(two_photos[0], 'walk', Reposer(system, device='cpu'), keypoints=joints[0])
    assert both[0] == alone[0] != bare and both[1] == alone[1]

def test_bad_maps(prepared, tmp_path, bad_input):
    bad = tmp_path/'bad.npy'
    def refused(array, text):
        np.save(bad, array)
        with pytest.raises(DataError, match=text): read_parsing(bad, (64, 64))
    refused(np.zeros((3, 64, 64), int), 'Give whole numbers')
    refused(np.zeros((64, 64)), 'float64')
    refused(np.full((64, 64), 10), 'labels 10 to 10')
    refused(np.zeros((64, 32), int), 'the map of that canvas')
    refused(np.zeros((0, 0), int), 'Give whole numbers')
    bad.write_bytes(b'no array')
    with pytest.raises(DataError, match='can not be read'): read_parsing(bad)
    with pytest.raises(DataError, match='there is no such file'): read_parsing(tmp_path/'none.npy')
    np.save(bad, np.arange(4).reshape(2, 2))
    assert read_parsing(bad, (4, 4)).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]

# runs

def test_a_run_and_what_comes_of_it(tmp_path, few):
    from spice.infer import repose
    out = tmp_path/'run'
    text = ','.join(f'{k}={v}' for k, v in SMALL.items())
    spice_train(str(out), system='parsing', steps='2', bs=2, pool=4, epoch=2, samples=2, checkpoint=2, device='cpu', quiet=True, settings=text)
    for stage, term in (('semantic', 'ce'), ('appearance', 'style'), ('joint', 'semantic_adv')):
        assert (out/stage/'samples'/'step_0000002.jpg').is_file() and term in (out/stage/'log.csv').read_text().split('\n')[0]
        assert json.loads((out/stage/'last'/'config.json').read_text())['network'] == 'ParsingTransfer'
    assert len(log_rows(out/'joint'/'log.csv')) >= 1
    photo = People(64, 'valid', device='cpu').photos([0])
    image = repose(photo.image[0], 'walk', model=str(out), keypoints=photo.keypoints)
    assert image.size == (64, 64)

def test_resume_is_exact(tmp_path, few):
    "A run that is stopped in the middle and goes on ends with the weights of one that was not"
    class Stop(Exception): pass
    def go(folder, steps, stop=None):
        with seeded(0): system = new()
        plan = Plan('parsing', settings=SMALL, bs=2, epoch=2, pool=6, checkpoint=1, every=1, ema=0.)
        with seeded(1): dls = system.loaders(plan, torch.device('cpu'))
        learn = stage_learner(plan, 'semantic', system, dls, tmp_path/folder, steps)
        if stop:
            step, calls = system.step, []
            def impatient(batch):
                if system.training: calls.append(1)
                if len(calls) == stop: os.kill(os.getpid(), signal.SIGINT)
                return step(batch)
            system.step = impatient
            with pytest.raises(SpiceError, match='goes on from here'): run_stage(learn, tmp_path/folder, steps, quiet=True)
            return go(folder, steps)
        run_stage(learn, tmp_path/folder, steps, quiet=True)
        return system.state_dict()
    whole, again = go('whole', 4), go('again', 4, stop=3)
    assert all(torch.equal(v, again[k]) for k, v in whole.items())

def overfit(steps, rate=1e-3, **changes):
    "One batch again and again; the first and last of the map's error, of the way back and of the maps that are found"
    batch, out = with_pair(pairs_batch(4)), {}
    with seeded(0): system = make_system('parsing', 'tiny', **changes)
    for stage in system.stages():
        system.enter(stage).train()
        for k, step in enumerate(steps_on(system, batch, steps, [rate]*len(system.groups()))):
            if k in (0, steps - 1):
                log = {n: float(v) for n, v in step.log().items()}
                if 'again' in step.made: log['off'] = float((step.made['again'] - batch['source_image']).abs().mean())
                if 'image' in step.made: log['seen'] = float(F.l1_loss(step.made['image'], batch['target_image']))
                out.setdefault(stage, []).append(log)
    return out, float(F.l1_loss(batch['source_image'], batch['target_image']))

def test_overfits_a_little():
    log, _ = overfit(18, 3e-3, variant='TS-Pred', width=8, cap=32, critic_width=8, readers=4, levels=3)
    assert log['semantic'][1]['ce'] < .5*log['semantic'][0]['ce'] and log['semantic'][1]['parse'] < .6*log['semantic'][0]['parse']
    assert log['appearance'][1]['off'] < .7*log['appearance'][0]['off'] and log['appearance'][1]['seen'] < .7*log['appearance'][0]['seen']

@pytest.mark.long
def test_overfits_one_batch():
    log, copy = overfit(150, 2e-3, width=8, cap=32, critic_width=8, readers=4, levels=3)
    assert log['semantic'][1]['ce'] < .05*log['semantic'][0]['ce'] and log['semantic'][1]['parse'] < .2*log['semantic'][0]['parse']
    assert log['appearance'][1]['off'] < .35*log['appearance'][0]['off'] and log['appearance'][1]['seen'] < copy
    assert log['joint'][1]['off'] < .4*log['appearance'][0]['off'] and log['joint'][1]['content'] < .8*log['appearance'][0]['content']

def test_learner_validates_on_true_pairs(few):
    "Pseudo-pairs in training, true ones in validation"
    system = new()
    dls = system.loaders(Plan('parsing', pool=4, bs=2, epoch=2), torch.device('cpu'))
    learn = system_learner(system, dls, 'semantic')
    assert 'pseudo_points' in dls.train.one_batch() and 'pseudo_points' not in dls.valid.one_batch()
    with learn.no_bar(), learn.no_logging(): learn.train_to(2)
    assert torch.isfinite(learn.step.total) and learn.done == 2

# restyling

def test_transfer_is_the_system_on_another_map(batch):
    system = new().eval()
    with torch.no_grad(): out = system(batch)
    assert torch.allclose(redraw(system, batch, out['parsing']), out['image'], atol=1e-5)
    assert torch.equal(transfer_clothes(system, batch), redraw(system, batch, batch['target_parsing']))
    assert torch.equal(swap_sides(batch)['source_image'], batch['target_image']) and set(swap_sides(batch)) == set(batch)

@pytest.mark.parametrize('edit', EDITS)
def test_edits_keep_the_rest(many, edit):
    after = edit_parsing(many.parsing, many.points, edit)
    changed = after != many.parsing
    old = {PARSING.index(o) for _, o, _ in EDITS[edit]}
    assert set(many.parsing[changed].tolist()) <= old and not bool((changed & (part_masks(many.points, (64, 64)).amax(1) == 0)).any() and edit != 'trousers for a skirt')
    assert torch.equal(edit_parsing(after, many.points, edit), after)

def test_bad_edits(many, bad_input):
    with pytest.raises(DataError, match='there is no edit'): edit_parsing(many.parsing, many.points, 'hat')
    with pytest.raises(DataError, match="no label 'coat'"): relabel(many.parsing, many.points, [], 'coat', 'skirt')

class Model(torch.nn.Module):
    config = SimpleNamespace(id2label={0: 'Background', 1: 'Left-arm', 2: 'Dress'})
    def forward(self, pixel_values): return SimpleNamespace(logits=torch.stack([0*pixel_values[:, 0], pixel_values[:, 0] - .1, -pixel_values[:, 0]], 1)[..., ::2, ::2])

class Hub:
    "Stands in for the classes of transformers"
    def __init__(self, what): self.what = what
    def from_pretrained(self, name, local_files_only):
        assert local_files_only == (name != 'some/right')
        if name != 'some/right': raise OSError(f'{name} is no local folder\nand more')
        return self.what

def processor(images, return_tensors):
    return dict(pixel_values=torch.stack([torch.tensor(np.asarray(o.convert('RGB').resize((64, 64)))).movedim(2, 0)/255. for o in images]))

def test_parser_from_transformers(monkeypatch, tmp_path, prepared, bad_input):
    monkeypatch.setitem(sys.modules, 'transformers', SimpleNamespace(AutoImageProcessor=Hub(processor), AutoModelForSemanticSegmentation=Hub(Model())))
    parser = human_parser('hf:some/right', device='cpu')
    found = parser([np.full((40, 20, 3), 255, np.uint8), np.zeros((64, 64, 3), np.uint8)])
    assert [tuple(o.shape) for o in found] == [(40, 20), (64, 64)] and [o.unique().tolist() for o in found] == [[PARSING.index('left arm')], [0]]
    with pytest.raises(SpiceError, match='can not be read .OSError'): human_parser(str(tmp_path))
    with pytest.raises(SpiceError, match='some/right: there is no such folder. Give a folder, or hf:owner/name'): human_parser('some/right')
    kept = read_parsing(prepared/'parsing'/f'{Prepared(prepared).names[0]}.npy')
    assert spice_parse(str(prepared), 'hf:some/right', 'cpu') == prepared/'parsing'                                # all there already
    assert torch.equal(read_parsing(prepared/'parsing'/f'{Prepared(prepared).names[0]}.npy'), kept)

def test_no_transformers_is_one_line(monkeypatch, bad_input):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(SpiceError, match='transformers, which parses photos, is not installed. pip install transformers'): human_parser()

def test_parsing_a_folder(prepared, tmp_path):
    import shutil
    folder = tmp_path/'data'
    shutil.copytree(prepared, folder)
    data = Prepared(folder)
    name = data.names[0]
    (folder/'parsing'/f'{name}.npy').unlink()
    calls = []
    def parser(photos): calls.append(len(photos)); return [np.full((64, 64), 3) for _ in photos]
    parse_folder(data, parser)
    assert calls == [1] and read_parsing(folder/'parsing'/f'{name}.npy', (64, 64)).unique().tolist() == [3]
    parse_folder(data, parser, again=True, batch=2)
    assert sum(calls) == 1 + len(data)

def test_labels_by_name():
    assert label_table({'0': 'background', '2': 'LEFT_ARM'}).tolist() == [0, 0, 6]
    assert HumanParser(processor, Model(), {'dress': 'skirt'}, 'cpu').table.tolist() == [0, 6, 5]

def test_restyle_by_command(tmp_path, bad_input):
    "Two photos in, a picture out; and what can't be"
    from spice.pose_files import write_openpose
    from spice.systems.restyle import spice_restyle
    alone = 'from spice.systems.restyle import Reposer; Reposer.batch_of'
    assert subprocess.run([sys.executable, '-c', alone]).returncode == 0, 'the command needs no other import'
    people = People(64, 'test', samples=1, device='cpu').photos([1, 2], 0)
    for k, name in enumerate(('me', 'other')):
        to_pil(people.image)[k].save(tmp_path/f'{name}.png')
        write_openpose(people.keypoints[k], tmp_path/f'{name}.json')
        np.save(tmp_path/f'{name}_parsing.npy', people.parsing[k].numpy())
    with seeded(0): new().save_pretrained(tmp_path/'model')
    photos, out = (str(tmp_path/'me.png'), str(tmp_path/'other.png')), str(tmp_path/'it.png')
    how = dict(model=str(tmp_path/'model'), out=out, keypoints=str(tmp_path/'me.json'), other_keypoints=str(tmp_path/'other.json'), device='cpu')
    made = [spice_restyle(*photos, **how, maps=o).read_bytes() for o in ('', str(tmp_path))]
    assert made[0] != made[1], 'true maps are not those of an untrained parser'
    for call, says in (((*photos,), 'no model'), ((photos[0],), 'nothing to change'), ((photos[0], str(tmp_path/'none.png')), 'there is no such file')):
        with pytest.raises(SpiceError, match=says): spice_restyle(*call, **(how | ({} if says != 'no model' else dict(model=''))))
    with pytest.raises(DataError, match='is what is read as other'): spice_restyle(*photos, **how | dict(out=photos[1]))
    with pytest.raises(DataError, match="there is no edit 'bold'"): spice_restyle(photos[0], **how, edit='bold')

def test_texture_by_command(tmp_path, bad_input):
    "Another photo's texture on the charts of the skin: with a `dpt`, on the chosen parts only; and what can't be"
    from spice.pose_files import write_openpose
    from spice.systems.restyle import spice_restyle
    people = People(64, 'test', samples=1, device='cpu').photos([1, 2], 0)
    for k, name in enumerate(('me', 'other')):
        to_pil(people.image)[k].save(tmp_path/f'{name}.png')
        write_openpose(people.keypoints[k], tmp_path/f'{name}.json')
    with seeded(0): make_system('dpt', 'tiny').save_pretrained(tmp_path/'dpt')
    make_system('dpt', 'tiny', charts='densepose').save_pretrained(tmp_path/'files')
    make_system('dpt', 'tiny', variant='predictive').save_pretrained(tmp_path/'flat')
    new().save_pretrained(tmp_path/'parsing')
    photos, out = (str(tmp_path/'me.png'), str(tmp_path/'other.png')), str(tmp_path/'it.png')
    how = dict(texture=True, model=str(tmp_path/'dpt'), out=out, keypoints=str(tmp_path/'me.json'), other_keypoints=str(tmp_path/'other.json'), device='cpu')
    read = lambda path: np.array(Image.open(path)).astype(int)
    made, before = {o: read(spice_restyle(*photos, **how, parts=o)) for o in ('top', 'bottom', 'clothes', 'body')}, read(photos[0])
    rows = {o: np.unique((np.abs(v - before).max(2) > 3).nonzero()[0]) for o, v in made.items()}
    assert rows['top'].mean() < rows['bottom'].mean() and set(rows['top']) | set(rows['bottom']) <= set(rows['body']), 'trousers are below shirts'
    assert (made['top'] == before)[:8].all() and (made['clothes'] != before).any(), 'what is above the person stays'
    assert np.array_equal(np.where(made['top'] != before, made['top'], made['bottom']), made['clothes'])
    other = lambda **o: (photos, how | o)
    for (call, options), says in ((other(parts='hat'), 'Take one of clothes, top'), (other(edit='bald'), 'beside --texture'), (((photos[0],), how), 'Give the photo whose texture'),
                                  (other(model=str(tmp_path/'parsing')), 'parsing has no charts'), (other(model=str(tmp_path/'flat')), 'dpt has no charts'),
                                  (other(model=str(tmp_path/'files')), 'a photo has no dense pose'), (other(texture=False, parts='top'), '--parts top without --texture'),
                                  (((photos[0], str(tmp_path/'none.png')), how), 'there is no such file'), (other(out=photos[1]), 'is what is read as other'),
                                  (other(keypoints=str(tmp_path/'none.json')), 'there is no such file')):
        with pytest.raises(SpiceError, match=says): spice_restyle(*call, **options)
