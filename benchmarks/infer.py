"""What `repose` takes from a photo to a photo, step by step, and how many frames of a film a second.

    python benchmarks/infer.py                    # everything, on the fastest device
    python benchmarks/infer.py --quick --device cpu --json rows.json

The systems have random weights, and so has the detector (`people`, of chapter 09a), whose answer is replaced by the true joints so that the bodies are those of people; no time
depends on weights. The photos are People's, 256 x 256. `detect` to `paste` are the steps for that many photos, each with a pose of its own; `render` draws joints and R of both sides.
`repose` is all of it: photos in, photos out, nothing remembered. `1 photo` has as many poses for one photo.

A film is a photo driven by frames in which somebody waves: `per frame` calls `repose` with the photo and each frame and remembers nothing, `remembering` does the same with
a `Reposer` that keeps the photo, `animate` is the film as a whole, `live` each frame for itself through `Live`. All of them find the joints of every frame.

`results/infer_cpu.json` was measured on one thread of a machine that others used, too: its times are those of the processor, not of the clock on the wall.
"""
import warnings
import torch
from common import Bench
from spice.core import seeded, to_pil
from spice.reposer import Reposer
from spice.infer import pasted, repose
from spice.keypoints import Keypoints
from spice.people import People
from spice.people.people_detector import JointNet, PeopleDetector
from spice.smplify import fit_keypoints
from spice.train import make_system
from spice.video import Live, animate

class Told(PeopleDetector):
    "A detector that does its work and is then told the answer"
    def __init__(self, answers, device):
        with seeded(0): super().__init__(JointNet('people'), device)
        self.answers = {o.tobytes(): keypoints for o, keypoints in answers}
    def __call__(self, images):
        super().__call__(images)
        return [self.answers[o.tobytes()] for o in to_pil(images.cpu())]

def steps(bench, preset, tool, photos, points, batch):
    "Each step for a batch"
    size, device, few = tool.size[0], bench.device, dict(least=1 if batch > 1 else 3)
    rows = torch.arange(batch) % len(photos)
    some, goals = [photos[i] for i in rows], [Keypoints(points[(i + 1) % len(photos)][None], (256, 256)) for i in rows]
    given = [Keypoints(points[i][None], (256, 256)) for i in rows]
    seen = [tool.see(o, k) for o, k in zip(some, given)]
    aims = [tool.aim(o, s) for o, s in zip(goals, seen)]
    images = torch.stack([torch.randn(3, 256, 256) for _ in rows]).clamp(-1, 1).to(device)
    canvas = Keypoints(torch.cat([o.keypoints.points for o in seen]).to(device), tool.size)
    parts = [slice(k, k + tool.batch) for k in range(0, batch, tool.batch)]
    drawn = [tool.batch_of(seen[p], aims[p]) for p in parts]
    made = to_pil(torch.zeros(batch, 3, *tool.size))
    detect = super(Told, tool.detector).__call__
    def generate():
        with torch.no_grad(): return [tool.system(o) for o in drawn]
    name = lambda o: f'{preset}: {o}'
    bench.time(name('detect'), lambda: detect(images), 256, batch, **few)
    bench.time(name('fit'), lambda: fit_keypoints(tool.body, canvas, fitter=tool.fitter), size, batch, **few)
    bench.time(name('render'), lambda: [tool.batch_of(seen[p], aims[p]) for p in parts], size, batch, **few)
    bench.time(name('generate'), generate, size, batch, **few)
    bench.time(name('paste'), lambda: [pasted(a, b) for a, b in zip(seen, made)], 256, batch, **few)
    if batch == 1: return bench.time(name('repose'), lambda: repose(photos[0], goals[0], tool, paste=True), size, batch)
    if preset == 'paper' and device.type == 'cpu': return        # half a minute a call
    bench.time(name('repose, 1 photo'), lambda: repose(photos[0], goals, tool, paste=True), size, batch, **few)

def films(bench, preset, tool, keeping, photo, frames):
    "Frames a second, source and driver found by the detector"
    n, size, rates = len(frames), tool.size[0], {}
    def live():
        see = Live(keeping, keeping.see(photo))
        return [see(o) for o in frames]
    for label, f in {'per frame': lambda: [repose(photo, o, tool) for o in frames], 'remembering': lambda: [repose(photo, o, keeping) for o in frames],
                     'animate': lambda: list(animate(photo, frames, keeping)), 'live': live}.items():
        def anew():
            keeping.forget()
            return f()
        rates[label] = bench.rate(f'{preset}: film, {label}', anew, size, n, least=1, seconds=1.)
    print(', '.join(f'{k} {v/rates["per frame"]:.2f} times' for k, v in rates.items()), flush=True)

def main():
    bench = Bench('What it takes to repose a person')
    warnings.simplefilter('ignore')
    cuda, device = bench.device.type == 'cuda', str(bench.device)
    people = People(256, 'valid', poses='everyday', yaw=30., samples=1, detail=1, device='cpu')
    shots, film = people.photos(range(4), 0), people.film(19, 'wave', bench.pick(48 if cuda else 24, quick=8))
    photos, frames = to_pil(shots.image), to_pil(film.image)
    answers = [*zip(photos, shots.keypoints), *zip(frames, film.keypoints)]
    for preset in bench.pick(['tiny', 'small', 'paper'], quick=['tiny', 'small', 'paper'] if cuda else ['tiny', 'small']):
        with seeded(0): system = make_system('spice', preset)
        tool, keeping = (Reposer(system, detector=Told(answers, device), device=device, keep=keep) for keep in (0, 32))
        for batch in bench.pick([1, 32], quick=[1]): steps(bench, preset, tool, photos, shots.points, batch)
        films(bench, preset, tool, keeping, photos[0], frames if cuda or preset != 'paper' else frames[::3])
    bench.save()

if __name__ == '__main__': main()
