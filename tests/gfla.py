"""The architecture of Ren et al. (2020) once more, as literally as possible: plain functions of a state dict with the names of the public files, and local
attention that builds every block. The oracle of the networks' tests, and what the benchmark measures against."""
import torch
import torch.nn.functional as F

# ---- local attention

def blocks(x, flow, k, grid=False):
    "For each target pixel the k x k block around its place in the source, [b, c, k*h, k*w]; each corner of each sample is clamped by itself"
    (b, c, hs, ws), (h, w), r = x.shape, flow.shape[2:], k//2
    at = dict(device=x.device)
    dx, dy = (torch.arange(k*n, **at) % k - r for n in (w, h))
    place = flow.repeat_interleave(k, 2).repeat_interleave(k, 3)
    px = place[:, 0] + dx + torch.arange(w, **at).repeat_interleave(k)
    py = place[:, 1] + (dy + torch.arange(h, **at).repeat_interleave(k))[:, None]
    if grid: return F.grid_sample(x, torch.stack([2*px/(ws - 1) - 1, 2*py/(hs - 1) - 1], -1).to(x.dtype), padding_mode='border', align_corners=True)
    total, x0, y0 = 0, px.floor(), py.floor()
    for ex in (0, 1):
        for ey in (0, 1):
            ix, iy = (x0.long() + ex).clamp(0, ws - 1), (y0.long() + ey).clamp(0, hs - 1)
            share = (px - x0 if ex else 1 - (px - x0))*(py - y0 if ey else 1 - (py - y0))
            corner = x.flatten(2).gather(2, (iy*ws + ix).view(b, 1, -1).expand(-1, c, -1)).view(b, c, k*h, k*w)
            total = total + share[:, None].to(x.dtype)*corner
    return total

def attention(weights, source, target, flow, grid=False):
    "Mean over each block of weight times sample; `weights` of the two layers: w1, b1, w2, b2"
    w1, b1, w2, b2 = weights
    k, (b, _, h, w) = w1.shape[-1], target.shape
    seen, own = blocks(source, flow, k, grid), blocks(target, torch.zeros_like(flow), k, grid)
    hidden = F.leaky_relu(F.conv2d(torch.cat([own, seen], 1), w1, b1, stride=k), .1)
    share = F.conv2d(hidden, w2, b2).softmax(1)
    share = share.view(b, k, k, h, w).permute(0, 3, 1, 4, 2).reshape(b, 1, k*h, k*w)
    return F.avg_pool2d(share*seen, k, k)

# ---- generator

def norm(s, name, x): return F.instance_norm(x, weight=s[f'{name}.weight'], bias=s[f'{name}.bias'])
def lrelu(x): return F.leaky_relu(x, .1)
def conv(s, name, x, stride=1, padding=0): return F.conv2d(x, s[f'{name}.weight'], s[f'{name}.bias'], stride, padding)
def up(s, name, x): return F.conv_transpose2d(x, s[f'{name}.weight'], s[f'{name}.bias'], 2, 1, 1)
def mirror(x): return F.pad(x, [1]*4, 'reflect')

def encoder_block(s, name, x):
    x = conv(s, f'{name}.model.2', lrelu(norm(s, f'{name}.model.0', x)), 2, 1)
    return conv(s, f'{name}.model.5', lrelu(norm(s, f'{name}.model.3', x)), 1, 1)

def res_block(s, name, x):
    y = conv(s, f'{name}.model.2', lrelu(norm(s, f'{name}.model.0', x)), 1, 1)
    return conv(s, f'{name}.model.5', lrelu(norm(s, f'{name}.model.3', y)), 1, 1) + x

def decoder_block(s, name, x):
    y = conv(s, f'{name}.model.2', lrelu(norm(s, f'{name}.model.0', x)), 1, 1)
    return up(s, f'{name}.model.5', lrelu(norm(s, f'{name}.model.3', y))) + up(s, f'{name}.shortcut.0', x)

def encoders(s, name, x, n):
    "All maps, fine to coarse"
    maps = [encoder_block(s, f'{name}.block0', x)]
    for i in range(n - 1): maps.append(encoder_block(s, f'{name}.encoder{i}', maps[-1]))
    return maps

def flow_net(s, image, source_heat, target_heat, levels):
    "Flows and masks at the levels (counted in halvings) given, coarse to fine"
    maps, flows, masks = encoders(s, 'flow_net', torch.cat([image, source_heat, target_heat], 1), 5), [], []
    x = maps[4]
    for i, level in enumerate((4, 3, 2)):
        x = decoder_block(s, f'flow_net.decoder{i}', x) + conv(s, f'flow_net.jump{i}.conv1', mirror(lrelu(maps[level - 1])))
        if level in levels:
            flows.append(conv(s, f'flow_net.output{i}', x, 1, 1))
            masks.append(conv(s, f'flow_net.mask{i}.0', x, 1, 1).sigmoid())
    return flows, masks

def generator(s, image, source_heat, target_heat, levels=(3, 2), guide=None, grid=False):
    "Image, flows, masks; `levels` with attention: (3, 2) for fashion, (2,) for Market"
    flows, masks = flow_net(s, image if guide is None else guide, source_heat, target_heat, levels)
    sources, x, at = encoders(s, 'source', image, 3), encoders(s, 'target', target_heat, 3)[-1], 0
    for i, level in enumerate((3, 2, 1)):
        if level in levels:
            name = f'target.attn{i}.fully_connect_layer'
            weights = [s[f'{name}.{k}'] for k in ('0.weight', '0.bias', '2.weight', '2.bias')]
            x = x*(1 - masks[at]) + attention(weights, sources[level - 1], x, flows[at], grid)*masks[at]
            at += 1
        x = decoder_block(s, f'target.decoder{i}.1', res_block(s, f'target.decoder{i}.0.model.0', x))
    return conv(s, 'target.outconv.conv1', mirror(lrelu(x))).tanh(), flows, masks

# ---- the names in the public file

def pair(name): return [f'{name}.weight', f'{name}.bias']

def generator_names(levels=(3, 2)):
    "Every name in latest_net_G.pth"
    norms, convs = ('model.0', 'model.3'), ('model.2', 'model.5')
    block = lambda name: [k for o in norms + convs for k in pair(f'{name}.{o}')]
    twins = lambda name, i: pair(f'{name}.conv1') + pair(f'{name}.model.{i}')
    names = []
    for net, n in (('source', 3), ('target', 3), ('flow_net', 5)):
        for o in ['block0'] + [f'encoder{i}' for i in range(n - 1)]: names += block(f'{net}.{o}')
    for i, level in enumerate((3, 2, 1)):
        names += block(f'target.decoder{i}.0.model.0') + block(f'target.decoder{i}.1') + pair(f'target.decoder{i}.1.shortcut.0')
        if level in levels: names += pair(f'target.attn{i}.fully_connect_layer.0') + pair(f'target.attn{i}.fully_connect_layer.2')
    for i, level in enumerate((4, 3, 2)):
        names += block(f'flow_net.decoder{i}') + pair(f'flow_net.decoder{i}.shortcut.0') + twins(f'flow_net.jump{i}', 2)
        if level in levels: names += pair(f'flow_net.output{i}') + pair(f'flow_net.mask{i}.0')
    return names + twins('target.outconv', 2)

# ---- discriminator, spectral norm in the old hook's form

def normed(s, name):
    "The stored weight over its largest singular value, by the stored vectors"
    w, u, v = (s[f'{name}.weight_{o}'] for o in ('orig', 'u', 'v'))
    return w/torch.dot(u, w.flatten(1) @ v)

def critic(s, x, levels=4):
    sn = lambda name, x, stride=1, padding=0: F.conv2d(x, normed(s, name), s[f'{name}.bias'], stride, padding)
    for name in ['block0'] + [f'encoder{i}' for i in range(levels - 1)]:
        y = sn(f'{name}.model.3', lrelu(sn(f'{name}.model.1', lrelu(x), 1, 1)), 2, 1)
        x = y + sn(f'{name}.shortcut.1', F.avg_pool2d(x, 2))
    return sn('conv', lrelu(x))

def critic_names(levels=4):
    parts = [f'{b}.{o}' for b in ['block0'] + [f'encoder{i}' for i in range(levels - 1)] for o in ('model.1', 'model.3', 'shortcut.1')] + ['conv']
    return [f'{o}.{k}' for o in parts for k in ('bias', 'weight_orig', 'weight_u', 'weight_v')]
