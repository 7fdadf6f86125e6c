"Feature networks against torchvision's, their files, precision, and what is shipped"
import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import vgg

from spice.core import SpiceError, WeightsError, file_hash, packaged
from spice.features import Features, FeatureSettings, features_hash, from_torchvision, imagenet_file, load_features, read_features, settings_of
from spice.people import People

ROOT = Path(__file__).parent.parent
script = importlib.util.spec_from_file_location('train_features', ROOT/'scripts'/'train_features.py')
train_features = importlib.util.module_from_spec(script)
script.loader.exec_module(train_features)

def narrow(letter, width=8):
    "torchvision's layout with fewer channels"
    torch.manual_seed(3)
    return vgg.make_layers([o if o == 'M' else o*width//64 for o in vgg.cfgs[letter]])

def theirs(layers, images, names):
    "Their activations under our names"
    found, x, block, count = {}, images, 1, 0
    for layer in layers:
        if isinstance(layer, nn.ReLU): count += 1
        x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
        if isinstance(layer, nn.MaxPool2d): block, count = block + 1, 0
        if isinstance(layer, nn.ReLU): found[f'relu{block}_{count}'] = x
    return {o: found[o] for o in names}

@pytest.mark.parametrize('letter, arch', [('E', 'vgg19'), ('D', 'vgg16')])
def test_equal_to_torchvision(letter, arch, tmp_path):
    layers = narrow(letter)
    torch.save({f'features.{k}': v for k, v in layers.state_dict().items()} | {'classifier.0.weight': torch.zeros(3, 3)}, tmp_path/'theirs.pth')
    net = load_features(tmp_path/'theirs.pth')
    assert net.settings.blocks == FeatureSettings(arch).blocks and net.settings.name == 'theirs'
    x = torch.rand(2, 3, 64, 80)*2 - 1
    for name, wanted in theirs(layers, x, net.names).items(): torch.testing.assert_close(net(x, name)[name], wanted, rtol=1e-4, atol=1e-6)

def test_imagenet_input_is_torchvisions():
    net, x = Features(FeatureSettings('vgg16', 4, imagenet_input=True)).freeze(), torch.rand(1, 3, 32, 32)
    mean, std = torch.tensor([.485, .456, .406]).view(3, 1, 1), torch.tensor([.229, .224, .225]).view(3, 1, 1)
    wanted = F.relu(net.conv1_1((x - mean)/std))
    torch.testing.assert_close(net(x*2 - 1, 'relu1_1')['relu1_1'], wanted)

def test_imagenet_from_the_download_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with pytest.raises(WeightsError, match="are not on this machine .*or take 'people'"): imagenet_file('vgg16', download=False)
    monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda *args: (_ for _ in ()).throw(OSError('no network')))
    with pytest.raises(WeightsError, match='the download failed: no network'): load_features('imagenet', 'vgg16')
    def fake(url, path, hash_prefix):
        assert hash_prefix in url and len(hash_prefix) == 8
        torch.save({f'features.{k}': v for k, v in narrow('D').state_dict().items()}, path)
    monkeypatch.setattr(torch.hub, 'download_url_to_file', fake)
    assert load_features('imagenet', 'vgg16').settings == FeatureSettings('vgg16', 8, 'imagenet')

def test_round_trip(tmp_path):
    net = load_features('random', width=8)
    again = load_features(net.save(tmp_path/'mine.safetensors'))
    assert again.settings == net.settings
    for k, v in net.state_dict().items(): torch.testing.assert_close(again.state_dict()[k], v, rtol=1e-3, atol=1e-4)
    assert features_hash(net) != features_hash(again)                                      # half precision is another network, and says so
    assert features_hash(again) == features_hash(load_features(tmp_path/'mine.safetensors'))
    assert [o.name for o in tmp_path.iterdir()] == ['mine.safetensors']

def test_random_is_the_same_everywhere():
    a, b = (load_features('random', 'vgg16', width=8) for _ in range(2))
    assert features_hash(a) == features_hash(b)
    assert a.conv1_1.weight[0, 0, 0, 0].item() == pytest.approx(float(torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))[0, 0, 0, 0]*(2/27)**.5))

@pytest.mark.parametrize('change, message', [
    (lambda s: s.pop('conv3_1.bias'), 'missing, the first is conv3_1.bias'),
    (lambda s: s.update({'conv2_1.weight': torch.zeros(2, 2)}), 'conv2_1.weight is 2 x 2'),
    (lambda s: s['conv1_2.bias'].fill_(torch.nan), 'conv1_2.bias holds NaN'),
    (lambda s: [s.pop(k) for k in list(s) if k.startswith('conv1_1')], 'conv1_1 is missing')])
def test_damaged_files(change, message, tmp_path, bad_input):
    state = {k: v.clone() for k, v in load_features('random', width=4).state_dict().items()}
    change(state)
    torch.save(state, tmp_path/'bad.pth')
    with pytest.raises(WeightsError, match=message): load_features(tmp_path/'bad.pth')

def test_files_that_are_none(tmp_path):
    (tmp_path/'a.safetensors').write_bytes(b'not a file of weights')
    with pytest.raises(WeightsError, match='can not be read'): load_features(tmp_path/'a.safetensors')
    with pytest.raises(WeightsError, match="there are no weights 'nowhere'"): load_features('nowhere')
    with pytest.raises(WeightsError, match='there is no such file'): read_features(tmp_path/'b.safetensors')
    with pytest.raises(SpiceError, match='no layout'): load_features('random', 'vgg11')

def test_one_pass_frozen_channels_last():
    net, calls = load_features('random', width=8), []
    net.conv1_1.register_forward_hook(lambda *_: calls.append(1))
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    maps = net(x, ['relu4_1', 'relu1_2', 'relu3_4'])
    assert len(calls) == 1 and all(not p.requires_grad for p in net.parameters())
    assert maps['relu3_4'].is_contiguous(memory_format=torch.channels_last)
    sum(o.sum() for o in maps.values()).backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0

def test_depth_of_a_pass():
    net, calls = load_features('random', width=4), []
    for name, layer in net.named_children(): layer.register_forward_hook(lambda *_, name=name: calls.append(name))
    net(torch.rand(1, 3, 32, 32), 'relu2_1')
    assert calls == ['conv1_1', 'conv1_2', 'conv2_1']

def test_precisions():
    net, x = load_features('random', width=8), torch.rand(1, 3, 32, 32)
    with torch.autocast('cpu', torch.bfloat16): low = net(x, 'relu2_1')['relu2_1']
    assert low.dtype == torch.bfloat16
    full = net(x, 'relu2_1')['relu2_1']
    torch.testing.assert_close(low.float(), full, rtol=.05, atol=.05)
    assert net.bfloat16()(x, 'relu2_1')['relu2_1'].dtype == torch.bfloat16
    torch.testing.assert_close(load_features('random', width=8).double()(x, 'relu2_1')['relu2_1'].float(), full, rtol=1e-4, atol=1e-5)

def test_gradient():
    net = load_features('random', width=4).double()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda o: net(o, 'relu3_1')['relu3_1'], x)

# what training does at its end

def test_folded_norms_compute_the_same():
    torch.manual_seed(1)
    net = train_features.Recogniser(Features(FeatureSettings((1, 2, 1), 4))).eval()
    for norm in net.norms.values():
        nn.init.uniform_(norm.weight, .5, 2)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(.5, 2)
        nn.init.normal_(getattr(net.features, f'conv{"1_1"}').bias)
    x = torch.rand(2, 3, 16, 16)
    wanted, block = x, '1'
    for number, norm in net.norms.items():
        if number[0] != block: wanted, block = F.max_pool2d(wanted, 2), number[0]
        wanted = F.relu(norm(getattr(net.features, f'conv{number}')(wanted)))
    torch.testing.assert_close(train_features.folded(net)(x, 'relu3_1')['relu3_1'], wanted, rtol=1e-4, atol=1e-5)

def test_even_scale_changes_only_the_scale():
    net, x = load_features('random', width=4), torch.rand(4, 3, 32, 32)
    for k in ('conv1_1', 'conv3_2'): getattr(net, k).bias.data.uniform_(0, .5)
    before = net(x, net.names)
    train_features.even_scale(net, x)
    for name, after in net(x, net.names).items():
        assert float(after.square().mean().sqrt()) == pytest.approx(.5, abs=1e-4)
        torch.testing.assert_close(after, .5*before[name]/before[name].square().mean().sqrt(), rtol=1e-3, atol=1e-4)

def test_augmenting_keeps_colours():
    image = torch.full((3, 3, 96, 96), 200, dtype=torch.uint8)
    out = train_features.augment(image)
    assert out.shape == (3, 3, 64, 64) and abs(float(out.mean()) - (200/127.5 - 1)) < .01

# what is shipped

@pytest.mark.parametrize('name', ['people', 'people-eval'])
def test_shipped(name):
    net = load_features(name)
    stem = 'features_' + name.replace('-', '_')
    assert packaged(f'{stem}.safetensors').stat().st_size < 10e6 and net.settings.name == name
    card = packaged(f'{stem}.md').read_text(encoding='utf-8')
    assert file_hash(packaged(f'{stem}.safetensors')) in card and name in card and 'People' in card
    photos = People(96, 'train', samples=1, device='cpu').draw(16, 77).image
    for k, v in net(photos, net.names).items(): assert .3 < float(v.square().mean().sqrt()) < .8, k

def test_shipped_two_differ():
    a, b = load_features('people'), load_features('people-eval')
    assert a.settings.width != b.settings.width and features_hash(a) != features_hash(b)

def test_settings_of_layout():
    net = Features(FeatureSettings((2, 2, 4, 4, 2), 12))
    assert settings_of(net.state_dict(), name='random') == net.settings
    numbered = {f'features.{n}.{o}': torch.zeros(1) for n in (0, 2, 5) for o in ('weight', 'bias')}
    assert list(from_torchvision(numbered)) == [f'conv{k}.{o}' for k in ('1_1', '1_2', '2_1') for o in ('weight', 'bias')]
