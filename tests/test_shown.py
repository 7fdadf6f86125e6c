"""What a photo shows of a body: by the body, and by colours."""
import pytest
import torch
from spice import blazepose
from spice.camera import world_to_view
from spice.core import WeightsError, to_pil
from spice.guided import Guide
from spice.people import People, free_body
from spice.people.poses import pose_rows, settle
from spice.places import Carrier
import spice.infer # noqa: F401
from spice.reposer import Reposer
from spice.shown import (ARM_PARTS, HANDS, MOVERS, arm_odds, around_hands, at_most, believed, colour_counts, colour_numbers,
                         facing_vertices, inside_limbs, limb_masks, near_distance, part_weights, same_part, seen_vertices, shows)
from spice.surface import render_body

@pytest.fixture(scope='module')
def scene():
    body, people = free_body('cpu'), People(256, 'test', poses='everyday', device='cpu')
    photos = people.photos([0, 3, 6, 14])
    return body, photos, (photos.parsing > 0).float()[:, None]

def painted(surface, arm, rest):
    "A photo of a body whose arms and head have one colour and the rest another"
    colour = torch.where(shows(surface, [*ARM_PARTS, list(MOVERS).index('head')])[:, None], torch.tensor(arm).view(1, 3, 1, 1), torch.tensor(rest).view(1, 3, 1, 1))
    return torch.where(surface.mask[:, None], colour, .9), surface.mask[:, None].float()

def moved(rotmats, degrees):
    "Both upper arms turned in the picture, towards the trunk"
    a = torch.tensor(degrees).deg2rad()
    turn = torch.tensor([[a.cos(), -a.sin(), 0], [a.sin(), a.cos(), 0], [0, 0, 1]])
    rotmats = rotmats.clone()
    rotmats[:, 16], rotmats[:, 17] = turn@rotmats[:, 16], turn.mT@rotmats[:, 17]
    return rotmats

def forearm_at(surface):
    "Vertices where the picture shows a forearm"
    at = surface.verts_px.long().clamp(0, 255)
    where = shows(surface, [list(MOVERS).index(f'{o}_forearm') for o in ('left', 'right')])
    return torch.stack([where[b, at[b, :, 1], at[b, :, 0]] for b in range(len(where))])

def test_near_distance_against_loops():
    mask = torch.rand(2, 9, 14) < .05
    mask[:, 4, 4] = True
    cells = torch.stack(torch.meshgrid(torch.arange(9.), torch.arange(14.), indexing='ij'), -1).view(-1, 2)
    for reach in (1, 3, 20):
        found = near_distance(mask, reach)
        for b in range(2):
            away = torch.cdist(cells, cells[mask[b].view(-1)]).amin(1)
            torch.testing.assert_close(found[b].flatten(), torch.where(away <= reach, away, away.clamp(max=reach + 1)).clamp(max=reach + 1))
    assert (near_distance(torch.zeros(1, 5, 5, dtype=torch.bool), 3) == 4).all()

def test_colours_find_the_arm_that_the_fit_misses(scene):
    "Red arms, a blue trunk: the believed vertices of arms that are fitted wrongly lie on red, and those of trunk and legs on blue"
    body, photos, _ = scene
    with torch.no_grad():
        photo, matte = painted(photos.surface, [.7, -.5, -.5], [-.6, -.5, .6])
        fit = render_body(body, moved(photos.rotmats, -8.), photos.betas, photos.camera)
        at = fit.verts_px.long().clamp(0, 255)
        red = torch.stack([photo[b, 0, at[b, :, 1], at[b, :, 0]] for b in range(len(photo))])
        arm, head, on = part_weights(body)[:, ARM_PARTS].sum(1), part_weights(body)[:, list(MOVERS).index('head')], torch.stack([matte[b, 0, at[b, :, 1], at[b, :, 0]] > .5 for b in range(len(photo))])
        share = lambda seen, part, right: float((right & on)[:, part][seen[:, part] > .5].float().mean()/on[:, part][seen[:, part] > .5].float().mean())
        alone, seen = seen_vertices(fit), believed(fit, arm_odds(photo, matte, fit))[0]
    assert share(alone, arm > .9, red > 0) < .8
    assert share(seen, arm > .9, red > 0) > .95
    assert share(seen, arm + head < .1, red < 0) > .98

def test_a_hidden_arm_is_not_believed_and_the_trunk_behind_it_is(scene):
    "Both forearms lie on the belly in the fit, but behind the back in the photo, which is of one colour"
    body, photos, _ = scene
    with torch.no_grad():
        crossed = world_to_view(settle(pose_rows(['arms_crossed']*4), body, photos.betas)[0])
        fit = render_body(body, crossed, photos.betas, photos.camera)
        photo, matte = painted(fit, [.2, .2, -.2], [.2, .2, -.2])
        known, hidden = (believed(fit, arm_odds(photo, matte, fit, o))[0] for o in (None, torch.ones(4, 2, dtype=torch.bool)))
    weights = part_weights(body)
    hands, forearms = weights[:, HANDS].sum(1) > .9, weights[:, [list(MOVERS).index(f'{o}_forearm') for o in ('left', 'right')]].sum(1) > .9
    seen = seen_vertices(fit)[:, forearms] > .5
    assert (known[:, forearms] > .5)[seen].float().mean() > .7
    behind = (same_part(fit) < .5) & (facing_vertices(fit) > .9) & (weights[:, [0, 1]].sum(1) > .95) & forearm_at(fit)
    assert behind.sum() > 100 and (known > .5)[behind].float().mean() < .2 and (hidden > .5)[behind].float().mean() > .8
    for part in (hands, forearms): assert not (hidden[:, part] > .5).any()

def test_one_colour_changes_nothing_far_from_the_outline(scene):
    "Where colours say nothing, the middle of the fitted arm stays an arm, and what is far from it stays none"
    body, photos, _ = scene
    with torch.no_grad():
        photo, matte = painted(photos.surface, [0., 0., 0.], [0., 0., 0.])
        odds = arm_odds(photo, matte, photos.surface)[:, 0]
        deep = inside_limbs(photos.surface, (256, 256)).amax(1)
    on = photos.surface.mask
    assert (odds > 0)[on & (deep > .015)].float().mean() > .95 and (odds < 0)[on & (deep < -.04)].float().mean() > .99

def test_a_batch_is_its_photos_one_by_one(scene):
    body, photos, matte = scene
    with torch.no_grad():
        both = arm_odds(photos.image, matte, photos.surface)
        for k in (0, 2):
            one = slice(k, k + 1)
            alone = arm_odds(photos.image[one], matte[one], render_body(body, photos.rotmats[one], photos.betas[one], photos.camera[one]))
            assert ((alone - both[one]).abs() < .05).float().mean() > .995

def test_sizes(scene):
    "A large photo is looked at in 512 pixels; a wide one keeps its shape; numbers stay in range"
    body, photos, matte = scene
    assert at_most((1024, 512), 512) == (512, 256) and at_most((100, 30), 512) == (100, 30) and at_most((3000, 2), 512)[1] == 1
    with torch.no_grad():
        large = render_body(body, photos.rotmats[:1], photos.betas[:1], photos.camera[:1], size=1024)
        odds, small = arm_odds(photos.image[:1], matte[:1], large), arm_odds(photos.image, matte, photos.surface)[:1]
    assert odds.shape == (1, 2, 512, 512)
    on = matte[0, 0] > .9
    again = torch.nn.functional.interpolate(odds, (256, 256), mode='bilinear')
    assert ((again[0, 0] > 0) == (small[0, 0] > 0))[on].float().mean() > .97
    numbers = colour_numbers(torch.tensor([-1., 1, 0, 5]).view(4, 1, 1, 1).expand(4, 3, 2, 2))
    assert numbers.min() >= 0 and numbers.max() < 864
    assert torch.isfinite(colour_counts(numbers, torch.zeros(4, 2, 2, dtype=torch.bool)).log()).all()

def test_hands_take_the_face_s_colour_if_they_are_hidden(scene):
    body, photos, matte = scene
    with torch.no_grad():
        face = shows(photos.surface, [list(MOVERS).index('head')])
        photo = torch.where(face[:, None], torch.tensor([.6, .2, .0]).view(1, 3, 1, 1), torch.tensor([-.7, -.7, -.7]).view(1, 3, 1, 1)).expand_as(photos.image)
        hidden = torch.ones(4, 2, dtype=torch.bool)
        colours = Guide(photo.contiguous(), matte, photos.surface, hidden=hidden).colours
    assert (colours[:, 3:5, 0] > .2).all(), 'hands are as light as the face'
    assert (colours[:, 15:19, 0] < -.4).all(), 'the sleeves are not'

def test_carrier_and_guide_pass_it_on(scene):
    body, photos, matte = scene
    left = torch.tensor([[True, False]]*4)
    with torch.no_grad():
        carrier, guide = Carrier(photos.image, matte, photos.surface, hidden=left), Guide(photos.image, matte, photos.surface, hidden=left)
    hand = part_weights(body)[:, HANDS]
    for o in (carrier, guide.carrier):
        assert not (o.table[:, 0, hand[:, 0] > .9, 2] > .5).any() and (o.table[:, 0, hand[:, 1] > .9, 2] > .5).any()
    assert not limb_masks(photos.surface, left)[:, 2][shows(photos.surface, HANDS[:1])].any()
    near = around_hands(photos.surface)
    assert near.any() and not near[:, hand.sum(1) > .9].any(), 'what lies near hands is no hand'

def test_a_wrist_that_blazepose_does_not_see_hides_the_hand(monkeypatch):
    "From the detector to the picture"
    photo = to_pil(People(256, 'test', poses='everyday', device='cpu').photos([0]).image)[0]
    try: blazepose.find_networks(fetch=False)
    except WeightsError as e: pytest.skip(str(e))
    tool = Reposer(device='cpu')
    seen = tool.see(photo, person='largest')
    assert seen.hidden.shape == (1, 2)
    old = blazepose.read_person
    def blind(*args, **kwargs):
        person = old(*args, **kwargs)
        if person is not None: person.visible[15] = .2
        return person
    monkeypatch.setattr(blazepose, 'read_person', blind)
    tool.forget()
    again = tool.see(photo, person='largest')
    assert bool(again.hidden[0, 0]) and tool.portrait(again).at(256).full.carrier.table[0, 0, part_weights(tool.body)[:, HANDS[0]] > .9, 2].max() <= .5
