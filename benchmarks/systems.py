"""The systems of chapter 60, trained on the same number of photos: what each cost, how far they are apart pair by pair, and a sheet of the same pairs.

    python benchmarks/systems.py _ckpt/compare/gfla,_ckpt/compare/upis,_ckpt/spice/mended # writes benchmarks/results/systems_cost.json, systems_apart.json and nbs/images/systems.webp
    python benchmarks/systems.py _ckpt/compare/upis-seed1 --name more --anchor carried # the same, more_cost.json and so on

    python benchmarks/systems.py --times                  # systems_ms.json: a picture by each kind of system, untrained, one after the other on one thread

The other figures are `spice_eval`'s: benchmarks/results/systems_people_64.json.
"""
import argparse, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from common import median_ms
from spice.measure.at_work import row_sheet
from spice.measure.benchmark import budget, same_budget
from spice.core import save_image, writing
from spice.measure.evaluate import evaluate_rows, weights_hash
from spice.measure.protocols import PROTOCOLS, PeoplePairs
from spice.measure.results import difference
from spice.guided import GuidedSettings
from spice.train import load_system, make_system

ROOT = Path(__file__).resolve().parent.parent
SHOWN = [3, 46, 87, 133, 160, 204, 241, 298, 333, 367, 402, 468, 555, 640, 721, 808]       # pairs of the sheet, picked without looking
TEACHERS = ('critic', 'detector')                                                          # parts that only training needs
PAIRED = ('l1', 'lpips-people', 'lpips-lite1')                                             # measured pair by pair
PLAIN = ('copy-source', 'warp-true-flow', 'carried')                                       # rows without learning

def parameters(system)->int:
    "Numbers of all parts that a picture needs"
    used = {id(p): p.numel() for k, part in system.parts().items() if not any(o in k for o in TEACHERS) for p in part.parameters()}
    return sum(used.values())

def cost(run, system)->dict:
    "What a run cost"
    spent = budget(run)
    return dict(system=spent.system, preset=spent.preset, photos=spent.photos, total=spent.total, hours=round(spent.hours, 2), different=spent.different,
                weights=weights_hash(system), paired=system.paired, bodies=system.bodies, parameters=parameters(system))

def apart(rows, count:int, anchor:str)->dict:
    "Each row's means, and its differences from one of them, pair by pair"
    results = {o.row: o for o in evaluate_rows([*map(str, rows)], 'people-64', count=count, measures=list(PAIRED), device='cpu')}
    short = lambda numbers: [round(float(o), 4) for o in numbers]
    def about(o):
        means = {k: short(o.values[k][part] for part in ('mean', 'low', 'high')) for k in PAIRED}
        return dict(weights=o.system.get('weights', ''), means=means, minus={k: short(difference(o, results[anchor], k)) for k in PAIRED})
    return dict(pairs=count, anchor=anchor, command=' '.join(['python', f'benchmarks/{Path(sys.argv[0]).name}', *sys.argv[1:]]),
                networks=results[anchor].networks, rows={k: about(o) for k, o in results.items()})

KINDS = {'gfla': ('tiny', 'mended64'), 'dpt': ('tiny',), 'intrinsic': ('tiny',), 'upis': ('tiny',), 'parsing': ('tiny',), 'spice': ('tiny', 'mended64'), 'guided': ('64 pixels',)}

@torch.no_grad()
def times()->dict: # {'system preset': milliseconds}
    "What a picture of the sheet takes; weights don't matter"
    torch.set_num_threads(1)
    case, found = PeoplePairs(PROTOCOLS['people-64'], 1000, 'cpu').case(SHOWN), {}
    for name, presets in KINDS.items():
        for preset in presets:
            guided = name == 'guided'
            system = make_system(name, 'large', net=GuidedSettings(size=64)).eval() if guided else make_system(name, preset).eval()
            found[f'{name} {preset}'] = round(median_ms(lambda: system(case.asked), 'cpu')/len(case), 1)
    return found

def save(name, content):
    with writing(ROOT/'benchmarks'/'results'/f'{name}.json') as f: Path(f).write_text(json.dumps(content, indent=1))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='?', default='', help='folders of spice_train or scripts/train_photos.py, with commas between')
    parser.add_argument('--count', type=int, default=1000, help='pairs')
    parser.add_argument('--anchor', default='mended', help='the row from which the others differ')
    parser.add_argument('--name', default='systems', help='what the files and the sheet are called')
    parser.add_argument('--titles', default='', help='of the columns of the sheet, with commas between; empty is the names of the runs')
    parser.add_argument('--times', action='store_true', help='only the times of all kinds of systems')
    args = parser.parse_args()
    if args.times: return save('systems_ms', times())
    if not args.runs: parser.error('give the folders of runs')
    folders = [Path(o) for o in args.runs.split(',')]
    same_budget([budget(o) for o in folders])
    systems = {o.name: load_system(o, 'cpu').eval() for o in folders}
    pairs = PeoplePairs(PROTOCOLS['people-64'], 1000, 'cpu')
    case = pairs.case(SHOWN)
    found = {o.name: cost(o, systems[o.name]) for o in folders}
    for part, content in dict(cost=found, apart=apart([*folders, *PLAIN], args.count, args.anchor)).items():
        save(f'{args.name}_{part}', content)
    titles = args.titles.split(',') if args.titles else [*systems]
    save_image(row_sheet(dict(zip(titles, systems.values())), case, scale=1.), ROOT/'nbs'/'images'/f'{args.name}.webp')
    for name, row in found.items(): print(name, row)

if __name__ == '__main__': main()
