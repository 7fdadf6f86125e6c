"""The rows of chapter 62 against their own warped sources, their grid, their curves, and a sheet of the same twelve pairs.

    python benchmarks/spice_rows.py _ckpt/spice --rows paper,mended        # writes benchmarks/results/spice_own_warp.json, spice_curves.csv, nbs/images/spice_rows.webp

The other figures are `spice_eval`'s (see `spice.measure.at_work.row_commands`).
"""
import argparse, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from spice.measure.at_work import ROWS, against_own_warp, grid, row_sheet
from spice.core import save_image, writing
from spice.measure.evaluate import weights_hash
from spice.measure.protocols import PROTOCOLS, PeoplePairs
from spice.runs import log_rows
from spice.train import load_system

RESULTS = Path(__file__).resolve().parent/'results'
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

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--rows', default=','.join(ROWS))
    parser.add_argument('--count', type=int, default=1000)
    args = parser.parse_args()
    systems = {o: load_system(args.folder/o, 'cpu').eval() for o in args.rows.split(',')}
    pairs = PeoplePairs(PROTOCOLS['people-64'], args.count, 'cpu')
    found = {k: own_warp_figures(o, pairs) | dict(weights=weights_hash(o)) for k, o in systems.items()}
    with writing(RESULTS/'spice_own_warp.json') as f: Path(f).write_text(json.dumps(dict(pairs=args.count, rows=found), indent=1))
    lines = [','.join(['row', 'photos', *CURVES]), *(line for o in systems for line in curves(args.folder/o))]
    with writing(RESULTS/'spice_curves.csv') as f: Path(f).write_text('\n'.join(lines) + '\n')
    titles = {k.removeprefix('mended-'): o for k, o in systems.items()}
    save_image(row_sheet(titles, PeoplePairs(PROTOCOLS['people-64'], 1000, 'cpu').case(SHOWN)), RESULTS.parent.parent/'nbs'/'images'/'spice_rows.webp')
    print(json.dumps(found, indent=1))

if __name__ == '__main__': main()
