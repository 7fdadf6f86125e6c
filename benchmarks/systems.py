"""The systems of chapter 60, trained on the same number of photos: what each cost, and a sheet of the same pairs.

    python benchmarks/systems.py _ckpt/compare/gfla,_ckpt/compare/upis,_ckpt/spice/mended # writes benchmarks/results/systems_cost.json and nbs/images/systems.webp

The figures themselves are `spice_eval`'s: benchmarks/results/systems_people_64.json.
"""
import argparse, json, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from common import median_ms
from spice.measure.at_work import row_sheet
from spice.measure.benchmark import budget, same_budget
from spice.core import save_image, writing
from spice.measure.evaluate import weights_hash
from spice.measure.protocols import PROTOCOLS, PeoplePairs
from spice.train import load_system

ROOT = Path(__file__).resolve().parent.parent
SHOWN = [3, 46, 87, 133, 160, 204, 241, 298, 333, 367, 402, 468, 555, 640, 721, 808]       # pairs of the sheet, picked without looking
TEACHERS = ('critic', 'detector')                                                          # parts that only training needs

def parameters(system)->int:
    "Numbers of all parts that a picture needs"
    used = {id(p): p.numel() for k, part in system.parts().items() if not any(o in k for o in TEACHERS) for p in part.parameters()}
    return sum(used.values())

@torch.no_grad()
def cost(run, system, case)->dict:
    "What a run cost, and a picture of it"
    spent = budget(run)
    return dict(system=spent.system, preset=spent.preset, photos=spent.photos, total=spent.total, hours=round(spent.hours, 2), different=spent.different,
                weights=weights_hash(system), paired=system.paired, bodies=system.bodies, parameters=parameters(system),
                ms=round(median_ms(lambda: system(case.asked), 'cpu')/len(case), 1))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', help='folders of spice_train, with commas between')
    folders = [Path(o) for o in parser.parse_args().runs.split(',')]
    same_budget([budget(o) for o in folders])
    systems = {o.name: load_system(o, 'cpu').eval() for o in folders}
    pairs = PeoplePairs(PROTOCOLS['people-64'], 1000, 'cpu')
    case = pairs.case(SHOWN)
    found = {o.name: cost(o, systems[o.name], case) for o in folders}
    with writing(ROOT/'benchmarks'/'results'/'systems_cost.json') as f: Path(f).write_text(json.dumps(found, indent=1))
    save_image(row_sheet(systems, case, scale=1.), ROOT/'nbs'/'images'/'systems.webp')
    for name, row in found.items(): print(name, row)

if __name__ == '__main__': main()
