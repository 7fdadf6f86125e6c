"""Train a feature network on People: `people` (for losses) or `people-eval` (for measures only).

    python scripts/train_features.py people                # writes spice/assets/features_people.safetensors and its model card
    python scripts/train_features.py people-eval
    python scripts/train_features.py people --quick        # a rehearsal of a minute, writes to _ckpt/

A VGG of modest width learns to name the attributes of dressed people (`spice.people.wardrobe.ATTRIBUTES`): kinds, patterns, colours, hair, lengths. It is
trained with batch norm, which is folded into the convolutions at the end, so that the shipped network is convolutions and ReLUs only. Last, each layer
is scaled so that its activations have a root mean square of 0.5 over photos of People: weights of losses then mean the same at every layer, and Gram
matrices, which are divided by the number of channels, are as large as those of a VGG of four times the width and twice the activations.
Photos come from the split 'train' only; 'test' is looked at once, for the card. On two cores a network takes about half an hour.
"""
import argparse, math, platform, sys, time
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from spice.core import file_hash, get_device, set_seed, writing
from spice.features import Features, FeatureSettings
from spice.people import SPLITS, People
from spice.people.wardrobe import ATTRIBUTES

BLOCKS = (2, 2, 4, 4, 2)              # VGG-19 without its last two layers, which no loss of the five papers uses
NETWORKS = {'people': dict(width=16, seed=1, first=1, steps=2000), 'people-eval': dict(width=12, seed=2, first=100_001, steps=1500)}
PHOTO, CROP = 96, 64                  # pixels of a photo, and of what the network sees in training
RMS = .5                              # of every layer's activations

def photographs(split, count, first=1, device=None, batch=50):
    "Photos as bytes [n, 3, h, w] and their attributes [n, a]"
    people, images, marks = People(PHOTO, split, samples=1, device=device), [], []
    for step in range(math.ceil(count/batch)):
        o = people.draw(batch, first + step) if split == 'train' else people.photos(np.arange(step*batch, (step + 1)*batch), 0)
        images.append(((o.image + 1)*127.5).round().to(torch.uint8))
        marks.append(o.attributes)
    return torch.cat(images), torch.cat(marks)

def augment(images):
    "Another cut and side of each photo, and a little grain; colours stay"
    b, side = len(images), torch.rand(len(images), device=images.device)*.33 + .67
    move = (torch.rand(b, 2, device=images.device)*2 - 1)*(1 - side)[:, None]
    flip = torch.where(torch.rand(b, device=images.device) < .5, -1., 1.)
    zero = torch.zeros_like(side)
    theta = torch.stack([torch.stack([side*flip, zero, move[:, 0]], 1), torch.stack([zero, side, move[:, 1]], 1)], 1)
    x = F.grid_sample(images.float()/127.5 - 1, F.affine_grid(theta, (b, 3, CROP, CROP), align_corners=False), align_corners=False, padding_mode='border')
    return x + torch.randn_like(x)*.02

class Recogniser(nn.Module):
    "The feature network with batch norm, and a head for each attribute"
    def __init__(self, features):
        super().__init__()
        self.features, self.norms = features, nn.ModuleDict()
        for number, (_, c) in features.settings.convs.items():
            conv = getattr(features, f'conv{number}')
            nn.init.kaiming_normal_(conv.weight, nonlinearity='relu')
            nn.init.zeros_(conv.bias)
            self.norms[number] = nn.BatchNorm2d(c)
        self.body = nn.Sequential(nn.Flatten(), nn.Dropout(.3), nn.Linear(16*c, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(.2))
        self.heads = nn.ModuleList([nn.Linear(256, len(words)) for words in ATTRIBUTES.values()])
    def forward(self, x):
        block = '1'
        for number, norm in self.norms.items():
            if number[0] != block: x, block = F.max_pool2d(x, 2), number[0]
            x = F.relu(norm(getattr(self.features, f'conv{number}')(x)))
        x = self.body(F.adaptive_avg_pool2d(x, 4))
        return [head(x) for head in self.heads]

@torch.no_grad()
def folded(net):
    "The feature network with its norms inside the convolutions"
    out = Features(net.features.settings).to(next(net.parameters()).device)
    for number, norm in net.norms.items():
        conv, new = getattr(net.features, f'conv{number}'), getattr(out, f'conv{number}')
        gain = norm.weight/(norm.running_var + norm.eps).sqrt()
        new.weight.copy_(conv.weight*gain[:, None, None, None])
        new.bias.copy_((conv.bias - norm.running_mean)*gain + norm.bias)
    return out.freeze()

@torch.no_grad()
def even_scale(net, images, wanted=RMS):
    "Scale each layer to one root mean square over some photos: a ReLU lets positive factors through, so the network stays the same function"
    before, all_rms = 1., [float(o.square().mean().sqrt()) for o in net(images, net.names).values()]
    for number, now in zip(net.settings.convs, all_rms):
        rms = now/wanted
        conv = getattr(net, f'conv{number}')
        conv.weight.mul_(before/rms)
        conv.bias.div_(rms)
        before = rms

@torch.no_grad()
def accuracies(net, images, marks, batch=100):
    "Share of right answers for each attribute, on the middle of the photos resized to what training saw"
    net.eval()
    right = []
    for i in range(0, len(images), batch):
        x = F.interpolate(images[i:i + batch].float()/127.5 - 1, CROP, mode='bilinear', antialias=True)
        right.append(torch.stack([o.argmax(1) for o in net(x)], 1) == marks[i:i + batch])
    return torch.cat(right).float().mean(0).tolist()

def train(net, images, marks, steps, batch, rate):
    "AdamW, one cycle, the sum of the attributes' cross-entropies"
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=.2)
    order, start, mean = [], time.time(), None
    for step in range(steps):
        if len(order) < batch: order = torch.randperm(len(images), device=images.device)
        some, order = order[:batch], order[batch:]
        x = augment(images[some]).to(memory_format=torch.channels_last)
        loss = sum(F.cross_entropy(o, m) for o, m in zip(net(x), marks[some].T))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        mean = loss.item() if mean is None else .98*mean + .02*loss.item()
        if step % 50 == 0 or step == steps - 1: print(f'step {step}/{steps}, loss {mean:.2f}, {time.time() - start:.0f} s', flush=True)

def card(path, args, net, scores, majority, seconds, count, tested):
    "The model card"
    rows = [f'| {k} | {len(v)} | {m:.1%} | {s:.1%} |' for (k, v), m, s in zip(ATTRIBUTES.items(), majority, scores)]
    s, parameters = net.settings, sum(o.numel() for o in net.parameters())
    use = 'losses' if args.name == 'people' else 'measures only: it never takes part in training'
    return '\n'.join([
        f'# {path.stem}', '',
        f'A feature network for {use}. Load it with `spice.features.load_features({args.name!r})`.', '',
        f'- Layout: VGG with {", ".join(str(o) for o in s.blocks)} convolutions in its blocks (VGG-19 without relu5_3 and relu5_4), width {s.width}, '
        f'{parameters:,} parameters, half precision, {path.stat().st_size/1e6:.1f} MB, hash `{file_hash(path)}`.',
        '- Input: images in [-1, 1].',
        f"- Data: {count:,} photos of People at {PHOTO} x {PHOTO} pixels, split 'train', one sample a pixel; seen in cuts of {CROP} x {CROP} pixels, mirrored at times, "
        'with a little grain. No outfit, pose or studio of the splits valid and test.',
        f'- Training: `python scripts/train_features.py {args.name}`, seed {args.seed}, {args.steps} steps of {args.batch} photos, AdamW at {args.rate:g}, one cycle, '
        f'{seconds/60:.0f} minutes for training on {args.machine}, {torch.get_num_threads()} thread(s), torch {torch.__version__}. Batch norm in training, folded into the convolutions.',
        f'- Scale: every layer has a root mean square of {RMS} over 200 photos of the training split.',
        f'- Accuracy on {tested:,} photos of the test split, one of each outfit (a back view hides a neck, a hat hides hair, a seated person a length):', '',
        '| attribute | words | most frequent word | right |', '|---|---|---|---|', *rows,
        f'| mean | | {sum(majority)/len(majority):.1%} | {sum(scores)/len(scores):.1%} |', '',
        '- Limits: it has seen computed people only. Distances in it rank pictures of People; they are not ImageNet distances, and numbers from the two never compare.',
        '- Licence: Apache-2.0, as the library; the data are computed by the library itself.', ''])

def main():
    parser = argparse.ArgumentParser(description='Train a feature network on People')
    parser.add_argument('name', choices=NETWORKS)
    parser.add_argument('--photos', type=int, default=7000)
    parser.add_argument('--steps', type=int, help='2000 for people, 1500 for people-eval')
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--rate', type=float, default=3e-3)
    parser.add_argument('--device')
    parser.add_argument('--keep', metavar='FOLDER', help='where rendered photos are kept between runs')
    parser.add_argument('--quick', action='store_true', help='a rehearsal: little data, few steps, nothing shipped is touched')
    args = parser.parse_args()
    if args.quick: args.photos, args.steps = 300, 30
    args.steps = args.steps or NETWORKS[args.name]['steps']
    args.seed, device = NETWORKS[args.name]['seed'], get_device(args.device)
    args.machine = torch.cuda.get_device_name(device) if device.type == 'cuda' else f'a {platform.machine()} CPU'
    set_seed(args.seed)
    sets = {}
    for split, count, first in (('train', args.photos, NETWORKS[args.name]['first']), ('test', 100 if args.quick else SPLITS['test'][1], 0)):
        kept = Path(args.keep)/f'{split}_{count}_{first}.pt' if args.keep else None
        if kept and kept.exists(): sets[split] = torch.load(kept, map_location=device, weights_only=True)
        else:
            sets[split] = photographs(split, count, first, device)
            if kept:
                with writing(kept) as f: torch.save(sets[split], f)
        print(f'{split}: {len(sets[split][0])} photos', flush=True)
    net = Recogniser(Features(FeatureSettings(BLOCKS, NETWORKS[args.name]['width'], args.name))).to(device, memory_format=torch.channels_last)
    start = time.time()
    train(net, *sets['train'], args.steps, args.batch, args.rate)
    finish(args, net, sets, time.time() - start)

def finish(args, net, sets, seconds):
    "Fold, scale, check, write"
    scores, marks = accuracies(net, *sets['test']), sets['test'][1]
    majority = [float((m == torch.bincount(n).argmax()).float().mean()) for m, n in zip(marks.T, sets['train'][1].T)]
    sample = sets['train'][0][:200].float()/127.5 - 1
    features = folded(net)
    even_scale(features, sample)
    for o in features(sample, features.names).values(): assert abs(float(o.square().mean().sqrt()) - RMS) < .01
    folder = Path(__file__).resolve().parent.parent/('_ckpt' if args.quick else 'spice/assets')
    path = folder/f"features_{args.name.replace('-', '_')}.safetensors"
    features.save(path)
    text = card(path, args, features, scores, majority, seconds, len(sets['train'][0]), len(marks))
    with writing(path.with_suffix('.md')) as f: f.write_text(text, encoding='utf-8')
    print(text)

if __name__ == '__main__': main()
