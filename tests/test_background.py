"Behind the person: exact grounds, seeds, batches, edges, searches against the dense one, bad input."
import pytest
import torch
import torch.nn.functional as F

from spice.background import Grid, complete, fill_behind, grow, pyramid, roughness, smooth_fill
from spice.core import DataError

def person(h=96, w=72, top=20, bottom=80, left=25, right=47):
    matte = torch.zeros(1, 1, h, w)
    matte[..., top:bottom, left:right] = 1.
    return matte

def street(h=96, w=72, seed=0):
    random = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.randn(1, 3, h//12, w//12, generator=random), (h, w), mode='bilinear')
    return (.5*coarse + .2*torch.randn(1, 3, h, w, generator=random)).clamp(-1, 1)

@pytest.mark.parametrize('box', [(20, 80, 25, 47), (0, 96, 25, 47), (40, 96, 0, 30), (0, 30, 50, 72)])
def test_smooth_grounds_come_back(box):
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 72), indexing='ij')
    matte = person(96, 72, *box)
    for ground in (torch.full((3, 96, 72), -.4), torch.stack([.4*x, .3*y, .2*x - .5*y])):
        filled = fill_behind(torch.where(matte > 0, 1., ground[None]), matte)
        assert (filled - ground).abs().max() < 2/255

def test_what_is_far_from_the_person_stays():
    photo, matte = street(), person()
    filled = fill_behind(photo, matte)
    away = grow(matte, 3) == 0
    assert torch.equal(filled[away.expand_as(photo)], photo[away.expand_as(photo)])
    assert torch.equal(fill_behind(photo, matte*0), photo)

def test_nothing_of_the_person_is_seen():
    photo, matte = street(), person()
    a, b = (fill_behind(torch.where(matte > 0, colour, photo), matte) for colour in (-1., 1.))
    assert torch.equal(a, b)

def test_same_seed_same_result_and_batches():
    photo, matte = torch.cat([street(seed=k) for k in range(2)]), torch.cat([person(), person(left=5, right=30)])
    both = fill_behind(photo, matte)
    assert torch.equal(both, fill_behind(photo, matte))
    for i in range(2): assert torch.equal(fill_behind(photo[i:i + 1], matte[i:i + 1])[0], both[i])
    assert not torch.equal(fill_behind(photo, matte, seed=1), both)

def test_beyond_the_photo_is_filled_and_never_copied():
    photo, matte, known = street(), person(), torch.ones(1, 1, 96, 72)
    known[..., :10] = 0
    photo[..., :10] = 5.                                # no colour of a photo
    filled = fill_behind(photo, matte, known)
    assert filled.max() <= photo[..., 10:].max() + .2 and filled[..., :10].std() > .01

def test_matchings_are_nearly_those_of_a_dense_search():
    photo, hole = street()[0], person()[0, 0] > 0
    grid = Grid(torch.cat([photo, roughness(photo, ~hole)]), hole, torch.Generator().manual_seed(0))
    for _ in range(12): grid.search()
    dense = torch.cdist(grid.wanted, grid.described[grid.sources]).square().amin(1)
    assert (grid.cost >= dense - 1e-4).all() and grid.cost.mean() < 1.25*dense.mean()
    assert grid.good[grid.near[grid.targets]].all()

def test_stripes_are_continued():
    stripes = torch.where(torch.arange(72) % 8 < 4, -.5, .5).expand(1, 3, 96, 72)
    filled, hole = fill_behind(torch.where(person() > 0, 0., stripes), person()), person() > 0
    error = lambda o: (o - stripes).abs()[hole.expand_as(stripes)].mean()
    assert error(filled) < .2*error(smooth_fill(stripes, ~hole[:, 0]))

def test_few_sources_are_enough():
    photo = street(24, 24)
    assert torch.isfinite(fill_behind(photo, person(24, 24, 5, 20, 5, 20))).all()      # no patch is known: smooth
    assert complete(torch.zeros(5, 8, 8), torch.ones(8, 8).bool()) is None
    assert len(pyramid(torch.zeros(5, 8, 8), torch.ones(8, 8).bool())) == 3

def test_bad_input_is_told_in_one_line():
    with pytest.raises(DataError, match='nothing but the person'): fill_behind(street(), person()*0 + 1)
    with pytest.raises(DataError, match='same size'): fill_behind(street(), person(48, 36, 5, 20, 5, 20))
