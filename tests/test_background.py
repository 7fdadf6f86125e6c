"Behind the person: plain grounds, what is never looked at, batches, edges, what lies beyond them, sharpness, small and bad input."
import pytest
import torch
import torch.nn.functional as F

from spice.background import HOLE_RIM, complete, fill_behind, mirror_beyond, part_of, without_step
from spice.core import DataError
from spice.places import grow

def person(h=96, w=72, top=20, bottom=80, left=25, right=47):
    matte = torch.zeros(1, 1, h, w)
    matte[..., top:bottom, left:right] = 1
    return matte

def street(h=96, w=72, seed=0):
    random = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.randn(1, 3, h//12, w//12, generator=random), (h, w), mode='bilinear')
    return (.5*coarse + .2*torch.randn(1, 3, h, w, generator=random)).clamp(-1, 1)

@pytest.mark.parametrize('box', [(20, 80, 25, 47), (0, 96, 25, 47), (40, 96, 0, 30), (0, 30, 50, 72)])
@pytest.mark.parametrize('size', [1, 5])
def test_smooth_grounds_come_back(box, size):
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96*size), torch.linspace(-1, 1, 72*size), indexing='ij')
    matte = F.interpolate(person(96, 72, *box), scale_factor=size)
    for ground in (torch.full_like(matte[0], -.4).expand(3, -1, -1), torch.stack([.4*x, .3*y, .2*x - .5*y])):
        filled = fill_behind(torch.where(matte > 0, 1., ground[None]), matte)
        assert (filled - ground).abs().max() < 1/255

def test_a_step_at_the_edge_goes():
    matte, wall = person(), street()*.2
    part = part_of(wall[0], matte[0, 0])
    box, hole = part.box, part.hole > 0
    cut, none = lambda o: o[0][:, box[0], box[1]], torch.zeros_like(part.copy)
    lighter = torch.where(hole, cut(wall) + .3, cut(wall))
    evened = without_step(part, lighter, none)
    assert (evened - cut(wall)).abs().mean(0)[hole].mean() < .1 < (lighter - cut(wall)).abs().mean(0)[hole].mean()
    assert torch.equal(without_step(part, cut(wall), none), cut(wall))                   # no step, no change

def test_a_fringe_or_the_end_of_a_thing_is_no_step():
    matte, wall = person(), street()*.2
    fringe = grow(matte[0], 2)[None] > 0
    bar = torch.zeros_like(matte)
    bar[..., 80 + HOLE_RIM:, :] = 1                                                      # just below the hole
    for photo in (torch.where(fringe, -1., wall), torch.where(bar > 0, 1., wall)):
        part = part_of(photo[0], matte[0, 0])
        clean = wall[0][:, part.box[0], part.box[1]]
        changed = (without_step(part, clean, torch.zeros_like(part.copy)) - clean).abs().amax(0)
        assert changed[part.hole > 0].mean() < .05

def test_what_is_far_from_the_person_stays():
    photo, matte = street(), person()
    far = grow(matte[0], HOLE_RIM)[0] == 0
    assert torch.equal(fill_behind(photo, matte)[..., far], photo[..., far])
    assert torch.equal(fill_behind(photo, matte*0), photo)

def test_the_person_is_never_looked_at():
    photo, matte = street(), person()
    black, white = (fill_behind(torch.where(matte > 0, colour, photo), matte) for colour in (-1., 1.))
    assert torch.equal(black, white)

def test_other_people_stay_and_are_not_copied():
    photo, matte, others = street().clamp(-.6, .6), person(), person(left=47, right=60)
    red = torch.tensor([1., -1, -1]).view(1, 3, 1, 1)
    photo = torch.where(others > 0, red, photo)
    copied = lambda made: int(((made - red).abs().amax(1, keepdim=True)[matte > 0] < .3).sum())
    made = fill_behind(photo, matte, others)
    assert copied(fill_behind(photo, matte)) > 50 and copied(made) == 0
    stays = (others > 0) & (grow(matte[0], 1)[None] == 0)                                # but for a pixel where they touch
    assert torch.equal(made[stays.expand_as(made)], photo[stays.expand_as(made)])
    assert torch.equal(fill_behind(photo, matte, others*0), fill_behind(photo, matte))
    with pytest.raises(DataError, match='`others` is'): fill_behind(photo, matte, others[..., 1:])
    everywhere = fill_behind(photo, matte, 1 - matte)                                    # nothing may be copied
    assert everywhere.isfinite().all() and torch.equal(everywhere[..., 60:], photo[..., 60:])

def test_same_again_and_in_batches():
    photos, mattes = torch.cat([street(seed=seed) for seed in range(2)]), torch.cat([person(), person(left=5, right=30)])
    before = photos.clone()
    both = fill_behind(photos, mattes)
    torch.rand(3)
    assert torch.equal(both, fill_behind(photos, mattes)) and torch.equal(photos, before)
    for i in range(2): assert torch.equal(fill_behind(photos[i:i + 1], mattes[i:i + 1])[0], both[i])

def test_chance_outside_is_left_alone():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    fill_behind(street(), person())
    assert torch.equal(torch.rand(3), wanted)

def test_beyond_the_photo_is_its_mirror_image():
    photo = F.interpolate(street(), scale_factor=5)
    unknown = photo.clone()
    unknown[..., :50] = unknown[..., 450:, :] = torch.nan
    made = mirror_beyond(unknown, (50, 0, 360, 450))
    assert torch.equal(made[..., :450, 50:], photo[..., :450, 50:]) and made.isfinite().all() and made.abs().max() <= 1
    assert (made[..., :450, 49] - photo[..., :450, 50]).abs().max() < .05
    rough = [float(made[..., 100:400, a:a + 10].diff(dim=-2).abs().mean()) for a in (50, 25, 0)]
    assert rough[0] > rough[1] > rough[2]

def test_beyond_a_sliver():
    plain = torch.full((1, 3, 40, 50), .25)
    assert mirror_beyond(plain, (0, 0, 50, 40)) is plain
    torch.testing.assert_close(mirror_beyond(plain, (20, 5, 21, 30)), plain) # mirrored again and again
    with pytest.raises(DataError, match='nothing of the picture is in'): mirror_beyond(plain, (20, 5, 20, 30))

def test_stripes_are_continued():
    stripes = torch.where(torch.arange(72) % 8 < 4, -.5, .5).expand(1, 3, 96, 72)
    filled = fill_behind(torch.where(person() > 0, 0., stripes), person())
    assert (filled - stripes).abs()[..., 20:80, 25:47].mean() < .05 # a smooth fill is off by .5

def test_a_large_photo_stays_sharp():
    grain = .3*torch.randn(1, 3, 1200, 900, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    filled = fill_behind(grain, F.interpolate(person(), (1200, 900)))[..., 300:950, 330:560]
    steps = lambda picture: float((picture[..., 1:] - picture[..., :-1]).std())
    assert steps(filled) > .8*steps(grain)

@pytest.mark.parametrize('size', [(24, 24), (9, 40), (60, 13)])
def test_small_photos(size):
    h, w = size
    matte = person(h, w, h//4, h - 1, w//4, w//2 + 1)
    filled = fill_behind(torch.full((1, 3, h, w), .25), matte)
    assert torch.isfinite(filled).all()

def test_no_whole_patch_gives_nothing():
    assert complete(torch.zeros(3, 8, 8), torch.eye(8)) is None

def test_nothing_but_the_person_is_told_in_one_line():
    with pytest.raises(DataError, match='no background') as told: fill_behind(street(), person()*0 + 1)
    assert '\n' not in str(told.value)
    with pytest.raises(DataError, match='no background'): fill_behind(torch.zeros(1, 3, 5, 5), person(5, 5, 1, 4, 1, 3)) # the rim covers the rest
