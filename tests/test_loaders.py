"""Loaders: who is in a batch, mirror images, workers, epochs."""
import numpy as np
import pytest
import torch
from spice.core import DataError
from spice.sources import PeoplePhotos
from spice.data import Prepared, prepare
from spice.keypoints import heatmaps
from spice.loaders import Batch, Draw, Flip, Paired, PoolSteps, Unpaired, Video, collate, flip_person, photo_loaders, pool_loaders
from spice.people import People, Pool, free_body

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return Prepared(prepare(PeoplePhotos(64, train=10, valid=3, test=3), tmp_path_factory.mktemp('data')/'people'))

def test_unpaired_batches_hold_no_target_photo(data):
    loaders = photo_loaders(Unpaired(data), bs=4, device='cpu')
    for batch in loaders.train:
        assert not [k for k in batch if k.startswith('target') and ('image' in k or 'parsing' in k)]
        assert batch.source_image.shape == (4, 3, 64, 64) and batch.source_image.abs().max() <= 1
        assert batch.source_heat.shape == batch.target_heat.shape == (4, 18, 64, 64)
        assert batch.source_wheel.shape == (4, 3, 64, 64) and batch.target_torso.dtype == torch.bool

def test_target_is_somebody_else_in_every_epoch(data):
    unpaired, seen = Unpaired(data, seed=3), set()
    for epoch in range(5):
        unpaired.epoch = epoch
        targets = [unpaired.target_of(k) for k in range(len(unpaired))]
        assert all(unpaired.groups[t] != unpaired.groups[k] for k, t in enumerate(targets))
        seen.add(tuple(targets))
    assert len(seen) == 5

def test_workers_give_the_same_batches(data):
    first = [o.source_points for o in photo_loaders(Paired(data, 'test'), Paired(data, 'test'), bs=2, device='cpu', flip=0).valid]
    other = [o.source_points for o in photo_loaders(Paired(data, 'test'), Paired(data, 'test'), bs=2, device='cpu', flip=0, num_workers=2).valid]
    assert all(torch.equal(a, b) for a, b in zip(first, other)) and len(first) == len(other) == 2

def test_bad_fits_stay_out(data):
    good = data.bodies['good'].clone()
    rows = data.rows('train')
    data.bodies['good'][rows[:4]] = False
    try: assert set(Unpaired(data).rows).isdisjoint(rows[:4]) and len(Unpaired(data)) == len(rows) - 4
    finally: data.bodies['good'].copy_(good)

@pytest.mark.parametrize('side', ['source', 'target'])
def test_mirrored_people_still_fit_together(data, side):
    raw = collate([Paired(data, 'test')[k] for k in range(3)])
    flipped = Batch(raw | flip_person(raw, side, torch.tensor([True, False, True]), 64))
    body = free_body('cpu')
    again = flipped.camera(side).project(body.skeleton(flipped[f'{side}_rotmats'], flipped[f'{side}_betas'])[1])[..., :2]
    known = flipped[f'{side}_points'][..., 2] > 0
    assert (again - flipped[f'{side}_points'][..., :2]).norm(dim=-1)[known].max() < 1.
    assert torch.equal(flipped[f'{side}_points'][1], raw[f'{side}_points'][1])              # the one that wasn't chosen
    assert torch.equal(flipped[f'{side}_image'][0], raw[f'{side}_image'][0].flip(2))
    R = flipped[f'{side}_rotmats']
    assert (torch.linalg.det(R) - 1).abs().max() < 1e-4

def test_mirrored_R_is_the_mirror_image(data):
    raw = collate([Paired(data, 'test')[k] for k in range(2)])
    both = Batch(raw | flip_person(raw, 'source', torch.ones(2, dtype=torch.bool), 64))
    a, b = Draw()(raw), Draw()(both)
    there = lambda o: (o['source_wheel'] > -1).any(1)
    assert (there(a).flip(2) == there(b)).float().mean() > .985
    assert (a['source_heat'].flip(3)[:, 2] - b['source_heat'][:, 5]).abs().max() < .02      # the right shoulder becomes the left one

def test_pairs_are_mirrored_together(data):
    batch = collate([Paired(data, 'test')[k] for k in range(3)])
    out = Flip(1.)(batch)
    assert torch.equal(out.source_image, batch.source_image.flip(3)) and torch.equal(out.target_image, batch.target_image.flip(3))

def test_video_has_one_source_for_each_group(data):
    video = Video(data, 'test')
    assert len(video) == 6 and [a for a, _ in video.frames] == [0 + data.rows('test')[0]]*2 + [data.rows('test')[2]]*2 + [data.rows('test')[4]]*2

def test_draw_takes_the_source_shape(data):
    batch = Draw(torso=False)(collate([Unpaired(data)[0], Unpaired(data)[5]]))
    other = dict(batch) | dict(target_betas=batch['target_betas']*0 + 5)
    other['source_image'] = ((batch['source_image'] + 1)*127.5).byte()
    assert torch.equal(Draw(torso=False)(other)['target_wheel'], batch['target_wheel'])

def test_targets_joints_are_the_sources(data):
    "As `repose` has it; true pairs, and whoever wants no bodies, keep theirs, and what is unknown stays unknown"
    raw = collate([Unpaired(data)[k] for k in range(6)])
    raw['target_points'][0, 4] = 0
    batch, body = Draw()(raw), free_body('cpu')
    moved = batch.camera('target').project(body.skeleton(raw['target_rotmats'], raw['source_betas'])[1])[..., :2]
    known = raw['target_points'][..., 2] > 0
    assert not known[0, 4] and batch['target_points'][0, 4].abs().sum() == 0
    assert (batch['target_points'][..., :2] - moved)[known].abs().max() < 1e-3
    assert (raw['target_points'] - batch['target_points']).abs().max() > .5                  # these people differ
    assert torch.equal(batch['target_heat'], heatmaps(batch['target_points'], (64, 64)))
    assert torch.equal(Draw(retarget=False)(raw)['target_points'], raw['target_points'])
    pairs = collate([Paired(data, 'test')[k] for k in range(2)])
    assert torch.equal(Draw()(pairs)['target_points'], pairs['target_points'])

def test_pool_batches(data):
    pool = Pool(People(64, 'train', device='cpu'), 10)
    steps = PoolSteps(pool, bs=16, steps=4)
    for k in range(4):
        store = steps[k]
        assert len(store) == 16 and not [o for o in store if o.startswith('target') and 'image' in o]
    a, b = steps[0], steps[0]
    assert torch.equal(a.source_points, b.source_points) and not torch.equal(steps[0].source_points, steps[1].source_points)
    loaders = pool_loaders(pool, Paired(data, 'valid'), bs=4, steps=2, renew=0.)
    batch, paired = loaders.train.one_batch(), loaders.valid.one_batch()
    assert set(batch) <= set(paired) and batch.source_image.dtype == torch.float32

def test_pool_targets_wear_other_outfits():
    pool = Pool(People(64, 'train', device='cpu'), 8)
    pool.store['outfits'][:3] = pool.store['outfits'][0]                                     # as if three photos were of one outfit
    by_points = {tuple(p.flatten().tolist()): int(o) for p, o in zip(pool.store['points'], pool.store['outfits'])}
    steps = PoolSteps(pool, bs=64, steps=1)
    batch = steps[0]
    who = lambda side: [by_points[tuple(p.flatten().tolist())] for p in batch[f'{side}_points']]
    assert np.mean([a == b for a, b in zip(who('source'), who('target'))]) < .05

def test_one_line_errors(data, tmp_path, bad_input):
    with pytest.raises(DataError, match='has no pairs in train'): Paired(data, 'train')
    with pytest.raises(DataError, match="there is no split 'holdout'"): Unpaired(data, 'holdout')
    alone = Prepared(prepare(PeoplePhotos(64, train=1, valid=0, test=0), tmp_path/'one'))
    with pytest.raises(DataError, match='fewer than two people'): Unpaired(alone)
