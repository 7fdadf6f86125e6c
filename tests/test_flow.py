"The blocks and the flow network: shapes, starting values, against plain functions, bad input by the dozen, loading weights."
import gfla
import pytest
import torch
from torch import nn
from spice.blocks import (EncoderBlock, Jump, Output, ResBlock, ResBlockDecoder, ResBlockEncoder, ResBlocks, check_size, conv, from_hooks,
                          numbered, to_hooks, widths)
from spice.core import SpiceError, WeightsError
from spice.flow import FlowNet, FlowSettings, check_maps
from spice.weights import load_weights, read_state

def settled(net):
    "Random weights of a size at which every one of them matters, running vectors of spectral norm left alone"
    for p in net.parameters(): nn.init.normal_(p, std=.1)
    for m in net.modules():
        if isinstance(m, nn.InstanceNorm2d): nn.init.uniform_(m.weight, .5, 1.5)
    return net.eval()

# ---- blocks

@pytest.mark.parametrize('kind, f', [(EncoderBlock(4, 6), gfla.encoder_block), (ResBlock(4), gfla.res_block), (ResBlockDecoder(4, 6), gfla.decoder_block),
                                     (ResBlockDecoder(4, 6, 5), gfla.decoder_block)])
def test_blocks_against_plain_functions(kind, f):
    block, x = settled(kind), torch.randn(2, 4, 8, 6)
    assert torch.allclose(block(x), f({f'a.{k}': v for k, v in block.state_dict().items()}, 'a', x), atol=1e-5)

def test_jump_and_output():
    x, jump, out = torch.randn(2, 4, 8, 6), settled(Jump(4)), settled(Output(4))
    s = {**{f'j.{k}': v for k, v in jump.state_dict().items()}, **{f'o.{k}': v for k, v in out.state_dict().items()}}
    assert torch.allclose(jump(x), gfla.conv(s, 'j.model.2', gfla.mirror(gfla.lrelu(x))), atol=1e-6)
    assert torch.allclose(out(x), gfla.conv(s, 'o.model.2', gfla.mirror(gfla.lrelu(x))).tanh(), atol=1e-6)

def test_starting_weights():
    for layer in (conv(6, 4, 3), conv(4, 6, 3, 2, 1, up=True), conv(6, 4, 1)):
        w = layer.weight.flatten(1)
        assert torch.allclose(w@w.T, .02**2*torch.eye(len(w)), atol=1e-7) and (layer.bias == 0).all()

def test_spectral_norm_follows_the_largest_singular_value():
    layer = conv(6, 4, 3, spectral=True)
    layer.parametrizations.weight.original.data = torch.randn(4, 6, 3, 3)
    for _ in range(30): layer.train()(torch.randn(1, 6, 5, 5))
    layer.eval()
    assert abs(torch.linalg.svdvals(layer.weight.flatten(1))[0] - 1) < 1e-3

@pytest.mark.parametrize('name, block', [('model', ResBlocks(4, 2, True)), ('shortcut', ResBlockEncoder(4, 6)), ('model', EncoderBlock(4, 4, True))])
def test_spectral_norm_is_everywhere(name, block):
    convs = [m for m in block.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert convs and all(nn.utils.parametrize.is_parametrized(m) for m in convs)

def test_widths(): assert widths(64, 512, 3) == [64, 128, 256] and widths(32, 128, 4) == [32, 64, 128, 128]

@pytest.mark.parametrize('size', [(64, 32), (32, 64), (256, 192), (32, 1024)])
def test_right_sizes(size): check_size(size, 5)

@pytest.mark.parametrize('size, told', [((32, 32), '64 x 32'), ((256, 176), '256 x 160 or 256 x 192'), ((255, 255), '224 x 224 or 256 x 256'),
                                        ((1, 1), '64 x 32'), ((0, 64), '32 x 64'), ((16, 20), '32 x 64'), ((33, 32), '64 x 32')])
def test_wrong_sizes_name_the_next(size, told):
    with pytest.raises(SpiceError, match=f'Next right sizes: {told}') as e: check_size(size, 5)
    assert '\n' not in str(e.value)
    for right in str(e.value).split(': ')[-1].split(' or '): check_size(tuple(int(o) for o in right.split(' x ')), 5)

# ---- flow network

def test_counts():
    count = lambda **k: sum(p.numel() for p in FlowNet(FlowSettings(**k)).parameters())
    assert count() == count(spectral_norm=False) == 6_608_212

@pytest.mark.parametrize('strides', [(8, 4), (4,), (16, 8, 4)])
def test_against_plain_functions(strides):
    net = settled(FlowNet(FlowSettings(strides=strides, spectral_norm=False)))
    inputs = torch.randn(2, 3, 64, 96), torch.rand(2, 18, 64, 96), torch.rand(2, 18, 64, 96)
    state = {f"flow_net.{k.replace('jump0.model.2', 'jump0.conv1').replace('jump1.model.2', 'jump1.conv1').replace('jump2.model.2', 'jump2.conv1')}": v
             for k, v in net.state_dict().items()}
    flows, masks = net(*inputs)
    wanted_flows, wanted_masks = gfla.flow_net(state, *inputs, [{16: 4, 8: 3, 4: 2}[o] for o in strides])
    assert len(flows) == len(masks) == len(strides)
    for a, b in zip(flows + masks, wanted_flows + wanted_masks): assert torch.allclose(a, b, atol=1e-4)
    for f, stride in zip(flows, strides): assert f.shape == (2, 2, 64//stride, 96//stride)

@pytest.mark.parametrize('levels, strides, size', [(3, (4, 2), (16, 8)), (4, (2,), (32, 16)), (5, (16, 2), (64, 32)), (2, (2,), (8, 4))])
def test_other_depths(levels, strides, size):
    net = FlowNet(FlowSettings(levels=levels, strides=strides, width=4, cap=8))
    heat = torch.rand(1, 18, *size)
    flows, masks = net(heat[:, :3], heat, heat)
    assert [o.shape[2:] for o in flows] == [(size[0]//s, size[1]//s) for s in strides] and len(masks) == len(strides)

def test_one_guide_for_many_poses():
    net, heat = settled(FlowNet(FlowSettings(width=4, cap=8))), torch.rand(3, 18, 64, 32)
    a, b = net(heat[:1, :3], heat[:1], heat), net(heat[:1, :3].expand(3, -1, -1, -1), heat[:1].expand(3, -1, -1, -1), heat)
    for x, y in zip(a[0] + a[1], b[0] + b[1]): assert torch.allclose(x, y, atol=1e-6)

def test_flow_is_exact_in_mixed_precision():
    net, heat = FlowNet(FlowSettings(width=4, cap=8)), torch.rand(1, 18, 64, 32)
    with torch.autocast('cpu', torch.bfloat16): flows, masks = net(heat[:, :3], heat, heat)
    assert all(f.dtype == torch.float32 for f in flows)
    assert FlowNet(FlowSettings(width=4, cap=8)).double()(*(o.double() for o in (heat[:, :3], heat, heat)))[0][0].dtype == torch.float64

@pytest.mark.parametrize('strides', [(4, 8), (), (32,), (1,), (8, 8), (3,)])
def test_wrong_strides(strides):
    with pytest.raises(SpiceError, match='strides are'): FlowSettings(strides=strides)

heat = torch.rand(2, 18, 64, 64)

@pytest.mark.parametrize('guide, source, target, told', [
    (heat[:, :4], heat, heat, r'guide has shape \[2, 4, 64, 64\]'), (heat[0, :3], heat, heat, 'guide has shape'),
    (heat[:, :3].long(), heat, heat, 'torch.int64'), (heat[:, :3], heat[:, :17], heat, 'source_heat has shape'),
    (heat[:, :3], heat, heat[:, :3], r'target_heat .* Give floats \[b, 18, h, w\]'), (heat[:, :3, :32], heat, heat, 'guide is 32 x 64 pixels'),
    (heat[:, :3], heat, torch.cat([heat, heat]), 'batches of 2 and 4'), (heat[:, :3, :63], heat[:, :, :63], heat[:, :, :63], 'Next right sizes'),
    (heat[:, :3, :32, :32], heat[:, :, :32, :32], heat[:, :, :32, :32], 'one of them at least 64')])
def test_bad_maps(guide, source, target, told, bad_input):
    with pytest.raises(SpiceError, match=told): FlowNet(FlowSettings(width=4, cap=8))(guide, source, target)

def test_check_maps_passes_over_none(): check_maps(5, target=(heat, 18), source=(None, 3))

# ---- weights

@pytest.fixture
def file(tmp_path):
    net = settled(EncoderBlock(3, 4))
    torch.save({f'module.{k}': v for k, v in net.state_dict().items()}, tmp_path/'net.pth')
    return net, tmp_path/'net.pth'

def test_read_and_load(file):
    net, path = file
    other = load_weights(EncoderBlock(3, 4), read_state(path), 'x')
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values()))
    assert read_state(str(path)).keys() == net.state_dict().keys()

class Evil:
    def __reduce__(self): return (print, ('code was run',))

def test_no_code_is_run(tmp_path, capsys):
    torch.save({'a': Evil()}, tmp_path/'evil.pth')
    with pytest.raises(WeightsError, match='can not be read') as e: read_state(tmp_path/'evil.pth')
    assert capsys.readouterr().out == '' and '\n' not in str(e.value)

@pytest.mark.parametrize('content, told', [(b'', 'the file is empty'), (b'hello', 'can not be read')])
def test_damaged_files(tmp_path, content, told):
    (tmp_path/'a.pth').write_bytes(content)
    with pytest.raises(WeightsError, match=told): read_state(tmp_path/'a.pth')

def test_cut_off_file(file, tmp_path):
    data = file[1].read_bytes()
    (tmp_path/'cut.pth').write_bytes(data[:len(data)//2])
    with pytest.raises(WeightsError, match='can not be read'): read_state(tmp_path/'cut.pth')

@pytest.mark.parametrize('content', [{}, [1, 2], {'a': 1}, {'model': {'a': torch.ones(1)}}, torch.ones(2), {1: torch.ones(1)}])
def test_not_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path/'a.pth')
    with pytest.raises(WeightsError, match='these are no weights'): read_state(tmp_path/'a.pth')

def test_no_such_file(tmp_path):
    with pytest.raises(WeightsError, match='there is no such file'): read_state(tmp_path/'none.pth')

def test_weights_that_do_not_fit(file):
    state = file[0].state_dict()
    name = 'model.2.weight'
    for change, told in [({name: torch.ones(4, 3, 3, 3)}, f'{name} is 4 x 3 x 3 x 3, but 4 x 3 x 4 x 4 is needed'), ({'more.weight': torch.ones(1)}, 'the first is more.weight'),
                         ({name: state[name]*torch.nan}, f'{name} holds NaN')]:
        with pytest.raises(WeightsError, match=told): load_weights(EncoderBlock(3, 4), {**state, **change}, 'x')
    with pytest.raises(WeightsError, match=f'1 of 8 weights are missing, the first is {name}'):
        load_weights(EncoderBlock(3, 4), {k: v for k, v in state.items() if k != name}, 'x')

def test_hook_names_there_and_back():
    state = ResBlockEncoder(3, 4).state_dict()
    assert from_hooks(to_hooks(state)).keys() == state.keys() and not any('parametrizations' in k for k in to_hooks(state))
    plain = ResBlock(3).state_dict()
    assert from_hooks(plain).keys() == plain.keys()

def test_numbered(): assert len(numbered(FlowNet(FlowSettings(width=4, cap=8)), 'encoder')) == 4
