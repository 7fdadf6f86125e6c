"""Train SPICE on People from nothing: a detector, f_3D, the system, a judge; and the runs of chapter 62.

    python scripts/train_people.py                         # all parts into _ckpt/people; the same command goes on
    python scripts/train_people.py --minutes 30            # stops after that, at the latest a step later
    python scripts/train_people.py --parts spice --variant mended-no-pose
    python scripts/train_people.py --publish               # what came out becomes the model `people` of the package
    python scripts/train_people.py --quick                 # a rehearsal of a few minutes in _ckpt/people-quick

No part sees a pair of photos or a true body. The detector learns from the joints of single photos, f_3D from SMPLify's fits to such joints, and SPICE
from single photos, fits and f_3D: first the flow, then everything. `judge` is a second detector, with other people and another seed, which only
measures: it says whether a made person stands in the pose.

The variants are the rows of chapter 62; `mended` ships. `paper` is the paper's own network, narrower, with its terms; `mended` has the changes of
chapter 12 (the preset `mended64`) and is also taught by the fitted bodies what the photo shows and where the flow has to go. What is called `mended-...`
changes one thing of `mended`. Without an f_3D in the folder they take the one that ships.
"""
import argparse, json, shutil, signal, sys, time
from dataclasses import asdict
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from spice.core import SpiceError, get_device, set_seed, writing
from spice.discriminator import discriminator_settings
from spice.measure.results import read_results, table
from spice.measure.evaluate import weights_hash
from spice.generator import generator_settings
from spice.people import People, Pool, free_body
from spice.people.people_detector import JointNet, detector_figures
from spice.network_training import train_detector, train_regressor
from spice.regressor import Regressor, RegressorWeights, regressor_figures
from spice.runs import Plan, log_rows, train
from spice.train import load_system
from fastai.callback.core import Callback # after spice, which keeps its warning quiet

PARTS, STAGES = ('detector', 'f_3d', 'spice', 'judge'), ('flow', 'full')
STEPS = {64: dict(detector=1000, f_3d=900, flow=2000, full=3200, judge=700), # those of the stages are whole epochs
         128: dict(detector=4000, f_3d=4000, flow=8000, full=40_000, judge=3000)}
SHIPPED = 'mended'
VARIANTS = {'paper': {}, 'mended': {}, 'mended-true-flow': {'true_flow': 15., 'correct': 0., 'wheels': 0., 'flow.true_flow': 50.},
            'mended-no-shape': dict(beta=0.), 'mended-no-pose': dict(theta=0.), 'mended-no-appearance': dict(app=0., parts=0.),
            'mended-plain-critic': {}}
APPEARANCE = 20. # its weight: People's features have a mean square of 0.25, VGG's one of several

class Deadline(Callback):
    "Stop when the time is over, as Ctrl-C would"
    def __init__(self, end): self.end = end
    def after_batch(self):
        if time.time() > self.end: signal.raise_signal(signal.SIGINT)

def finished(folder): return (folder/'figures.json').is_file()

def joint_net(folder, size, first, seed, steps, end, device, quick):
    "Train a detector and measure it"
    if finished(folder): return
    set_seed(seed)
    photos, test = (200, 40) if quick else (3200, 320)
    net = JointNet('people96').to(device)
    started = time.time()
    net = train_detector(Pool(People(size, 'train', samples=1, device=device), photos, first=first), steps, net, folder, every=100, cbs=[Deadline(end)], bs=32, lr=2e-3, seed=seed)
    note(folder, detector_figures(net, Pool(People(size, 'test', device=device), test)[torch.arange(test)]), steps, photos, started)

def f_3d(folder, trunk, size, steps, end, device, quick):
    "Train f_3D from fits, starting at the detector's trunk"
    if finished(folder): return
    set_seed(2)
    photos, test = (200, 40) if quick else (3200, 320)
    net = Regressor('people96').to(device)
    net.load_trunk(trunk)
    started = time.time()
    net = train_regressor(Pool(People(size, 'train', samples=1, device=device), photos, first=10**6), steps, net, 'fits', folder, every=100,
                          cbs=[Deadline(end)], bs=32, lr=3e-4, weights=RegressorWeights(betas=.02))
    note(folder, regressor_figures(net, Pool(People(size, 'test', device=device), test)[torch.arange(test)], free_body(str(device))), steps, photos, started)

def note(folder, figures, steps, photos, started):
    "Keep the figures of a part"
    figures = {k: v for k, v in figures.items() if k != 'examples'} | dict(steps=steps, photos=photos, minutes_of_last_session=round((time.time() - started)/60, 1))
    with writing(folder/'figures.json') as f: Path(f).write_text(json.dumps(figures, indent=1))
    print(f'{folder.name}: {figures}', flush=True)

def plan_of(variant, size, root, steps, args):
    "The run of a variant"
    f_3d = root/'f_3d' if finished(root/'f_3d') else 'people/f_3d'
    critic = asdict(discriminator_settings(f'narrow{size}', gain=1., channels=3 if 'plain-critic' in variant else 6))
    settings = dict(critic=critic, warm=False)
    if variant == 'paper': settings = dict(generator=asdict(generator_settings(f'narrow{size}', gain=1.)), critic=critic)
    preset = {64: 'tiny', 128: 'small'}[size] if variant == 'paper' else f'mended{size}'
    return Plan('spice', preset, 'people', [*STAGES], [steps[o] for o in STAGES], args.bs, regressor=str(f_3d), settings=settings,
                weights=dict(app=APPEARANCE) | VARIANTS[variant], rates=dict(flow=1e-3, generator=args.rate, critic=args.rate), seed=args.seed,
                pool=args.pool, renew=.2, epoch=args.epoch, ema=.995, decay=.5, bf16=args.bf16, every=25, samples=250, checkpoint=100, quiet=True)

RESULTS = Path(__file__).resolve().parent.parent/'benchmarks'/'results'/'people_model.json'
MEASURE = (f'spice_eval people,copy-source,mean-image,warp-true-flow,truth --protocol people-64 --detector people/judge --regressor people/f_3d --json '
           f'> benchmarks/results/{RESULTS.name}')

def card_of(run, system):
    "What came of the training, and the figures that were measured of these very weights"
    lines = [(run/'README.md').read_text().replace(repr(run.as_posix()), "'people'").replace('by `spice_train`', 'without pairs, on made-up people')]
    rows = [o for stage in STAGES for o in log_rows(run/stage/'log.csv')]
    plan = json.loads((run/'plan.json').read_text())
    photos = plan['every']*plan['bs']                                                     # of a row of the log
    lines.append(f'{photos*len(rows):,} photos in {sum(photos/o["photos_per_second"] for o in rows)/3600:.1f} hours of computing, beside detector, f_3D and judge.\n')
    found = read_results(RESULTS) if RESULTS.is_file() else []
    if found and found[0].system.get('weights') == weights_hash(system): lines += ['## Figures', '', table(found).markdown()]
    else: lines.append('Not measured yet.')
    return '\n'.join([*lines, '', 'Made by `python scripts/train_people.py` and `--publish`, measured by', '', f'    {MEASURE}', '',
                      'Chapter 61 shows results and says what is wrong with them.', ''])

def publish(root, run, to):
    "Make a finished run the model that ships; once more, when it was measured, for its card"
    system = load_system(run, 'cpu')
    system.save_pretrained(to, half=True)
    system.save_pretrained(to, half=True, card=card_of(run, load_system(to, 'cpu')))
    for name, kind in (('detector', JointNet), ('f_3d', Regressor), ('judge', JointNet)):
        if not finished(root/name): continue                                              # the one that ships was used
        kind.from_pretrained(root/name, 'cpu').save_pretrained(to/name, half=True)
        shutil.copy(root/name/'figures.json', to/name/'figures.json')
    for stage in STAGES:
        (to/stage).mkdir(exist_ok=True)
        for name in ('log.csv', 'curves.png'): shutil.copy(run/stage/name, to/stage/name)
    shutil.copy(max((run/'full'/'samples').glob('*.jpg')), to/'full'/'samples.jpg')
    size = sum(o.stat().st_size for o in to.rglob('*') if o.is_file())
    print(f'{to}: {size/1e6:.1f} MB')

def main():
    parser = argparse.ArgumentParser(description='Train SPICE on People', formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__)
    parser.add_argument('--out', default='_ckpt/people')
    parser.add_argument('--size', type=int, default=64, choices=STEPS)
    parser.add_argument('--minutes', type=float, default=1e6, help='of this call; the same command goes on')
    parser.add_argument('--parts', default=','.join(PARTS))
    parser.add_argument('--variant', default=SHIPPED, choices=VARIANTS)
    parser.add_argument('--steps', default='', help='of parts, such as full=2000,judge=300; goes on only with the same')
    parser.add_argument('--bs', type=int, default=8)
    parser.add_argument('--rate', type=float, default=5e-4, help='of generator and critic')
    parser.add_argument('--pool', type=int, default=1000)
    parser.add_argument('--epoch', type=int, default=250)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--bf16', action='store_true')
    parser.add_argument('--device')
    parser.add_argument('--publish', action='store_true')
    parser.add_argument('--quick', action='store_true', help='few steps, few photos')
    args = parser.parse_args()
    if args.quick: args.out, args.pool, args.epoch = f'{args.out}-quick', 64, 20
    root, device, end, parts = Path(args.out), get_device(args.device), time.time() + 60*args.minutes, args.parts.split(',')
    asked = {k: int(v) for k, v in (o.split('=') for o in args.steps.split(',') if o)}
    wrong = [*({*parts} - {*PARTS}), *(asked.keys() - STEPS[64].keys())]
    if wrong: raise SpiceError(f'there is no part {wrong[0]!r}', f"Take some of {', '.join(PARTS)}; steps have {', '.join(STEPS[64])}")
    steps = STEPS[args.size] | (dict.fromkeys(STEPS[64], 20) if args.quick else {}) | asked
    if args.publish: return publish(root, root/args.variant, Path(__file__).resolve().parent.parent/'spice/assets/models/people')
    sharp = max(96, args.size)                                                             # the detector meets photos of any size, the judge what was made
    if 'detector' in parts: joint_net(root/'detector', sharp, 0, 1, steps['detector'], end, device, args.quick)
    if 'f_3d' in parts: f_3d(root/'f_3d', root/'detector', args.size, steps['f_3d'], end, device, args.quick)
    if 'spice' in parts:
        train(root/f'{args.variant}{f"-seed{args.seed}" if args.seed else ""}', plan_of(args.variant, args.size, root, steps, args), device, lambda: [Deadline(end)])
    if 'judge' in parts: joint_net(root/'judge', args.size, 2*10**6, 3, steps['judge'], end, device, args.quick)

if __name__ == '__main__':
    try: main()
    except SpiceError as e: sys.exit(f'{e}')
