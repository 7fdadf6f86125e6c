"""What it costs to pose a body: joints only against the whole mesh, forward and backward.

    python benchmarks/body.py [--quick] [--device cuda] [--json rows.json]
"""
import time
import roma
import torch
from common import Bench
from spice.body import load_body

bench = Bench('Posing the free body')
start = time.perf_counter()
load_body('free')
bench.row('load the free body', (time.perf_counter() - start)*1000, 'ms')
body = load_body('free').to(bench.device)
torch.manual_seed(0)

def forward_backward(f):
    "A call of `f` with the gradient of its sum"
    vectors = (.5*torch.randn(batch, 24, 3, device=bench.device)).requires_grad_()
    f(roma.rotvec_to_rotmat(vectors), betas).sum().backward()

for batch in bench.pick([1, 8, 64, 512], quick=[64]):
    rotmats = roma.rotvec_to_rotmat(.5*torch.randn(batch, 24, 3)).to(bench.device)
    betas = torch.randn(batch, 10, device=bench.device)
    with torch.no_grad():
        joints = bench.time('joints only', lambda: body.skeleton(rotmats, betas), size=24, batch=batch)
        bench.memory('joints only', lambda: body.skeleton(rotmats, betas), size=24, batch=batch)
        if batch <= 64:
            mesh = bench.time('whole mesh', lambda: body(rotmats, betas), size=len(body.rest), batch=batch)
            bench.memory('whole mesh', lambda: body(rotmats, betas), size=len(body.rest), batch=batch)
            print(f'    joints only is {mesh/joints:.0f} times faster')
    bench.time('joints only, with gradient', lambda: forward_backward(lambda r, b: body.skeleton(r, b)[1]), size=24, batch=batch)
bench.save()
