"""The rows of chapter 62 against their own warped sources, their grid, their curves, and a sheet of the same twelve pairs.

    python benchmarks/spice_rows.py _ckpt/spice --rows paper,mended
    python benchmarks/spice_rows.py _ckpt/spice --rows mended-no-shape,mended-no-pose --sheet spice_ablation.webp

Writes spice_own_warp.json and spice_curves.csv of benchmarks/results, where rows that are not asked for stay as they are, and the sheet into nbs/images.
Rows without `mended` are set beside the model `people`, which has its weights in 16 bits: in the sheet, and pair by pair in spice_apart.json. The
other figures are `spice_eval`'s (see `spice.measure.at_work.row_commands`).
"""
import argparse, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from systems import apart
from spice.measure.at_work import ROWS, against_own_warp, grid, row_sheet
from spice.core import save_image, writing
from spice.measure.evaluate import weights_hash
from spice.measure.protocols import PROTOCOLS, PeoplePairs
from spice.runs import log_rows
from spice.train import load_system

RESULTS = Path(__file__).resolve().parent/'results'
IMAGES = RESULTS.parent.parent/'nbs'/'images'
SHOWN = [3, 87, 160, 241, 333, 402, 468, 555, 640, 721, 808, 911] # pairs of the sheet, chosen before any row was trained
CURVES = ('pix', 'adv', 'critic', 'theta', 'beta', 'app_style')

def own_warp_figures(system, pairs)->dict:
    "Means over all pairs"
    parts = [against_own_warp(system, case) | dict(grid_of_truth=grid(case.wanted)) for case in pairs]
    return {k: round(float(torch.cat([o[k] for o in parts]).nanmean()), 4) for k in parts[0]}

def curves(folder)->list: # of lines of csv
    "The stage `full`, over photos seen"
    rows = log_rows(folder/'full'/'log.csv')[3::8]
    return [','.join([folder.name, str(int(o['step'])*8), *(f'{o[k]:.5g}' if k in o else '' for k in CURVES)]) for o in rows]

def keep(path, count, found):
    "Write figures beside those of other rows, which must be of as many pairs"
    before = json.loads(path.read_text()) if path.is_file() else dict(pairs=count, rows={})
    if before['pairs'] != count: raise SystemExit(f'{path.name} is of {before["pairs"]} pairs, not of {count}')
    with writing(path) as f: Path(f).write_text(json.dumps(dict(pairs=count, rows=before['rows'] | found), indent=1))

def keep_curves(path, found):
    "Write curves beside those of other rows"
    before = path.read_text().splitlines()[1:] if path.is_file() else []
    lines = [','.join(['row', 'photos', *CURVES]), *(o for o in before if o.partition(',')[0] not in found), *(o for rows in found.values() for o in rows)]
    with writing(path) as f: Path(f).write_text('\n'.join(lines) + '\n')

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--rows', default=','.join(ROWS))
    parser.add_argument('--count', type=int, default=1000)
    parser.add_argument('--sheet', default='spice_rows.webp')
    args = parser.parse_args()
    systems = {o: load_system(args.folder/o, 'cpu').eval() for o in args.rows.split(',')}
    pairs = PeoplePairs(PROTOCOLS['people-64'], args.count, 'cpu')
    found = {k: own_warp_figures(o, pairs) | dict(weights=weights_hash(o)) for k, o in systems.items()}
    keep(RESULTS/'spice_own_warp.json', args.count, found)
    keep_curves(RESULTS/'spice_curves.csv', {o: curves(args.folder/o) for o in systems})
    shown = systems
    if 'mended' not in systems:
        shown = dict(mended=load_system('people', 'cpu').eval()) | systems
        beside = apart([*(args.folder/o for o in systems), 'people'], args.count, 'people')
        with writing(RESULTS/'spice_apart.json') as f: Path(f).write_text(json.dumps(beside, indent=1))
    titles = {k.removeprefix('mended-'): o for k, o in shown.items()}
    save_image(row_sheet(titles, PeoplePairs(PROTOCOLS['people-64'], 1000, 'cpu').case(SHOWN)), IMAGES/args.sheet)
    print(json.dumps(found, indent=1))

if __name__ == '__main__': main()
