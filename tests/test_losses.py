"Losses against slow forms written anew, gradients in 64 bits, precision, and bad input"
import importlib
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import roma
import torch
import torch.nn.functional as F

from spice.consistency import Appearance, bounding_boxes, crops, dense_part_masks, pose_loss, shape_loss, torso_masks, turn_between, turn_weight
from spice.core import SpiceError
from spice.discriminator import Discriminator, discriminator_settings
from spice.features import load_features
from spice.loaders import Batch
from spice.losses import (CONTENT, GAN_FORMS, STYLE, Adversarial, Correctness, affine_regularisation, correctness, critic_loss, cycle_terms, end_point_error,
                          flow_terms, gaussian_warp, generator_loss, gram, largest_cosine, perceptual, pixel, style, true_flow)
from spice.systems.dpt import gram_norms, norms, root_squares
from spice.objective import SpiceLoss, Terms, spice_weights
from spice.systems.parsing import semantic_style, weighted_cross_entropy
from spice.people import People, free_body
from spice.systems.upis import content, patch_style, region_grams, squares

torch.set_num_threads(1)
gradcheck = torch.autograd.gradcheck
double = lambda *shape: torch.randn(*shape, dtype=torch.float64)
FEATURES = load_features('random', width=4).double()

def learn(x): return x.clone().requires_grad_()
def noise(*shape): return learn(double(*shape))

# gradients, in 64 bits, at smooth points

@pytest.mark.parametrize('loss', [pixel, squares, root_squares, lambda a, b: pixel(a, b, MASK), lambda a, b: pixel(gram(a), gram(b))])
def test_gradients_of_distances(loss): assert gradcheck(lambda x: loss(x, OTHER), noise(2, 3, 4, 5))
MASK = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(8))
OTHER = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(9))

@pytest.mark.parametrize('loss', [perceptual, style, norms, gram_norms, lambda a, b: content(a, b, CONTENT)])
def test_gradients_through_features(loss):
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    wanted = FEATURES(torch.rand(1, 3, 16, 16, dtype=torch.float64), (*CONTENT, *STYLE))
    assert gradcheck(lambda o: loss(FEATURES(o, (*CONTENT, *STYLE)), wanted), learn(x), eps=1e-7, atol=1e-4, fast_mode=True)

@pytest.mark.parametrize('form', GAN_FORMS)
def test_gradients_of_adversarial(form):
    assert gradcheck(lambda a, b: critic_loss(a, b, form), (noise(2, 1, 3, 3), noise(2, 1, 3, 3)))
    assert gradcheck(lambda a: generator_loss(a, form), noise(2, 1, 3, 3))

@pytest.mark.parametrize('sampling', ['gaussian', 'bilinear'])
def test_gradients_of_correctness(sampling):
    s, t, flow = double(2, 3, 4, 5), double(2, 3, 4, 5), double(2, 2, 4, 5)*1.3
    mask = torch.rand(2, 4, 5) > .3
    assert gradcheck(lambda o: correctness(o, s, t, sampling=sampling), learn(flow))
    assert gradcheck(lambda o: correctness(o, s, t, mask=mask, sampling=sampling), learn(flow))

@pytest.mark.parametrize('k', [3, 5])
def test_gradients_of_flow_terms(k):
    assert gradcheck(lambda o: affine_regularisation(o, k), noise(1, 2, 7, 6))
    wanted, mask = double(1, 2, 4, 4), torch.rand(1, 4, 4) > .4
    assert gradcheck(lambda o: end_point_error(o, wanted, mask), noise(1, 2, 4, 4))
    flow, seen = double(1, 2, 8, 8), torch.randint(0, 3, (1, 8, 8))
    assert gradcheck(lambda o: true_flow([o], flow, seen), noise(1, 2, 4, 4))

def test_gradients_of_regions():
    s, heat, other = double(2, 3, 4, 4), torch.rand(2, 5, 8, 8, dtype=torch.float64), torch.rand(2, 5, 8, 8, dtype=torch.float64)
    assert gradcheck(lambda o: patch_style(o, s, heat, other), noise(2, 3, 4, 4))
    assert gradcheck(lambda o: semantic_style(o, s, heat, other), noise(2, 3, 4, 4))
    assert gradcheck(lambda o, h: region_grams(o, h), (noise(1, 2, 3, 3), learn(torch.rand(1, 2, 3, 3, dtype=torch.float64))))
    labels = torch.randint(0, 4, (2, 3, 3))
    assert gradcheck(lambda o: weighted_cross_entropy(o, labels, labels > 0), noise(2, 4, 3, 3))

def test_gradients_of_the_body():
    assert gradcheck(lambda o: pose_loss(o, TURNS), noise(1, 24, 3, 3))
    assert gradcheck(lambda o: shape_loss(o, torch.zeros(2, 10, dtype=torch.float64)), noise(2, 10))
TURNS = torch.eye(3, dtype=torch.float64).expand(1, 24, 3, 3)

def squares_of(b, h, w):
    "Two masks a picture, of different places"
    masks = torch.zeros(b, 2, h, w, dtype=torch.bool)
    for i in range(b):
        masks[i, 0, 3 + i:h//2, 4:w - 3 - i] = True
        masks[i, 1, h//2:h - 2, 5 + i:w - 4] = True
    return masks

def test_gradients_of_appearance():
    look = Appearance(FEATURES, size=16, least=.01)
    source, masks = torch.rand(2, 3, 16, 16, dtype=torch.float64), squares_of(2, 16, 16)
    made, degrees = torch.rand(2, 3, 16, 16, dtype=torch.float64), torch.tensor([5., 30.])
    for name in ('content', 'style'):
        assert gradcheck(lambda o: look(o, source, masks, squares_of(2, 16, 16).flip(3), degrees)[name], learn(made), eps=1e-7, atol=1e-4, fast_mode=True)

# against forms written another way

def slow_correctness(flow, source, target):
    "Sampling correctness, place by place"
    b, c, h, w = source.shape
    total = 0.
    for i in range(b):
        for y in range(h):
            for x in range(w):
                t = target[i, :, y, x]
                px, py, value, weights = x + float(flow[i, 0, y, x]), y + float(flow[i, 1, y, x]), 0, 0
                for dy in range(-1, 3):
                    for dx in range(-1, 3):
                        qx, qy = math.floor(px) + dx, math.floor(py) + dy
                        weight = math.exp(-((px - qx)**2 + (py - qy)**2)/8)
                        value, weights = value + weight*source[i, :, min(max(qy, 0), h - 1), min(max(qx, 0), w - 1)], weights + weight
                cos = float(F.cosine_similarity(value/weights, t, dim=0))
                best = float(F.cosine_similarity(source[i].flatten(1), t[:, None], dim=0).max())
                total += math.exp(-cos/(best + 1e-8)) - math.exp(-1)
    return total/(b*h*w)

def test_correctness_is_the_slow_one():
    s, t, flow = double(2, 6, 7, 5).abs(), double(2, 6, 7, 5).abs(), double(2, 2, 7, 5)*4
    assert float(correctness(flow, s, t)) == pytest.approx(slow_correctness(flow, s, t), abs=1e-9)
    assert abs(float(correctness(flow.float(), s.float(), t.float())) - slow_correctness(flow, s, t)) < 1e-5

def direct_correctness(flow, s, t):
    "The whole table at once, nothing computed twice"
    table = torch.einsum('bcn,bcm->bnm', F.normalize(s.flatten(2), dim=1), F.normalize(t.flatten(2), dim=1))
    cosine = F.cosine_similarity(gaussian_warp(s, flow), t, dim=1)
    return (torch.exp(-cosine/(table.amax(1).view_as(cosine) + 1e-8)) - math.exp(-1)).mean()

def test_blocks_change_neither_value_nor_gradient():
    s, t = torch.rand(3, 8, 40, 30), torch.rand(3, 8, 40, 30)
    flow = learn(torch.randn(3, 2, 40, 30)*5)
    a, b = correctness(flow, s, t), direct_correctness(flow, s, t)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    torch.testing.assert_close(*(torch.autograd.grad(o, flow)[0] for o in (a, b)), rtol=1e-3, atol=1e-8)
    for block in (1, 7, 5000): torch.testing.assert_close(largest_cosine(s, t, block), largest_cosine(s, t), rtol=0, atol=1e-5)

def test_correctness_keeps_no_table():
    "Nothing as large as places x places is saved for the way back"
    s, t, flow = torch.rand(2, 4, 24, 24), torch.rand(2, 4, 24, 24), learn(torch.zeros(2, 2, 24, 24))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda o: (saved.append(o.numel()), o)[1], lambda o: o): correctness(flow, s, t)
    assert sum(saved) < 10*s.numel()

def test_affine_is_the_least_squares_fit():
    flow, k = double(2, 2, 9, 8), 3
    total, count = 0., 0
    A = torch.tensor([[x, y, 1.] for y in range(k) for x in range(k)], dtype=torch.float64)
    for i in range(2):
        for top in range(9 - k + 1):
            for left in range(8 - k + 1):
                y, x = torch.meshgrid(torch.arange(k)*1., torch.arange(k)*1., indexing='ij')
                place = torch.stack([x + flow[i, 0, top:top + k, left:left + k], y + flow[i, 1, top:top + k, left:left + k]]).flatten(1).T
                fit = torch.linalg.lstsq(A, place).solution
                total, count = total + float((place - A@fit).square().sum()), count + 1
    assert float(affine_regularisation(flow, k)) == pytest.approx(total/count, rel=1e-9)

def test_affine_flows_cost_nothing_however_large():
    y, x = torch.meshgrid(torch.arange(64.), torch.arange(64.), indexing='ij')
    assert affine_regularisation(torch.stack([100 + x - 2*y, 3*y - x])[None], 5) < 1e-4

def test_gram_and_regions_by_loops():
    x, heat = double(2, 3, 4, 5), torch.rand(2, 2, 4, 5, dtype=torch.float64)
    for b in range(2):
        for c in range(3):
            for d in range(3):
                assert float(gram(x)[b, c, d]) == pytest.approx(float((x[b, c]*x[b, d]).sum()/60))
                assert float(region_grams(x, heat)[b, 1, c, d]) == pytest.approx(float((heat[b, 1]**2*x[b, c]*x[b, d]).sum()/60))

def test_adversarial_is_binary_cross_entropy():
    real, fake = torch.randn(4, 1, 5, 5), torch.randn(4, 1, 5, 5)
    ce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(critic_loss(real, fake), ce(real, torch.ones_like(real)) + ce(fake, torch.zeros_like(fake)))
    torch.testing.assert_close(generator_loss(fake), ce(fake, torch.ones_like(fake)))
    torch.testing.assert_close(generator_loss(fake, 'minimax'), torch.log(1 - fake.sigmoid()).mean())
    torch.testing.assert_close(critic_loss(real, fake, 'squares'), (F.mse_loss(real, torch.ones_like(real)) + F.mse_loss(fake, torch.zeros_like(fake)))/2)

def test_turn_is_romas_angle():
    a, b = roma.random_rotmat(200), roma.random_rotmat(200)
    torch.testing.assert_close(turn_between(a, b), torch.rad2deg(roma.rotmat_geodesic_distance(a, b)), rtol=1e-4, atol=1e-2)
    assert turn_between(a, a).max() < .05 and float(turn_between(a.double(), a.double()).max()) < 1e-4

def test_boxes_by_nonzero():
    masks = torch.rand(6, 12, 9) > .93
    masks[2] = False
    for mask, box in zip(masks, bounding_boxes(masks).tolist()):
        ys, xs = mask.nonzero().T if mask.any() else (torch.tensor([0, 11]), torch.tensor([0, 8]))
        assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]

def test_crop_of_its_own_size_is_the_picture():
    image, mask = torch.rand(1, 3, 20, 20), torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, 4:12, 6:14] = True
    p, m = crops(image, mask, torch.tensor([0]), 8)
    # sampled twice a pixel and side, a quarter beside the centre: compare with the same mean, away from the border of the mask
    wide = F.pad(image*mask[:, None], (1, 1, 1, 1))
    kernel = torch.tensor([.125, .75, .125])
    blurred = F.conv2d(wide, (kernel[:, None]*kernel).expand(3, 1, 3, 3), groups=3)[..., 4:12, 6:14]
    torch.testing.assert_close(p, blurred, rtol=1e-4, atol=1e-5)

# limits

@pytest.mark.parametrize('shape', [(2, 3, 32, 32), (1, 3, 48, 32)])
def test_everything_is_zero_for_the_truth(shape):
    features, x = load_features('random', width=4), torch.rand(shape)*2 - 1
    assert all(float(v) == 0 for v in cycle_terms(features, x, x).values())
    masks = squares_of(*shape[:1], *shape[2:])
    assert all(float(v.abs().max()) == 0 for v in Appearance(features, 32, .01)(x, x, masks, masks, torch.zeros(len(x))).values())
    heat = torch.rand(shape[0], 4, *shape[2:])
    assert float(patch_style(x, x, heat, heat)) == 0 == float(semantic_style(x, x, heat, heat))

@pytest.mark.parametrize('which', ['empty', 'one pixel', 'too far', 'both'])
def test_appearance_of_nothing(which):
    look, masks = Appearance(load_features('random', width=4), 16), squares_of(2, 32, 32)
    if which != 'too far': masks = masks & False
    if which == 'one pixel': masks[:, :, 5, 5] = True
    degrees = torch.tensor([60., 180.]) if which in ('too far', 'both') else torch.zeros(2)
    made = learn(torch.rand(2, 3, 32, 32))
    terms = look(made, torch.rand(2, 3, 32, 32), masks, squares_of(2, 32, 32), degrees)
    total = sum(o.sum() for o in terms.values())
    total.backward()
    assert total.item() == 0 and torch.equal(made.grad, torch.zeros_like(made))

def test_each_picture_has_its_own_weight():
    look, source, made = Appearance(load_features('random', width=4), 16), torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32)
    masks = squares_of(3, 32, 32)
    plain = look(made, source, masks, masks, torch.zeros(3))['style']
    turned = look(made, source, masks, masks, torch.tensor([10., 45., 100.]))['style']
    torch.testing.assert_close(turned, plain*torch.tensor([1, .01, 0]), rtol=1e-4, atol=1e-9)
    alone = look(made[1:2], source[1:2], masks[1:2], masks[1:2], torch.zeros(1))['style']
    torch.testing.assert_close(alone, plain[1:2], rtol=1e-4, atol=1e-8)

def test_appearance_sees_only_the_masks():
    look, source, made, masks = Appearance(load_features('random', width=4), 16), torch.rand(1, 3, 32, 32), learn(torch.rand(1, 3, 32, 32)), squares_of(1, 32, 32)
    look(made, source, masks, masks, torch.zeros(1))['content'].sum().backward()
    assert made.grad[0][:, ~masks[0].any(0)].abs().max() == 0 and made.grad[0][:, masks[0].any(0)].abs().max() > 0

def test_masks_at_the_target_use_its_camera():
    source, target = People(64, 'valid', yaw=20., samples=1, device='cpu').pairs([0, 1])
    body = free_body('cpu')
    assert torch.equal(torso_masks(body, target.rotmats, source.betas, target.camera), target.surface.torso)
    assert not torch.equal(torso_masks(body, target.rotmats, source.betas, source.camera), target.surface.torso)
    parts = dense_part_masks(body, source.rotmats, source.betas, source.camera)
    assert torch.equal(parts.any(1), source.surface.mask) and int(parts.sum(1).max()) == 1
    assert torch.equal(parts[:, 1], source.surface.torso[:, 0])

def test_turn_weight_steps():
    degrees = torch.tensor([0, 19.999, 20, 39.999, 40, 59.999, 60, 180.])
    torch.testing.assert_close(turn_weight(degrees), torch.tensor([1, 1, .1, .1, .01, .01, 0, 0]))

def test_flow_both_ways():
    features = load_features('random', width=4)
    check, R, S = Correctness(features), torch.rand(2, 3, 64, 64)*2 - 1, torch.rand(2, 3, 64, 64)*2 - 1
    there, back = ([torch.randn(2, 2, n, n) for n in (8, 16)] for _ in range(2))
    terms = flow_terms(check, there, back, R, S)
    torch.testing.assert_close(terms['correct'], check(there, R, S) + check(back, S, R))
    torch.testing.assert_close(terms['regular'], sum(affine_regularisation(o, k) for f in (there, back) for o, k in zip(f, (3, 5))))
    assert check.layers(there, (64, 64)) == ['relu4_1', 'relu3_1']
    moved = [torch.zeros(2, 2, n, n) for n in (8, 16)]
    assert float(Correctness(features, 'bilinear')(moved, R, R)) < 1e-5                    # no motion between a picture and itself

# precision

def test_sums_in_32_bits_under_autocast():
    x, y = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    wanted = {'pixel': pixel(x, y), 'gram': gram(x), 'regions': region_grams(x, y), 'squares': squares(x, y), 'affine': affine_regularisation(x[:, :2]),
              'best': largest_cosine(x, y), 'correct': correctness(x[:, :2], x, y), 'epe': end_point_error(x[:, :2], y[:, :2]), 'critic': critic_loss(x, y),
              'turn': turn_between(x[:, 0, :3, :3], y[:, 0, :3, :3])}
    with torch.autocast('cpu', torch.bfloat16):
        found = {'pixel': pixel(x, y), 'gram': gram(x), 'regions': region_grams(x, y), 'squares': squares(x, y), 'affine': affine_regularisation(x[:, :2]),
                 'best': largest_cosine(x, y), 'correct': correctness(x[:, :2], x, y), 'epe': end_point_error(x[:, :2], y[:, :2]), 'critic': critic_loss(x, y),
                 'turn': turn_between(x[:, 0, :3, :3], y[:, 0, :3, :3])}
    for k, v in wanted.items(): assert found[k].dtype == torch.float32 and torch.equal(found[k], v), k
    for f in (pixel, squares): assert f(x.bfloat16(), y.bfloat16()).dtype == torch.float32
    many = torch.full((1 << 20,), .001)
    assert float(pixel(many.bfloat16(), torch.zeros(1 << 20).bfloat16())) == pytest.approx(float(many[0].bfloat16()), rel=1e-4)

def test_whole_loss_under_autocast():
    loss, batch, made = objective()
    plain = loss.for_generator(*batch)
    with torch.autocast('cpu', torch.bfloat16):
        low = loss.for_generator(*batch)
        low.total.backward()
    assert all(v.dtype == torch.float32 for v in low.values()) and torch.isfinite(made.grad).all()
    for k, v in plain.items(): assert float(low[k]) == pytest.approx(float(v), rel=.1, abs=.02), k

# the whole

class Regressor(torch.nn.Module):
    "f_3D of a few numbers"
    def __init__(self):
        super().__init__()
        self.rot, self.shape = torch.nn.Linear(3, 144), torch.nn.Linear(3, 10)
    def forward(self, images):
        mean = images.mean((2, 3))
        return SimpleNamespace(rotmats=roma.special_gramschmidt(self.rot(mean).view(-1, 24, 3, 2)), betas=self.shape(mean))

def objective(size=64, **weights):
    "A loss, its arguments, and the picture with gradient"
    torch.manual_seed(1)
    source, target = People(size, 'valid', yaw=15., samples=1, device='cpu').pairs([0, 1])
    camera = lambda side, o: {f'{side}_{k}': getattr(o, k) for k in ('focal', 'center', 'translation')}
    batch = Batch(source_image=source.image, source_wheel=source.wheel, target_wheel=target.wheel, source_torso=source.surface.torso, target_torso=target.surface.torso,
                  source_rotmats=source.rotmats, target_rotmats=target.rotmats, source_betas=source.betas, **camera('source', source.camera), **camera('target', target.camera))
    made, flows = learn(target.image), [[learn(torch.randn(2, 2, n, n)) for n in (size//8, size//4)] for _ in range(2)]
    loss = SpiceLoss(load_features('random', width=4), Discriminator('narrow64').eval(), Regressor(), spice_weights(**weights), body=free_body('cpu'), crop=32)
    return loss, (batch, made, made.roll(1, 0)*.9, *flows), made

def test_every_term_reaches_the_picture_or_the_flow():
    loss, arguments, made = objective(true_flow=1., parts=1., own=1., wheels=1., masks=1., ground=1.)
    masks = [learn(torch.rand(2, 1, n, n)) for n in (8, 16)]
    terms = loss.for_generator(*arguments, own=made*.8, masks=masks)
    assert set(terms) == set(loss.weights.terms)
    for name, value in terms.items():
        inputs = masks if name == 'masks' else arguments[3] if name in ('correct', 'regular', 'true_flow', 'wheels', 'ground') else [made]
        assert any(o is not None and o.abs().sum() > 0 for o in torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)), name
    assert float(terms.total) == pytest.approx(sum(loss.weights.terms[k]*float(v) for k, v in terms.items()), rel=1e-5)
    assert terms.log()['total'] == pytest.approx(float(terms.total), rel=1e-5)

@pytest.mark.parametrize('off, gone', [('cycle', {'percep', 'style', 'pix'}), ('flow', {'correct', 'regular'}), ('adv', {'adv'}), ('theta', {'theta'}), ('beta', {'beta'}),
                                       ('app', {'app_content', 'app_style'}), ('a2', {'app_style'}), ('style', {'style'}), ('regular', {'regular'})])
def test_any_term_can_be_off(off, gone):
    loss, arguments, _ = objective()
    everything = {k for k, v in spice_weights().terms.items() if v}
    loss = SpiceLoss(loss.features, loss.critic, loss.regressor, spice_weights(**{off: 0.}))
    assert set(loss.for_generator(*arguments)) == everything - gone

def test_papers_weights():
    assert spice_weights().terms == dict(percep=.5, style=500, pix=5, correct=5, regular=.0025, adv=1, theta=2.16, beta=.1, app_content=.01, app_style=10,
                                         true_flow=0, parts_content=0, parts_style=0, own_percep=0, own_style=0, own_pix=0, wheels=0, masks=0, ground=0)
    means = spice_weights('paper-means').terms
    assert {k: v for k, v in means.items() if v != spice_weights().terms[k]} == dict(theta=.01, beta=.01)
    own = spice_weights('copy', own=2.).terms                                    # as Eq. (3), times its weight; the flow's terms stay
    assert {k: v for k, v in own.items() if v} == dict(own_percep=1., own_style=1000., own_pix=10., correct=5., regular=.0025)

def test_bodies_are_exact_in_16_bits():
    "Under autocast a body would be off by pixels"
    loss, (batch, _, _, flows, _), _ = objective(true_flow=1., wheels=1., masks=1., ground=1., adv=0., theta=0., beta=0., app=0.)
    flows, masks = [[o.detach() for o in flows], [torch.rand(2, 1, n, n) for n in (8, 16)]]
    exact = loss.beyond_terms(batch, None, flows, masks)
    with torch.autocast('cpu', torch.bfloat16): half = loss.beyond_terms(batch, None, flows, masks)
    assert set(exact) == {'true_flow', 'wheels', 'masks', 'ground'} and {k: float(v) for k, v in half.items()} == {k: float(v) for k, v in exact.items()}

def test_own_pose_is_the_cycles_terms_on_another_picture():
    loss, (batch, made, again, *_), _ = objective()
    own = SpiceLoss(loss.features, weights=spice_weights('copy', flow=0.)).for_generator(batch, own=again)
    cycle = SpiceLoss(loss.features, weights=spice_weights('copy', flow=0., own=0., cycle=1.)).for_generator(batch, again=again)
    assert {k.removeprefix('own_'): float(v) for k, v in own.items()} == pytest.approx({k: float(v) for k, v in cycle.items()})
    with pytest.raises(SpiceError, match='own is not given'): SpiceLoss(loss.features, weights=spice_weights('copy', flow=0.)).for_generator(batch)

def test_unconditional_critic():
    loss, (batch, made, *_), _ = objective()
    plain = Adversarial(Discriminator(discriminator_settings('narrow64', channels=3)).eval())
    a, b = plain.for_generator(made, batch['target_wheel']), plain.for_generator(made, batch['source_wheel'])
    assert torch.equal(a, b) and not plain.conditional

def test_critic_teaches_no_generator():
    loss, (batch, made, *_), _ = objective()
    loss.for_critic(batch, made).total.backward()
    assert made.grad is None and any(o.grad is not None for o in loss.critic.parameters())

# bad input

def test_messages(bad_input):
    features = load_features('random', width=4)
    with pytest.raises(SpiceError, match="no adversarial form 'lsgan'"): Adversarial(Discriminator('narrow64'), 'lsgan')
    with pytest.raises(SpiceError, match='Give the same segments'): Appearance(features)(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), squares_of(1, 32, 32)[:, :1], squares_of(1, 32, 32), torch.zeros(1))
    with pytest.raises(SpiceError, match='a flow at stride 3'): Correctness(features)([torch.zeros(1, 2, 10, 10)], torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    with pytest.raises(SpiceError, match='adv counts 1.0, but there is no critic'): SpiceLoss(features)
    with pytest.raises(SpiceError, match='parts counts 1.0, but there is no body'): SpiceLoss(features, weights=spice_weights(adv=0., theta=0., beta=0., parts=1.))
    loss, (batch, made, again, *flows), _ = objective()
    with pytest.raises(SpiceError, match='flows is not given'): loss.for_generator(batch, made, again)
    with pytest.raises(SpiceError, match='made is not given'): loss.for_generator(batch)
    assert isinstance(loss.for_generator(batch, made, again, *flows), Terms)

# the table of all equations

def test_table_names_what_exists():
    cells = json.loads((Path(__file__).parent.parent/'nbs'/'method'/'15_losses.ipynb').read_text(encoding='utf-8'))['cells']
    table = next(''.join(o['source']) for o in cells if '| paper | Eq. |' in ''.join(o['source']))
    names = re.findall(r'`([\w.]+)`', table)
    assert len(names) > 30 and {'SPICE', 'UPIS', 'Dense Pose Transfer', 'Intrinsic flow', 'Semantic parsing'} <= set(re.findall(r'^\| ([^|]+?) \|', table, re.M))
    for name in names:
        module, _, attribute = name.rpartition('.')
        assert hasattr(importlib.import_module(module or 'spice.losses'), attribute), name
    for number in range(1, 12): assert f'| SPICE | {number} |' in table
