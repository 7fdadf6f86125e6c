"""The ablations of the other papers, each row trained for a few photos on People at 64 pixels: what the rows differ in, not how good they can get.

    python benchmarks/ablations.py dpt                     # or intrinsic, upis, parsing; the same command goes on after a stop
    python benchmarks/ablations.py dpt --photos 10000 --pairs 200 --out _ckpt/ablations

Writes benchmarks/results/ablation_dpt.json: for each row its settings, photos and hours, and its figures with 95% intervals over the pairs.
"""
import argparse, json, sys
from copy import copy
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from spice.core import SpiceError, writing
from spice.loaders import Batch
from spice.measure.benchmark import budget, stage_steps
from spice.measure.evaluate import evaluate_rows, open_row
from spice.runs import Plan, train
from spice.systems.dpt import VARIANTS
from spice.systems.intrinsic import SYSTEM_PARTS
from spice.systems.parsing import PARSING_VARIANTS

def losses(*on): return {k: 0. for k in ('percep', 'style', 'adv') if k not in on}
def bodies(kind): return dict(variant='predictive', source_pose=kind, target_pose=kind)

# {system: {row of its paper's table: (settings, weights of terms)}}
ROWS = {
    'dpt': {**{f'table 3: {o}': (bodies(k), losses()) for o, k in (
                ('foreground mask', 'mask'), ('body parts', 'parts'), ('keypoints', 'keypoints'), ('I, U, V', 'iuv'), ('one-hot I, U, V', 'onehot'))},
            **{f'table 4: {o}': (dict(variant=o), losses()) for o in VARIANTS},
            **{f"table 5: {', '.join(['L1', *on])}": ({}, losses(*on)) for on in (
                ('percep',), ('style',), ('percep', 'style'), ('adv',), ('percep', 'adv'), ('style', 'adv'), ('percep', 'style', 'adv'))}},
    'intrinsic': {'full': ({}, {}), **{f'without {o}': (dict(without=o), {}) for o in SYSTEM_PARTS}},
    'upis': {'full': ({}, {}), 'figure 5: L1 in place of identity': ({}, dict(identity=0., pixel=10.)), 'without the way back': ({}, dict(back=0.))},
    'parsing': {o: (dict(variant=o), {}) for o in PARSING_VARIANTS},
}
def measured_row(run, name):
    "The row of a run; TS-GT is given the true map of the target, as in its paper"
    row = open_row(run, 'cpu', name)
    def make(case, mean):
        known = copy(case)
        known.batch = Batch(case.batch | dict(target_parsing=case['photos'].parsing))
        return row.make(known, mean)
    return replace(row, make=make) if name == 'TS-GT' else row

MEASURED = ('l1', 'ssim', 'lpips-people', 'regions')

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('system', choices=ROWS)
    parser.add_argument('--photos', type=int, default=10_000, help='that each row is trained with')
    parser.add_argument('--pairs', type=int, default=200, help='that each row is measured with')
    parser.add_argument('--pool', type=int, default=1000, help='People at a time')
    parser.add_argument('--out', default='_ckpt/ablations')
    args = parser.parse_args()
    names, runs = [*ROWS[args.system]], []
    for number, name in enumerate(names):
        settings, weights = ROWS[args.system][name]
        steps = stage_steps(args.system, 'tiny', args.photos, **settings)
        plan = Plan(args.system, 'tiny', 'people', [*steps], [*steps.values()], settings=settings, weights=weights, ema=.995, decay=.5, quiet=True,
                    pool=args.pool, every=25, samples=10**6, checkpoint=100)
        runs.append(train(Path(args.out)/args.system/f'{number:02}', plan, 'cpu'))
        print(f'{name}: {budget(runs[-1])}', flush=True)
    results = evaluate_rows([measured_row(o, name) for o, name in zip(runs, names)], 'people-64', count=args.pairs, measures=list(MEASURED), device='cpu')
    found = dict(command=' '.join(['python', 'benchmarks/ablations.py', *sys.argv[1:]]), photos=args.photos, pairs=args.pairs, rows={})
    for name, run, result in zip(names, runs, results):
        spent = budget(run)
        figures = {k: [round(v[o], 4) for o in ('mean', 'low', 'high')] for k, v in result.values.items() if v}
        found['rows'][name] = dict(photos=spent.total, hours=round(spent.hours, 2), weights=result.system['weights'],
                                   plan=spent.variant, values=figures)
        print(name, figures)
    path = Path(__file__).resolve().parent/'results'/f'ablation_{args.system}.json'
    with writing(path) as f: Path(f).write_text(json.dumps(found, indent=1))

if __name__ == '__main__':
    try: main()
    except SpiceError as e: sys.exit(f'{e}')
