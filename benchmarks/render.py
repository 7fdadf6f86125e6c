"""What it costs to draw bodies: milliseconds a call and peak memory of the rasterizer and of the maps, by size, batch, backend and device.

    python benchmarks/render.py                    # everything, on the fastest device
    python benchmarks/render.py --quick --device cpu --json rows.json

The bodies are the free body (27,036 faces) in random poses at 90% of the frame's height. A row `torch` or `pytorch3d` is `rasterize` for the whole
batch; the other rows include whatever they need but the rasterization.
"""
import importlib.util
import roma
import torch
from common import Bench
from spice.body import load_body, rest_pose
from spice.camera import frame_body, world_to_view
from spice.render import rasterize
from spice.surface import body_flow, render_iuv, render_torso, render_wheel, visible_vertices

def people(body, b, device):
    "Random poses, seen from all around"
    g = torch.Generator().manual_seed(0)
    rotmats = rest_pose(b)
    rotmats[:, 1:] = roma.rotvec_to_rotmat(torch.randn(b, 23, 3, generator=g)*.25)
    rotmats[:, 0] = roma.rotvec_to_rotmat(torch.stack([torch.zeros(b), 6*torch.rand(b, generator=g), torch.zeros(b)], 1))
    with torch.no_grad(): return body(world_to_view(rotmats).to(device), torch.randn(b, 10, generator=g).to(device))

def screens(n, size, device):
    "Triangles that each cover the whole picture, at depths of 1 to 2 metres"
    g = torch.Generator().manual_seed(0)
    corners = torch.tensor([[-1.2, -1.2], [4, -1.2], [-1.2, 4]])*size + torch.rand(n, 3, 2, generator=g)
    return torch.cat([corners, 1 + torch.rand(n, 3, 1, generator=g)], -1).view(1, 3*n, 3).to(device), torch.arange(3*n).view(n, 3).to(device)

def main():
    bench = Bench('What it costs to draw bodies')
    body = load_body('free').to(bench.device)
    backends = ['torch'] + ['pytorch3d']*(importlib.util.find_spec('pytorch3d') is not None)
    if len(backends) == 1: print('pytorch3d is not installed: no rows for it')
    for size in bench.pick([128, 256, 512], quick=[128, 256]):
        for b in bench.pick([1, 8, 64], quick=[1, 8]):
            posed = people(body, b, bench.device)
            px = frame_body(posed.verts, size).project(posed.verts)
            for backend in backends:
                if backend == 'pytorch3d' and bench.device.type == 'cpu' and (b > 1 or size > 128 or bench.quick): continue # seconds an image
                draw = lambda: rasterize(px, body.faces, size, backend=backend)
                bench.time(f'rasterize, {backend}', draw, size, b)
                bench.memory(f'rasterize, {backend}', draw, size, b)
    maps(bench, body, 256, 8)
    px, faces = screens(bench.pick(1000, quick=50), 512, bench.device)
    name = f'{len(faces)} triangles over the whole picture'
    bench.time(name, lambda: rasterize(px, faces, 512), 512, 1, least=1)
    bench.memory(name, lambda: rasterize(px, faces, 512), 512, 1)
    bench.save()

@torch.no_grad()
def maps(bench, body, size, b):
    "What comes after the rasterization"
    posed = people(body, b, bench.device)
    px = frame_body(posed.verts, size).project(posed.verts)
    fragments, source = rasterize(px, body.faces, size), px.roll(1, 0)
    for name, f in {'R, colour wheel': lambda: render_wheel(body, fragments), 'I, U, V': lambda: render_iuv(body, fragments),
                    'torso masks': lambda: render_torso(body, fragments), 'visible vertices': lambda: visible_vertices(px, body.faces, size),
                    'flow and visibility': lambda: body_flow(fragments, body.faces, source)}.items():
        bench.time(name, f, size, b)
        bench.memory(name, f, size, b)

if __name__ == '__main__': main()
