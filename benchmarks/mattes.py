"""How near mattes are to the truth, with and without each of their two steps.

    python benchmarks/mattes.py --json benchmarks/results/mattes.json                 # People: 100 photos of 512 x 512
    python benchmarks/mattes.py --ccp FOLDER --json benchmarks/results/mattes.json    # and Clothing Co-Parsing
    python benchmarks/mattes.py --ccp FOLDER --squares --json benchmarks/results/squares.json # what the second look of chapter 01c brings there

FOLDER is a clone of Clothing Co-Parsing; every tenth of its 1,004 labelled photos is taken, unless its labels are empty.
The error is the mean of |alpha - truth| over the band of eight pixels to each side of the true outline (chapter 01d).
CCP's labels are drawn by hand, roughly, so part of the error there is theirs.
"""
import argparse, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import torch
from PIL import Image
from scipy.io import loadmat
import spice.blazepose as blazepose_module
from spice.blazepose import BlazePose, mask_of
from spice.core import progress, read_image, to_pil, writing
from spice.matte import WORK, _around, _unit, band_error, guided, matte, recolour
from spice.people import People

def variants(photo, person):
    "The mask as it is, each step alone, and both"
    coarse = mask_of(person, (photo.height, photo.width))
    box = _around(coarse, .04)
    part, scale = photo.crop(box), min(1., WORK/person.region.side)
    size = max(8, round(part.width*scale)), max(8, round(part.height*scale))
    image, large = _unit(part.resize(size, Image.Resampling.BOX)), _unit(part)
    mask = _unit(coarse.crop(box).resize(size, Image.Resampling.BOX))
    coloured = recolour(image, mask, 9)
    enlarged = torch.nn.functional.interpolate(coloured, large.shape[2:], mode='bilinear')
    found = dict(mask=_unit(coarse.crop(box)), colours=enlarged,
                 guided=guided(image, mask, large), both=guided(image, coloured, large))
    whole = {name: torch.zeros(1, 1, photo.height, photo.width) for name in found}
    for name, alpha in found.items(): whole[name][..., box[1]:box[3], box[0]:box[2]] = alpha
    return whole

def measured(pairs, blazepose):
    "Mean error of each variant over photos with their truth"
    rows, missed = [], 0
    for photo, true in progress(pairs):
        people = blazepose.look(photo)
        missed += not people
        if people: rows.append([float(band_error(alpha, true)) for alpha in variants(photo, people[0]).values()])
    return dict(zip(('mask', 'colours', 'guided', 'both'), np.mean(rows, 0).round(4).tolist()), photos=len(rows), missed=missed)

def people_pairs(count):
    "People with the truth"
    for k in range(0, count, 20):
        photos = People(512, 'valid', poses='everyday', yaw=60., device='cpu').photos(list(range(k, min(k + 20, count))))
        yield from zip(to_pil(photos.image), (photos.parsing > 0).float()[:, None, None])

def ccp_pairs(root, every):
    "Labelled photos of Clothing Co-Parsing"
    for path in sorted((Path(root)/'annotations'/'pixel-level').glob('*.mat'))[::every]:
        true = torch.from_numpy(loadmat(path)['groundtruth'] > 0).float()[None, None]
        if true.any(): yield read_image(Path(root)/'photos'/f'{path.stem}.jpg'), true      # photo 0536 has no labels

def squares(pairs, blazepose):
    "The share of people that mattes miss, with the detector's square and with the network's own, where these differ"
    finder_only, whole, rows, count = (lambda region, look, size: (region, look(region))), blazepose_module.whole_person, [], 0
    for photo, true in progress(pairs):
        found = []
        for choose in (finder_only, whole):
            blazepose_module.whole_person = choose
            found.append(blazepose.look(photo)[0])
        count += 1
        if found[0].region.side == found[1].region.side: continue
        alphas = [torch.from_numpy(np.array(matte(photo, one)))/255 for one in found]
        rows.append([float((true[0, 0]*(1 - alpha)).sum()/true.sum()) for alpha in alphas])
    before, after = np.mean(rows, 0).round(4).tolist()
    return dict(photos=count, again=len(rows), missed_before=before, missed_after=after)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--ccp', default='')
    parser.add_argument('--json', default='')
    parser.add_argument('--quick', action='store_true', help='a tenth of it')
    parser.add_argument('--squares', action='store_true', help='only the second look')
    args, blazepose = parser.parse_args(), BlazePose(threads=1)
    command = 'python benchmarks/mattes.py' + (' --ccp FOLDER' if args.ccp else '')
    if args.squares: out = dict(command=f'{command} --squares') | squares(ccp_pairs(args.ccp, 100 if args.quick else 10), blazepose)
    else: out = dict(command=command + ' --json benchmarks/results/mattes.json',
                     people=measured(people_pairs(10 if args.quick else 100), blazepose))
    if args.ccp and not args.squares: out['ccp'] = measured(ccp_pairs(args.ccp, 100 if args.quick else 10), blazepose)
    print(json.dumps(out, indent=1))
    if args.json:
        with writing(args.json) as path: path.write_text(json.dumps(out, indent=1))
