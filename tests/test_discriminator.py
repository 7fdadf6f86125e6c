"The discriminator against plain functions with the public file's names, spectral norm in the old hook's form; sizes, input, compilers."
import json
from dataclasses import asdict
import gfla
import pytest
import torch
from processes import run
from torch import nn
from spice.blocks import to_hooks
from spice.core import SpiceError, WeightsError
from spice.discriminator import Discriminator, DiscriminatorSettings, discriminator_settings, load_gfla_critic

def count(net): return sum(p.numel() for p in net.parameters())

def lookalike(levels):
    "A file like Ren et al.'s, made by torch's own old hook around layers of these shapes"
    shapes = {k: v.shape for k, v in to_hooks(Discriminator(DiscriminatorSettings(channels=3, levels=levels)).state_dict()).items()}
    state = {}
    for name in gfla.critic_names(levels):
        if not name.endswith('weight_orig'): continue
        o, i, k, _ = shapes[name]
        layer = nn.utils.spectral_norm(nn.Conv2d(i, o, k))
        for _ in range(3): layer(torch.randn(1, i, k, k))                        # the vectors go their way
        state.update({f"{name.removesuffix('.weight_orig')}.{part}": v.clone() for part, v in layer.state_dict().items()})
    return state

def test_counts():
    assert count(Discriminator()) == 665_537 and count(Discriminator(discriminator_settings(channels=3))) == 664_577
    assert count(Discriminator(discriminator_settings('market', channels=3))) == 238_209

@pytest.mark.parametrize('preset', ['fashion', 'market', 'narrow128', 'narrow64'])
def test_settings_survive_json(preset):
    s = discriminator_settings(preset)
    assert DiscriminatorSettings(**json.loads(json.dumps(asdict(s)))) == s

@pytest.mark.parametrize('preset, levels', [('fashion', 4), ('market', 3)])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_public_weights_give_the_original_scores(preset, levels, prefix, tmp_path):
    state = lookalike(levels)
    assert state.keys() == set(gfla.critic_names(levels))
    torch.save({prefix + k: v for k, v in state.items()}, tmp_path/'latest_net_D.pth')
    net, x = load_gfla_critic(tmp_path/'latest_net_D.pth', preset), torch.rand(2, 3, 64, 48)*2 - 1
    with torch.no_grad(): ours, theirs = net(x), gfla.critic(state, x, levels)
    assert ours.shape == (2, 1, 64//2**levels, 48//2**levels) and theirs.std() > 1e-3
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert all(torch.equal(v, state[k]) for k, v in to_hooks(net.state_dict()).items())

@pytest.mark.parametrize('change, told', [
    (lambda s: s.pop('conv.weight_u'), 'the first is conv.parametrizations.weight.0._u'),
    (lambda s: s.update({'block0.model.1.weight_orig': torch.zeros(32, 6, 3, 3)}), 'is 32 x 6 x 3 x 3, but 32 x 3 x 3 x 3 is needed'),
    (lambda s: s.update({'other.bias': torch.zeros(1)}), 'the first is other.bias')])
def test_wrong_weights(change, told):
    state = lookalike(4)
    change(state)
    with pytest.raises(WeightsError, match=told) as e: load_gfla_critic(state)
    assert '\n' not in str(e.value)
    with pytest.raises(WeightsError, match="preset='market'"): load_gfla_critic(lookalike(3))

def test_spectral_norm_in_training():
    "Each training step brings the largest singular value nearer to one"
    net = Discriminator(DiscriminatorSettings(width=8, cap=16))
    nn.init.normal_(net.block0.model[1].parametrizations.weight.original)
    far = lambda: abs(torch.linalg.svdvals(net.eval().block0.model[1].weight.flatten(1))[0].item() - 1)
    before = far()
    for _ in range(20): net.train()(torch.randn(1, 3, 32, 32), torch.randn(1, 3, 32, 32))
    assert far() < .1*before and far() < 1e-2

@pytest.mark.parametrize('h, w', [(16, 16), (17, 40), (256, 176), (128, 64)])
def test_any_size(h, w):
    x = torch.rand(1, 3, h, w)
    assert Discriminator()(x, x).shape == (1, 1, h//16, w//16)

def test_bad_input(bad_input):
    net, x = Discriminator(), torch.rand(2, 3, 32, 32)
    for args, told in [((x,), 'Give `rendering`'), ((x, x[:, :2]), '5 channels for a critic of 6'), ((x, x[:1]), 'Give one of each'),
                       ((x, x[..., :16]), 'Give one of each'), ((x[..., :8], x[..., :8]), 'Give at least 16 x 16'), ((x[0], x[0]), r'\[3, 32, 32\]')]:
        with pytest.raises(SpiceError, match=told): net(*args)
    with pytest.raises(SpiceError, match='Give the picture alone'): Discriminator(discriminator_settings(channels=3))(x, x)
    with pytest.raises(SpiceError, match='no preset'): Discriminator('none')

def test_autocast_and_channels_last():
    net, x = Discriminator('narrow64').eval(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        wanted = net(x, x)
        with torch.autocast('cpu', torch.bfloat16): assert (net(x, x) - wanted).abs().max() < .05
        assert torch.allclose(net.to(memory_format=torch.channels_last)(x, x), wanted, atol=1e-5)

def test_compiles_and_exports():
    "In a process of its own: the shape checks of these tests are not made for being compiled"
    program = """
import torch
from spice.discriminator import Discriminator
net, x = Discriminator('narrow64').eval(), torch.rand(1, 3, 32, 32)
with torch.no_grad():
    wanted = net(x, x)
    assert torch.allclose(torch.compile(net, fullgraph=True, backend='aot_eager')(x, x), wanted, atol=1e-5)
assert torch.allclose(torch.export.export(net, (x, x)).module()(x, x), wanted, atol=1e-5)
torch._dynamo.reset()
torch.compile(net.train(), fullgraph=True, backend='aot_eager')(x, x).sum().backward()
"""
    done = run(program)
    assert done.returncode == 0, done.stderr[-3000:]
