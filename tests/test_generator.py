"The generator against plain functions with the public files' names; sizes, one photo for many poses, half precision, compilers, public weights."
import json
import shutil
from dataclasses import asdict
import gfla
import pytest
import torch
from processes import run
from spice.core import SpiceError, WeightsError, seeded
from spice.features import load_features
from spice.generator import PRESETS, Generator, GeneratorSettings, generator_settings, gfla_state, load_gfla
from spice.losses import cycle_terms
from spice.people import People

LEVELS = {'fashion': (3, 2), 'market': (2,)}

def count(net): return sum(p.numel() for p in net.parameters())

def inputs(h=64, w=32, b=2): return torch.rand(b, 3, h, w)*2 - 1, torch.rand(b, 18, h, w), torch.rand(b, 18, h, w)

def lookalike(preset):
    "A file like Ren et al.'s: their names, these shapes, any values; what is stored twice is stored twice"
    with torch.device('meta'): shapes = {k: v.shape for k, v in Generator(generator_settings(preset, spectral_norm=False)).state_dict().items()}
    state = {}
    for name in gfla.generator_names(LEVELS[preset]):
        twin = name.replace('.conv1.', '.model.2.')
        std = .3 if 'output' in name and 'bias' in name else .05                # flows of some pixels
        if twin in state: state[name] = state[twin]
        elif name in state: pass
        elif '.conv1.' in name: state[name] = state[twin] = torch.randn(shapes[twin])*std
        elif name.endswith(('model.0.weight', 'model.3.weight')) and 'attn' not in name: state[name] = 1 + .1*torch.randn(shapes[name])
        else: state[name] = torch.randn(shapes[name])*std
    return state

@pytest.fixture(scope='module')
def small(): return Generator('narrow64').eval()

# ---- sizes

def test_counts():
    with torch.device('meta'): net, without = Generator(), Generator(generator_settings(spectral_norm=False))
    assert [count(o) for o in (net, net.flow_net, net.source, net.target)] == [14_047_395, 6_608_212, 1_434_758, 6_004_425]
    with torch.device('meta'): market, narrow = Generator('market'), [count(Generator(o)) for o in ('narrow128', 'narrow64')]
    assert count(market) == 12_926_471 and narrow[0] < 4e6 and narrow[1] < 2e6
    assert count(without) == 14_047_395

@pytest.mark.parametrize('preset', PRESETS)
def test_settings_survive_json(preset):
    s = generator_settings(preset)
    assert GeneratorSettings(**json.loads(json.dumps(asdict(s)))) == s and s.spectral_norm == ('mended' not in preset) and not s.stretched
    assert all(o % 2**s.halvings == 0 for o in s.size)

@pytest.mark.parametrize('change, told', [(dict(kernels=(0, 0, 0)), 'no level has attention'), (dict(kernels=(4, 0)), 'Give an odd number'),
                                          (dict(flow_levels=2), 'strides are')])
def test_wrong_settings(change, told, bad_input):
    with pytest.raises(SpiceError, match=told): Generator(generator_settings(**change))

@pytest.mark.parametrize('preset, h, w', [('narrow64', 64, 64), ('narrow64', 32, 16), ('narrow64', 48, 80), ('narrow128', 128, 128), ('narrow128', 32, 96),
                                          ('market', 128, 64), ('market', 64, 32)])
def test_any_right_size(preset, h, w):
    net = Generator(generator_settings(preset, width=8, cap=16, flow_width=4, flow_cap=8, hidden=4)).eval()
    photo, a, b = inputs(h, w)
    with torch.no_grad(): result = net(photo, a, b)
    assert result.image.shape == photo.shape and result.image.abs().max() <= 1
    assert [f.shape for f in result.flows] == [(2, 2, h//s, w//s) for s in net.settings.strides]
    assert [m.shape for m in result.masks] == [(2, 1, h//s, w//s) for s in net.settings.strides]
    assert repr(result).startswith(f'Reposed: 2 pictures of {h} x {w}')

@pytest.mark.parametrize('preset, h, w, told', [('market', 32, 32, '64 x 32'), ('market', 128, 60, '128 x 32 or 128 x 64'), ('narrow64', 16, 16, '32 x 16'),
                                                ('narrow64', 70, 64, '64 x 64 or 80 x 64')])
def test_wrong_sizes(preset, h, w, told):
    net = Generator(generator_settings(preset, width=8, cap=16, flow_width=4, flow_cap=8, hidden=4))
    with pytest.raises(SpiceError, match=f'Next right sizes: {told}'): net(*inputs(h, w))
    with pytest.raises(SpiceError, match=f'Next right sizes: {told}'): net.encode_source(inputs(h, w)[0])

def test_bad_input(small, bad_input):
    photo, a, b = inputs(64, 64)
    for args, told in [((photo[:, :2], a, b), 'guide has shape'), ((photo, a[:, 1:], b), 'source_heat has shape'), ((photo, a, b.long()), 'torch.int64'),
                       ((None, a, b), 'neither a photo nor a guide'), ((None, a, b, photo), 'neither a photo nor an encoded'),
                       ((photo, a, b, photo[:, :1]), 'guide has shape'), ((photo, a, torch.cat([b, b])), 'batches of 2 and 4'),
                       ((photo[..., :32], a, b, photo), 'source is 64 x 32'), ((photo[0], a, b), 'guide has shape')]:
        with pytest.raises(SpiceError, match=told) as e: small(*args)
        assert '\n' not in str(e.value)
    with pytest.raises(SpiceError, match='no preset'): Generator('none')

# ---- what it computes

@pytest.mark.parametrize('preset', ['fashion', 'market'])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_public_weights_give_the_original_outputs(preset, prefix, tmp_path):
    state = lookalike(preset)
    torch.save({prefix + k: v for k, v in state.items()}, tmp_path/'latest_net_G.pth')
    net = load_gfla(tmp_path/'latest_net_G.pth', preset)
    args = inputs(64, 96)
    with torch.no_grad(): result, (image, flows, masks) = net(*args), gfla.generator(state, *args, LEVELS[preset])
    assert max(f.abs().max() for f in flows) > 1 and image.std() > .02           # an oracle that says something
    assert torch.allclose(result.image, image, atol=1e-5)
    for a, b in zip(result.flows + result.masks, flows + masks): assert torch.allclose(a, b, atol=1e-4)
    assert not net.training and not net.settings.spectral_norm and net.settings.stretched == (preset == 'fashion')
    assert gfla_state(net).keys() == state.keys() and all(torch.equal(v, state[k]) for k, v in gfla_state(net).items())

def test_guide_goes_to_the_flow_network_only():
    state, args = lookalike('fashion'), inputs(64, 64)
    R = torch.rand_like(args[0])
    with torch.no_grad(): result, wanted = load_gfla(state)(*args, R), gfla.generator(state, *args, guide=R)
    assert torch.allclose(result.image, wanted[0], atol=1e-5) and torch.allclose(result.flows[1], wanted[1][1], atol=1e-4)

def test_gradients_reach_everything():
    net, (photo, a, b) = Generator(generator_settings('narrow64', spectral_norm=False)), inputs(32, 32)
    result = net(photo.requires_grad_(), a.requires_grad_(), b.requires_grad_(), torch.rand_like(photo))
    (result.image.square().sum() + sum(f.square().sum() for f in result.flows)).backward()
    dead = [k for k, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not dead and photo.grad.abs().sum() > 0 and a.grad.abs().sum() > 0 and b.grad.abs().sum() > 0

def test_one_photo_for_many_poses(small):
    (photo, a, _), poses = inputs(32, 32, 1), torch.rand(4, 18, 32, 32)
    with torch.no_grad():
        encoded = small.encode_source(photo)
        many = small(None, a, poses, photo, encoded)
        each = [small(photo, a, pose[None]) for pose in poses]
        shared = small(photo, a, poses)
    assert torch.allclose(many.image, torch.cat([o.image for o in each]), atol=1e-4) and torch.allclose(many.image, shared.image, atol=1e-5)
    assert torch.allclose(many.flows[1], torch.cat([o.flows[1] for o in each]), atol=1e-4)

# ---- mended

SWITCHES = dict(source_norm=False, render_norm=False, attention_sum=True, upsample='nearest', statistics=True, pixels=True)

def test_old_settings_are_the_old_network():
    "What was saved before there were switches has them off"
    old = {k: v for k, v in asdict(generator_settings('narrow64')).items() if k not in SWITCHES}
    assert GeneratorSettings(**old) == generator_settings('narrow64')
    assert not {k for k, v in SWITCHES.items() if asdict(generator_settings())[k] == v}
    with pytest.raises(SpiceError, match="upsample is 'cubic'"): Generator(generator_settings('narrow64', upsample='cubic'))

@pytest.mark.parametrize('name', SWITCHES)
def test_each_switch_changes_the_result_and_learns(name):
    args, made = inputs(32, 32), []
    for change in ({}, {name: SWITCHES[name]}):
        with seeded(0): net = Generator(generator_settings('narrow64', width=8, flow_width=8, hidden=8, gain=1., spectral_norm=False, **change))
        made.append(net(*args).image)
    assert made[1].shape == made[0].shape and made[1].abs().max() <= 1 and (made[1] - made[0]).abs().max() > 1e-3
    made[1].square().sum().backward()
    assert not [k for k, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]

def changed(net, photo, heat, how):
    "How far the result moves, channel by channel, when the photo is changed; in shares of what changes in the photo"
    with torch.no_grad(): a, b = (net(o, heat, heat).image for o in (photo, how(photo)))
    return ((b - a).mean((0, 2, 3))/(how(photo) - photo).mean((0, 2, 3))), float((b - a).abs().mean()/(how(photo) - photo).abs().mean())

def test_sees_contrast_and_colour():
    "A flatter photo gives a flatter result, a redder one a redder one; Ren et al.'s blocks see neither, and the cycle's loss only then notices a tint"
    people = People(64, 'train', samples=1, device='cpu').photos([7, 61, 3, 12])
    photo, heat = people.image, people.keypoints.heatmaps()
    features, tint = load_features('people', device='cpu'), torch.tensor([.3, -.3, -.3]).view(3, 1, 1)
    for preset in ('narrow64', 'mended64'):
        with seeded(0): net = Generator(preset).eval()
        flat, tinted = changed(net, photo, heat, lambda x: .5*x), changed(net, photo, heat, lambda x: .7*x + tint)
        with torch.no_grad():
            made = net(photo, heat, heat).image
            back, tinted_back = (net(o, heat, heat).image for o in (made, .7*made + tint))
            true, false = (cycle_terms(features, o, back) for o in (back, tinted_back))
        moved = float((false['pix'] - true['pix']).abs())
        if preset == 'narrow64': assert flat[1] < 1e-3 and tinted[1] < 1e-3 and moved < 1e-3
        else: assert flat[1] > .2 and tinted[1] > .2 and (tinted[0] > .2).all() and moved > .05, (flat, tinted, moved)

def test_a_mended_one_compiles():
    alone(START.replace("width=8, flow_width=8, kernels=(3, 0), flow_levels=3", "width=8, flow_width=8, kernels=(3, 0), flow_levels=3, pixels=True, "
                        "statistics=True, upsample='nearest', source_norm=False, render_norm=False, attention_sum=True") + """
with torch.no_grad(): result = torch.compile(net, fullgraph=True, backend='aot_eager')(*args)
assert torch.allclose(result.image, wanted.image, atol=1e-5)
""")

def test_learns_one_batch_by_heart():
    net, (photo, a, b) = Generator(generator_settings('narrow64', width=16, flow_width=8, spectral_norm=False)), inputs(32, 32)
    wanted = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 4)*1.6 - .8, (32, 32), mode='bilinear')
    optimizer, losses = torch.optim.Adam(net.parameters(), 2e-3), []
    for _ in range(60):
        loss = (net(photo, a, b).image - wanted).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < .4*losses[0]

# ---- precision, layout, compilers

def test_autocast_in_bfloat16(small):
    args = inputs(32, 32)
    with torch.no_grad():
        exact = small(*args)
        with torch.autocast('cpu', torch.bfloat16): half = small(*args)
    assert half.image.dtype == torch.float32 and half.flows[0].dtype == torch.float32
    assert (half.image - exact.image).abs().mean() < .02 and (half.flows[1] - exact.flows[1]).abs().max() < .1
    net = Generator(generator_settings('narrow64', width=8, flow_width=8))
    with torch.autocast('cpu', torch.bfloat16): net(*args).image.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)

def test_double(small):
    args = inputs(32, 32)
    with torch.no_grad(): exact, twice = small(*args), Generator('narrow64').double().eval()
    twice.load_state_dict(small.state_dict())
    with torch.no_grad(): result = twice(*(o.double() for o in args))
    assert result.image.dtype == torch.float64 and (result.image - exact.image).abs().max() < 1e-3

def test_channels_last(small):
    args = inputs(32, 32)
    net = Generator('narrow64').eval().to(memory_format=torch.channels_last)
    net.load_state_dict(small.state_dict())
    last = [o.contiguous(memory_format=torch.channels_last) for o in args]
    with torch.no_grad(): assert torch.allclose(net(*last).image, small(*args).image, atol=1e-4)

def alone(program, *args):
    "Run a program in a process of its own: the shape checks of these tests are not made for being compiled"
    done = run(program, *args)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout

START = """
import sys, torch
from spice.generator import Generator, Reposed, generator_settings
torch.manual_seed(0)
net = Generator(generator_settings('narrow64', width=8, flow_width=8, kernels=(3, 0), flow_levels=3)).eval() # every operation, once
args = torch.rand(2, 3, 32, 32), torch.rand(2, 18, 32, 32), torch.rand(2, 18, 32, 32)
with torch.no_grad(): wanted = net(*args)
"""

def test_compiles_without_a_break():
    "fullgraph=True makes any graph break an error; gradients, too"
    alone(START + """
compiled = torch.compile(net, fullgraph=True, backend='aot_eager')
with torch.no_grad(): result = compiled(*args)
assert torch.allclose(result.image, wanted.image, atol=1e-5) and torch.allclose(result.flows[0], wanted.flows[0], atol=1e-5)
torch._dynamo.reset()
result = torch.compile(net.train(), fullgraph=True, backend='aot_eager')(*args)
(result.image.sum() + result.flows[0].sum()).backward()
assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
torch._dynamo.reset()
with torch.autocast('cpu', torch.bfloat16): torch.compile(net.eval(), fullgraph=True, backend='aot_eager')(*args)
""")

@pytest.mark.skipif(shutil.which('g++') is None, reason='inductor needs a C++ compiler')
def test_compiles_to_machine_code():
    alone(START + """
with torch.no_grad(): result = torch.compile(net, fullgraph=True)(*args)
assert torch.allclose(result.image, wanted.image, atol=1e-4), (result.image - wanted.image).abs().max()
""")

def test_export(tmp_path):
    alone(START + """
torch.export.save(torch.export.export(net, args), sys.argv[1])
result = torch.export.load(sys.argv[1]).module()(*args)
assert isinstance(result, Reposed) and torch.allclose(result.image, wanted.image, atol=1e-5)
""", tmp_path/'net.pt2')

# ---- weights that do not fit

@pytest.mark.parametrize('change, told', [
    (lambda s: s.pop('target.attn1.fully_connect_layer.2.bias'), 'the first is target.attn1.fully_connect_layer.2.bias'),
    (lambda s: s.update({'target.attn0.fully_connect_layer.0.weight': torch.zeros(128, 512, 5, 5)}), '128 x 512 x 5 x 5, but 128 x 512 x 3 x 3 is needed'),
    (lambda s: s.update({'extra.weight': torch.zeros(1)}), 'the first is extra.weight'),
    (lambda s: s.update({'target.outconv.conv1.bias': torch.ones(3)}), 'target.outconv.conv1.bias and target.outconv.model.2.bias differ'),
    (lambda s: s.update({'source.block0.model.2.bias': torch.full((64,), torch.inf)}), 'source.block0.model.2.bias holds NaN or infinite')])
def test_wrong_weights(change, told):
    state = lookalike('fashion')
    change(state)
    with pytest.raises(WeightsError, match=told) as e: load_gfla(state)
    assert '\n' not in str(e.value)

def test_market_weights_for_fashion_and_back():
    with pytest.raises(WeightsError, match="preset='market'"): load_gfla(lookalike('market'))
    with pytest.raises(WeightsError, match="preset='fashion'"): load_gfla(lookalike('fashion'), 'market')

def test_file_with_each_tensor_once():
    state = {k: v for k, v in lookalike('market').items() if '.model.2.' not in k or 'jump' not in k}
    load_gfla(state, 'market')

def test_spectral_norm_in_the_old_form():
    "A generator trained with spectral norm loads, too, and computes the same"
    net = Generator(generator_settings('market')).eval()
    again = load_gfla(gfla_state(net), 'market')
    assert again.settings.spectral_norm
    args = inputs(64, 32)
    with torch.no_grad(): assert torch.equal(again(*args).image, net(*args).image)

def test_loaded_weights_are_its_own():
    "Neither the dict that was given nor its number format leaks into the network"
    state = {k: v.half() for k, v in lookalike('market').items()}
    net = load_gfla(state, 'market')
    name = 'source.block0.model.2.weight'
    net.get_parameter(name).data.zero_()
    assert state[name].abs().sum() > 0 and all(p.dtype == torch.float32 and not p.is_meta and p.requires_grad for p in net.parameters())
