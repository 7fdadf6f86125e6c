"""Make the sample that ships: eight made-up people in three poses each, `spice/assets/sample_people.npz`.

    python scripts/make_sample.py                  # the same photos again
    python scripts/make_sample.py --out FILE.npz
"""
import argparse, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from spice.people import People
from spice.people.poses import draw_rows
from spice.sample import save_sample

WHO = (41, 28, 37, 24, 39, 36, 32, 38)    # outfits of the split `valid`
POSES = (41, 41, 37, 37, 36, 36, 29, 29)  # whose poses they take: two and two the same; the targets are turned by 8, 28, 44 and 80 degrees
SHIPPED = Path(__file__).resolve().parent.parent/'spice'/'assets'/'sample_people.npz'

def shots():
    "Photos of the eight in their source, target and third pose"
    people = People(128, 'valid', poses='everyday', yaw=60., device='cpu')
    for view in range(3):
        outfits, _ = people.seeds(WHO, view)
        _, views = people.seeds(POSES, view)
        yield people.render(outfits, draw_rows(views, people.names, people.noise, people.yaw), views)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Make the sample that ships', formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__)
    parser.add_argument('--out', type=Path, default=SHIPPED)
    out = parser.parse_args().out
    save_sample(out, list(shots()))
    print(f'{out}: {out.stat().st_size/1e3:.0f} KB')
