"""What a training step costs: photos a second, peak memory, and where the time goes, by preset, batch and device.

    python benchmarks/train.py                    # everything, on the fastest device
    python benchmarks/train.py --quick --device cpu --json rows.json

A row `step` is a whole step of stage `full`: both passes of the generator, all terms, backward, the optimizer. `data` is the batch before it, from a pool of People that is on the device already, with mirror images, maps, R and masks; `fly` is the same when every photo is made anew.
The parts are timed apart from each other and forward only: `generator` (one of two passes), `critic` (one of three), `features` (of one picture, all layers of the losses), `f_3D`, `renderer` (R and masks of source and target). The networks have random weights, which cost the same.
"""
import torch
from common import Bench
from spice.core import seeded
from spice.features import load_features
from spice.loaders import pool_loaders
from spice.losses import CONTENT, STYLE
from spice.people import People, Pool, free_body
from spice.regressor import Regressor
from spice.surface import render_body
from spice.train import frozen, make_system, system_learner

F_3D = dict(tiny='people96', small='people', paper='spin')

def one_step(learn, batch, cast):
    "Forward, backward, optimizer"
    with torch.autocast(learn.dls.device.type, torch.bfloat16, enabled=cast): total = learn.model.step(batch).total
    total.backward()
    learn.opt.step()
    learn.opt.zero_grad()

def parts(bench, learn, batch, tools, preset, b, cast):
    "Each part alone, forward"
    model, body = learn.model, free_body(str(bench.device))
    critic_rendering = batch['target_wheel'] if model.critic.settings.channels > 3 else None
    todo = dict(generator=lambda: model(batch), critic=lambda: model.critic(batch['source_image'], critic_rendering),
                features=lambda: tools['features'](batch['source_image'], (*CONTENT, *STYLE)), f_3D=lambda: tools['regressor'](batch['source_image']),
                renderer=lambda: [render_body(body, batch[f'{o}_rotmats'], batch['source_betas'], batch.camera(o)).torso for o in ('source', 'target')])
    for name, f in todo.items():
        def run():
            with torch.no_grad(), torch.autocast(bench.device.type, torch.bfloat16, enabled=cast): f()
        bench.time(f'{preset}: {name}', run, size=model.size[0], batch=b)

def main():
    bench = Bench('What a training step costs')
    gpu = bench.device.type == 'cuda'
    for preset, b in bench.pick([('tiny', 8), ('small', 8), ('paper', 8), ('paper', 64)] if gpu else [('tiny', 8), ('small', 8), ('paper', 2)], quick=[('tiny', 4)]):
        with seeded(0): system = make_system('spice', preset, features='random' if preset == 'paper' else 'people')
        people = People(system.size, 'train', samples=1, device=bench.device)
        pool = Pool(people, 2*b, batch=min(b, 16))
        dls = pool_loaders(pool, bs=b, steps=1, renew=0.)
        tools = dict(features=load_features(system.settings.features, device=bench.device), regressor=frozen(Regressor(F_3D[preset]).to(bench.device)))
        learn = system_learner(system, dls, 'full', **tools)
        learn.create_opt()
        for cast in ([False, True] if gpu else [False]):
            name = f'{preset}{", bf16" if cast else ""}'
            batch = dls.train.one_batch()
            bench.rate(f'{name}: step', lambda: one_step(learn, batch, cast), size=system.size[0], batch=b)
            bench.memory(f'{name}: step', lambda: one_step(learn, batch, cast), size=system.size[0], batch=b)
            parts(bench, learn, batch, tools, name, b, cast)
        bench.time(f'{preset}: data', lambda: dls.train.one_batch(), size=system.size[0], batch=b)
        bench.time(f'{preset}: fly', lambda: (pool.renew(b), dls.train.one_batch()), size=system.size[0], batch=b)
    bench.save()

if __name__ == '__main__': main()
