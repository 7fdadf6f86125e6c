"""What a pose costs that is guided by the body: the photo once, then each pose, at the size of the result; and samples for training.

    python benchmarks/guided.py                    # everything, on the fastest device
    python benchmarks/guided.py --quick --device cpu --json rows.json

`photo` is all that is done once a photo: rendering its body, which vertices are seen, counterparts, colours of parts. `pose` is all of a further pose: posing and
rendering the body, places, carried pixels, the network at 128 pixels, composing at the full size. `places` is the part of it that says where pixels come from. `round
trip` and `pair` are samples for training at 128 pixels, with everything that belongs to them.

`results/guided_cpu.json` was measured on one thread of a machine that others used, too: its times are those of the processor, not of the clock on the wall.
"""
import torch
from common import Bench
from spice.camera import world_to_view
from spice.core import seeded
from spice.guided import Guided, GuidedNet
from spice.people import People, free_body
from spice.people.poses import pose_rows, settle
from spice.rounds import Rounds, TruePairs, people_album
from spice.surface import render_body

def poses(bench, size):
    "A photo and its poses at one size"
    with torch.no_grad():
        photos = People(size, 'test', poses='everyday', yaw=40, samples=1, device=bench.device).photos([6], 0)
        body, matte = free_body(str(bench.device)), (photos.parsing > 0).float()[:, None]
        rotmats = world_to_view(settle(pose_rows(['wave']).to(bench.device), body, photos.betas)[0])
        with seeded(0): net = GuidedNet().to(bench.device).eval()
        make = lambda: Guided(net, photos.image, matte, body, photos.rotmats, photos.betas, photos.camera)
        tool = make()
        target = render_body(body, rotmats, photos.betas, photos.camera)
        bench.time('photo', make, size, 1)
        bench.time('places', lambda: tool.full.carrier.places(target), size, 1)
        bench.time('pose', lambda: tool.repose(rotmats, photos.camera, background=.6), size, 1)

def samples(bench, batch):
    "Samples of both kinds"
    album = people_album(People(256, 'test', samples=1, device='cpu'), list(range(8)))
    rounds, pairs = Rounds(album, free_body(str(bench.device)), 128), TruePairs(People(128, 'train', samples=1, crop='mixed', device=bench.device))
    bench.time('round trip', lambda: rounds.draw(batch, 0), 128, batch, least=1)
    bench.time('pair', lambda: pairs.draw(batch, 0), 128, batch, least=1)

def main():
    bench = Bench('What a pose costs that is guided by the body')
    for size in bench.pick([256, 512, 1024], quick=[256]): poses(bench, size)
    samples(bench, bench.pick(8, quick=4))
    bench.save()

if __name__ == '__main__': main()
