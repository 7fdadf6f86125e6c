"""How large the style terms of the systems are beside their other terms, on ImageNet features of an EfficientNet-Lite, and which weights would make them
alike.

    python benchmarks/style_weights.py --runs _ckpt/compare --photos _data/ccp256 --json benchmarks/results/style_weights.json

Each term is computed by the system's own function for three pictures in the place of the true photo: that photo slightly blurred, another person's photo,
and what a trained run made (`--runs`: a folder with runs `upis`, `gfla`, `dpt` of 64 pixels). Pairs are People's; `--photos`, a prepared dataset of single
photos, adds real ones, where each is its own truth. The layers of VGG that a system names are blocks of the network with maps of the same size, one step
coarser; `people`, VGG's layout with the weights that ship, is there for comparison. The scale of features matters: squares of Gram matrices grow with its
fourth power, squares of activations with its second. So the network is taken a second time with each layer divided by its root mean square on these
photos: for another network of such features, take these weights over the square of its own (DPT, UPIS, intrinsic flow), or over itself (GFLA).
"""
import argparse, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.functional import gaussian_blur
from spice.core import writing
from spice.data import Prepared
from spice.features import load_features
from spice.keypoints import Keypoints
from spice.losses import CONTENT, cycle_terms, features_of
from spice.measure.protocols import PeoplePairs, find_protocol
from spice.systems.dpt import DptWeights, looks
from spice.systems.gfla import GflaWeights
from spice.systems.intrinsic import IntrinsicWeights, image_terms
from spice.systems.upis import UpisWeights, belief_maps, content, patch_style
from spice.train import load_system, make_system

BLOCKS = ('block0', 'block2', 'block4', 'block10', 'block14')      # of maps of 1/2 to 1/32 of the picture, for relu1_* to relu5_*

class LikeVgg(nn.Module):
    "An EfficientNet-Lite that answers to the names of VGG's layers"
    def __init__(self, name, unit:bool=False):
        super().__init__()
        self.net, self.unit, self.scale = load_features(name, layers=BLOCKS), unit, dict.fromkeys(BLOCKS, 1.)
    def look_at(self, images):
        "Divide each layer by its root mean square on some photos, if it should"
        if self.unit: self.scale = {k: float(v.square().mean().sqrt()) for k, v in self.net(images).items()}
        return self
    def forward(self, images, layers):
        found = self.net(images)
        return {o: found[(k := BLOCKS[int(o[4]) - 1])]/self.scale[k] for o in layers}

def upis_terms(features, made, again, target, source, maps):
    "Content of the way back and style of the patches, Eq. (4) to (6), at z = relu3_3"
    layer = 'relu3_3' if isinstance(features, LikeVgg) else next(o for o in reversed(features.names) if o.startswith('relu3_'))
    there, back, true = (features_of(features, o, [layer]) for o in (made, again, source))
    w = UpisWeights()
    return {'content': (content(back, true, [layer]), w.identity), 'style': (patch_style(there[layer], true[layer], maps[1], maps[0]), w.identity*w.style)}

def dpt_terms(features, made, again, target, source, maps):
    "Eq. (1) and (3) as squares, as `dpt` has them"
    w, found = DptWeights(), looks(features, made, target)
    return {k: (found[k], getattr(w, k)) for k in ('percep', 'style')} | {'adv': (torch.tensor(.125), w.adv)}

def gfla_terms(features, made, again, target, source, maps):
    "Eq. (3) of SPICE, with the weights that GFLA and SPICE share"
    w, found = GflaWeights(), cycle_terms(features, made, target)
    return {k: (found[k], getattr(w, k)) for k in ('percep', 'style', 'pix')} | {'adv': (torch.tensor(.25), w.adv)}

def intrinsic_terms(features, made, again, target, source, maps):
    "Eq. (5) and (6): it has no style, and lambda_3 for its perceptual term"
    w, found = IntrinsicWeights(), image_terms(made, target, features)
    return {'l1': (found['l1'], w.l1), 'perceptual': (found['perceptual'], w.perceptual), 'adv': (torch.tensor(.25), w.adv)}

SYSTEMS = dict(upis=(upis_terms, 'style', 'content'), dpt=(dpt_terms, 'style', 'percep'), gfla=(gfla_terms, 'style', 'percep'),
               intrinsic=(intrinsic_terms, 'perceptual', 'l1'))   # its terms, the one whose weight is asked for, the one it should equal

def blurred(images): return gaussian_blur(images, 5, images.shape[3]/128)

def results(runs, batch):
    "What trained runs make of a batch: {system: (there, back)}"
    out, asked = {}, type(batch)({k: v for k, v in batch.items() if k != 'target_image'})
    for name in ('upis', 'gfla', 'dpt'):
        path = Path(runs)/name
        if (path/'config.json').is_file(): system = load_system(path, 'cpu')
        elif (path/'full'/'last'/'model.safetensors').is_file():
            system = make_system(name, json.loads((path/'plan.json').read_text())['preset'])
            system.read_weights(path/'full'/'last'/'model.safetensors').eval()
        else: continue
        made = system(asked)['image'].float()
        again = system.generate(made, system.maps(batch['source_points'])) if name == 'upis' else made
        out[name] = made, again
    return out | ({'intrinsic': out['gfla']} if 'gfla' in out else {})

def people(size, count):
    case = PeoplePairs(find_protocol('people-64' if size == 64 else 'people-128'), count, 'cpu').case(range(count))
    return case.batch

def photos(folder, size, count):
    "Photos of a prepared dataset at a size, each source and target at once"
    data = Prepared(folder)
    rows = data.rows('test')[:count]
    images = F.interpolate(torch.stack([data.image(int(i)) for i in rows]), (size, size), mode='area')
    points = Keypoints(data.points[rows], data.size).resize((size, size)).points
    return dict(source_image=images, target_image=images, source_points=points, target_points=points)

@torch.no_grad()
def measure(features, batch, cases):
    "Rows: each system, each case"
    source, target, identity = batch['source_image'], batch['target_image'], UpisWeights().identity
    maps = [belief_maps(batch[f'{o}_points'], tuple(source.shape[2:])) for o in ('source', 'target')]
    for name, (terms, asked, like) in SYSTEMS.items():
        for case, pictures in cases.items():
            made, again = pictures.get(name) or pictures.get('all') or (None, None)
            if made is None: continue
            found = terms(features, made, again, target, source, maps)
            value = {k: float(v) for k, (v, _) in found.items()}
            weighted = {k: float(v*w) for k, (v, w) in found.items()}
            factor = identity if name == 'upis' else 1.            # UPIS's lambda stands within the identity term
            yield dict(system=name, case=case, terms=value, weighted=weighted, share=weighted[asked]/max(weighted[like], 1e-12), asked=asked, like=like,
                       weight=found[asked][1]/factor, equal=weighted[like]/max(value[asked], 1e-12)/factor)

def plain(o): # four figures are enough
    if isinstance(o, dict): return {k: plain(v) for k, v in o.items()}
    return float(f'{o:.4g}') if isinstance(o, float) else o

def main():
    parser = argparse.ArgumentParser(description='Weights of style terms on ImageNet features')
    parser.add_argument('--runs', default='', help='a folder with trained runs upis, gfla, dpt of 64 pixels')
    parser.add_argument('--photos', default='', help='a prepared dataset of single photos')
    parser.add_argument('--count', type=int, default=32, help='pairs, or photos')
    parser.add_argument('--json', metavar='FILE', help='also write the rows to this file')
    args = parser.parse_args()
    rows, scale = [], {}
    networks = {'efficientnet-lite0': LikeVgg('efficientnet-lite0'), 'the same, of unit size': LikeVgg('efficientnet-lite0', True),
                'people': load_features('people')}
    for kind, features in networks.items():
        for data, size in (('people', 64), ('people', 128), *((('photos', 64), ('photos', 128)) if args.photos else ())):
            batch = people(size, args.count) if data == 'people' else photos(args.photos, size, args.count)
            source, target = batch['source_image'], batch['target_image']
            cases = {'blurred': {'all': (blurred(target), blurred(source))}, 'another': {'all': (target.roll(1, 0), source.roll(1, 0))}}
            if args.runs and data == 'people' and size == 64: cases['result'] = results(args.runs, batch)
            if isinstance(features, LikeVgg): features.look_at(target)
            scale[f'{kind}, {data} {size}'] = {k: float(f'{v.square().mean().sqrt():.4g}') for k, v in features_of(features, target, CONTENT).items()}
            for row in measure(features, batch, cases):
                rows.append(plain(dict(features=kind, data=data, size=size, **row)))
                print(f"{kind:<24}{data:<8}{size:<5}{row['system']:<10}{row['case']:<9}" + ', '.join(f'{k} {v:.3g}' for k, v in row['weighted'].items())
                      + f"; x{row['share']:.3g} of {row['like']}; alike with {row['equal']:.3g}", flush=True)
    if args.json:
        command = 'python benchmarks/style_weights.py ' + ' '.join(sys.argv[1:])
        with writing(args.json) as path: path.write_text(json.dumps(dict(command=command, count=args.count, scale=scale, rows=rows), indent=1))

if __name__ == '__main__': main()
