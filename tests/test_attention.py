"Local attention without blocks against local attention that builds every block: outputs, all gradients, borders, half precision, compilers."
import gfla
import pytest
import torch
from torch import nn
from spice.attention import LocalAttention, SourceRows, as_rows, bilinear, fold_weights, split_place, sum_square
from spice.core import SpiceError

def layer_of(c, kernel, hidden=8, std=.3, dtype=torch.float64):
    layer = LocalAttention(c, kernel, hidden).to(dtype)
    for p in layer.parameters(): nn.init.normal_(p, std=std)
    return layer

def literal(layer, source, target, flow):
    first, _, last, _ = layer.fully_connect_layer
    return gfla.attention((first.weight, first.bias, last.weight, last.bias), source, target, flow)

@pytest.mark.parametrize('kernel', [1, 3, 5, 7])
@pytest.mark.parametrize('scale', [.5, 4., 60.])
def test_outputs_and_all_gradients(kernel, scale):
    layer, size = layer_of(4, kernel), (2, 4, 9, 7)
    inputs = [torch.randn(size).double(), torch.randn(size).double(), scale*torch.randn(2, 2, 9, 7).double()]
    for o in inputs: o.requires_grad_()
    ours, theirs = layer(*inputs), literal(layer, *inputs)
    assert torch.allclose(ours, theirs, atol=1e-12)
    probe, wanted = torch.randn_like(ours), [*inputs, *layer.parameters()]
    for a, b in zip(*(torch.autograd.grad((o*probe).sum(), wanted) for o in (ours, theirs))): assert torch.allclose(a, b, atol=1e-10)

def test_padding_by_half_would_be_wrong():
    "The oracle notices the mistake it is there for"
    layer, (source, target) = layer_of(4, 5), torch.randn(2, 1, 4, 8, 8).double()
    flow = torch.full((1, 2, 8, 8), 6.).double()
    right, reach = literal(layer, source, target, flow), layer.reach
    assert torch.allclose(layer(source, target, flow), right)
    rows = layer.encode(source)
    keys = rows.keys.view(12, 12, -1)[2:-2, 2:-2]                                # the map of the source padded by k//2 only
    padded = nn.functional.pad(keys.movedim(-1, 0)[None], [reach]*4, 'replicate')
    wrong = SourceRows(rows.values, as_rows(padded), rows.size)
    assert (layer(wrong, target, flow) - right).abs().max() > 1e-4

@pytest.mark.parametrize('far', [1e3, 1e6, 1e30])
def test_far_outside(far):
    "However far, it is the corner of the picture"
    layer, (source, target) = layer_of(3, 3, dtype=torch.float32), torch.randn(2, 1, 3, 6, 5)
    flow = torch.full((1, 2, 6, 5), far)
    corner = source[..., -1:, -1:].expand_as(source)/9
    assert torch.allclose(layer(source, target, flow), corner, atol=1e-5)
    assert torch.allclose(layer(source, target, -flow), source[..., :1, :1].expand_as(source)/9, atol=1e-5)

def test_whole_flows_and_no_flow():
    layer, (source, target) = layer_of(3, 3), torch.randn(2, 2, 3, 6, 5).double()
    for flow in (torch.zeros(2, 2, 6, 5), torch.randint(-8, 9, (2, 2, 6, 5))):
        assert torch.allclose(layer(source, target, flow.double()), literal(layer, source, target, flow.double()), atol=1e-12)

def test_source_and_target_of_two_sizes():
    layer, source, target = layer_of(3, 3), torch.randn(1, 3, 10, 4).double(), torch.randn(1, 3, 6, 5).double()
    flow = 5*torch.randn(1, 2, 6, 5).double()
    assert torch.allclose(layer(source, target, flow), literal(layer, source, target, flow), atol=1e-12)

def test_one_source_for_many_targets():
    layer, source, target, flow = layer_of(4, 5), torch.randn(1, 4, 8, 6).double(), torch.randn(3, 4, 8, 6).double(), 3*torch.randn(3, 2, 8, 6).double()
    source.requires_grad_()
    shared, repeated = layer(layer.encode(source), target, flow), layer(source.expand(3, -1, -1, -1), target, flow)
    assert torch.allclose(shared, repeated, atol=1e-12)
    a, b = (torch.autograd.grad(o.square().sum(), source)[0] for o in (shared, repeated))
    assert torch.allclose(a, b, atol=1e-10)

def test_gradcheck():
    layer, (source, target) = layer_of(2, 3, 3), torch.randn(2, 1, 2, 4, 3).double()
    flow = (torch.randint(-2, 3, (1, 2, 4, 3)) + .2 + .6*torch.rand(1, 2, 4, 3)).double() # away from the kinks at whole pixels
    for o in (source, target, flow): o.requires_grad_()
    assert torch.autograd.gradcheck(layer, (source, target, flow), atol=1e-6)

def test_not_a_number_stays_visible():
    layer, (source, target), flow = layer_of(3, 3, dtype=torch.float32), torch.randn(2, 1, 3, 6, 5), torch.zeros(1, 2, 6, 5)
    flow[0, 0, 2, 2] = torch.nan
    bad = layer(source, target, flow).isnan().any(1)[0]
    assert bad[2, 2] and bad.sum() == 1

def test_parts():
    whole, fraction = split_place(torch.tensor([-.25, 1.]).view(1, 2, 1, 1).expand(1, 2, 3, 3), (3, 3), 0)
    assert whole[0, :, 1, 1].tolist() == [0, 2] and fraction[0, :, 1, 1].tolist() == [.75, 0]
    assert torch.allclose(bilinear(torch.rand(2, 2, 3, 3)).sum(1), torch.ones(2, 3, 3))
    one = torch.zeros(1, 9, 1, 1)
    one[0, 4] = 1                                                                # all weight on the middle
    folded = fold_weights(one, torch.tensor([.25, 0.]).view(1, 2, 1, 1)).view(4, 4)
    assert folded[1, 1] == .75 and folded[1, 2] == .25 and folded.sum() == 1
    rows = as_rows(torch.arange(12.).view(1, 1, 3, 4))
    total = sum_square(rows, (1, 3, 4), torch.tensor([3, 2], dtype=torch.int32).view(1, 2, 1, 1), torch.ones(1, 4, 1, 1))
    assert total.item() == 4*11                                                  # beyond the corner is the corner

def test_autocast_in_bfloat16():
    layer, (source, target), flow = LocalAttention(16, 5, 32), torch.randn(2, 1, 16, 20, 70), 3*torch.randn(1, 2, 20, 70)
    exact = layer(source, target, flow)
    with torch.autocast('cpu', torch.bfloat16): half = layer(source.bfloat16().requires_grad_(), target.bfloat16(), flow)
    assert half.dtype == torch.bfloat16 and (half.float() - exact).abs().max() < .01*exact.abs().max()
    half.float().square().sum().backward()
    assert torch.isfinite(layer.fully_connect_layer[0].weight.grad).all()

def test_channels_last():
    layer, (source, target), flow = LocalAttention(8, 3, 16), torch.randn(2, 2, 8, 6, 5), torch.randn(2, 2, 6, 5)
    last = lambda x: x.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(layer(source, target, flow), layer.to(memory_format=torch.channels_last)(last(source), last(target), flow), atol=1e-6)

@pytest.mark.parametrize('kernel', [0, 2, -3])
def test_even_kernels_are_refused(kernel, bad_input):
    with pytest.raises(SpiceError, match='Give an odd number'): LocalAttention(4, kernel)
