"The rasterizer against a slow reference in plain loops and 64-bit numbers, its rules at every corner case, its memory and its gradients."
import math
import re
import subprocess
import sys
import numpy as np
import pytest
import roma
import torch
from spice.body import load_body, rest_pose
from spice.camera import frame_body, world_to_view
from spice.core import DataError, SpiceError
from spice.render import Fragments, hidden_points, interpolate, paint, rasterize

DEVICES = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]

# ---- the slow reference

def shares_at(corners, x, y):
    "Shares of the three corners at a point of the picture, and the doubled area"
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = corners
    area = (x1 - x0)*(y2 - y0) - (x2 - x0)*(y1 - y0)
    if abs(area) <= 1e-8: return None
    b0 = ((x1 - x)*(y2 - y) - (x2 - x)*(y1 - y))/area
    b1 = ((x2 - x)*(y0 - y) - (x0 - x)*(y2 - y))/area
    return b0, b1, ((x0 - x)*(y1 - y) - (x1 - x)*(y0 - y))/area

def corrected(b, corners, perspective_correct):
    "Shares and depth"
    if perspective_correct:
        q = [s/c[2] for s, c in zip(b, corners)]
        b = [s/sum(q) for s in q]
    return b, sum(s*c[2] for s, c in zip(b, corners))

def slow(verts, faces, size, perspective_correct=True):
    "pix_to_face, bary and zbuf of one image: each face, each pixel near it, one after the other"
    h, w = size
    face, bary, zbuf = -np.ones((h, w), int), -np.ones((h, w, 3)), np.full((h, w), np.inf)
    v = verts.double().cpu().tolist()
    for k, corners in enumerate([[v[i] for i in f] for f in faces.tolist()]):
        if min(c[2] for c in corners) <= 1e-8: continue
        xs, ys = [c[0] for c in corners], [c[1] for c in corners]
        for row in range(max(0, math.floor(min(ys)) - 1), min(h, math.ceil(max(ys)) + 1)):
            for col in range(max(0, math.floor(min(xs)) - 1), min(w, math.ceil(max(xs)) + 1)):
                b = shares_at(corners, col + .5, row + .5)
                if b is None or min(b) < 0: continue
                b, z = corrected(b, corners, perspective_correct)
                if np.float32(z) < np.float32(zbuf[row, col]): face[row, col], bary[row, col], zbuf[row, col] = k, b, z
    return face, bary, np.where(face >= 0, zbuf, -1)

def compare(verts, faces, size, perspective_correct=True, most_ties=.002, **kwargs):
    "Same faces but for ties in depth; shares and depth to 1e-5"
    f = rasterize(verts, faces, size, perspective_correct, **kwargs)
    for i in range(len(verts)):
        face, bary, zbuf = slow(verts[i], faces, size, perspective_correct)
        mine, z = f.pix_to_face[i].cpu().numpy(), f.zbuf[i].cpu().numpy()
        same = mine == face
        assert (abs(z - zbuf)[~same] < 1e-5).all() and ((mine >= 0) == (face >= 0)).all()
        assert (~same).mean() <= most_ties
        np.testing.assert_allclose(f.bary[i].cpu().numpy()[same], bary[same], atol=1e-5)
        np.testing.assert_allclose(z[same], zbuf[same], atol=1e-5, rtol=1e-6)
    return f

# ---- meshes

def soup(b, n, size, seed=0, reach=.3, largest=1.):
    "Triangles here and there, some beyond the border, at depths 1 to 4"
    g = torch.Generator().manual_seed(seed)
    h, w = size
    middle = torch.rand(b, n, 1, 2, generator=g)*torch.tensor([w*(1 + 2*reach), h*(1 + 2*reach)]) - torch.tensor([w*reach, h*reach])
    xy = middle + torch.randn(b, n, 3, 2, generator=g)*max(size)*largest*torch.rand(b, n, 1, 1, generator=g)**3
    return torch.cat([xy, 1 + 3*torch.rand(b, n, 3, 1, generator=g)], -1).view(b, 3*n, 3), torch.arange(3*n).view(n, 3)

def sphere(n):
    "A closed unit sphere"
    ring = torch.stack([torch.stack([a.sin()*b.cos(), a.cos(), a.sin()*b.sin()])
                        for a in torch.linspace(0, math.pi, n + 1)[1:-1] for b in torch.arange(2*n)*math.pi/n])
    points = torch.cat([torch.tensor([[0., 1, 0]]), ring, torch.tensor([[0., -1, 0]])])
    at = lambda i, j: 1 + i*2*n + j % (2*n)
    last, faces = len(points) - 1, []
    for j in range(2*n):
        faces += [[0, at(0, j), at(0, j + 1)], [last, at(n - 2, j + 1), at(n - 2, j)]]
        for i in range(n - 2): faces += [[at(i, j), at(i + 1, j), at(i, j + 1)], [at(i, j + 1), at(i + 1, j), at(i + 1, j + 1)]]
    return points, torch.tensor(faces)

@pytest.fixture(scope='module')
def bodies():
    "Three posed bodies in the camera's frame"
    body = load_body('free')
    g = torch.Generator().manual_seed(4)
    rotmats = rest_pose(3)
    rotmats[:, 1:] = roma.rotvec_to_rotmat(torch.randn(3, 23, 3, generator=g)*.3)
    rotmats[:, :1] = roma.rotvec_to_rotmat(torch.tensor([[0., .3, 0], [.4, 2., 0], [0, -1., .5]]))[:, None]
    with torch.no_grad(): return body, body(world_to_view(rotmats), torch.randn(3, 10, generator=g)).verts

# ---- against the reference

@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('perspective_correct', [True, False])
@pytest.mark.parametrize('size', [(40, 40), (25, 61), (57, 16), (1, 1), (1, 30)])
def test_soup(size, perspective_correct, device):
    for seed in range(3):
        verts, faces = soup(2, 40, size, seed)
        compare(verts.to(device), faces.to(device), size, perspective_correct)

def test_many_small_triangles():
    verts, faces = soup(1, 3000, (64, 48), 7, largest=.1)
    compare(verts, faces, (64, 48))

@pytest.mark.parametrize('size', [(48, 48), (70, 33)])
def test_sphere(size):
    points, faces = sphere(24)
    turn = roma.random_rotmat(2)
    for focal in (1.2, 40.): # a lens so near that perspective is strong, and a telephoto
        compare(frame_body(points@turn.mT, size, 1., focal*max(size)).project(points@turn.mT), faces, size)

@pytest.mark.parametrize('size', [(96, 96), (96, 66)])
def test_bodies(bodies, size):
    body, verts = bodies
    f = compare(frame_body(verts, size).project(verts), body.faces, size)
    assert (f.mask.float().mean((1, 2)) > .05).all()
    compare(frame_body(verts, size, focal=150.).project(verts)[:1], body.faces, size)

def test_body_at_256(bodies):
    body, verts = bodies
    compare(frame_body(verts, 256).project(verts)[:1], body.faces, (256, 256))

def test_far_from_the_origin():
    "Large coordinates keep 1e-5: the arithmetic is relative to the face"
    size = (8, 3000)
    verts, faces = soup(1, 30, (8, 30))
    f = compare(verts + torch.tensor([2960., 0, 0]), faces, size)
    assert f.mask.any()

@pytest.mark.parametrize('device', DEVICES)
def test_blocks_change_nothing(device, bodies):
    body, verts = bodies
    px = frame_body(verts, (64, 80)).project(verts).to(device)
    whole = rasterize(px, body.faces.to(device), (64, 80))
    for block in (97, 5000):
        part = rasterize(px, body.faces.to(device), (64, 80), block=block)
        assert all(torch.equal(getattr(whole, o), getattr(part, o)) for o in ('pix_to_face', 'bary', 'zbuf'))

def test_batch_is_its_images():
    verts, faces = soup(5, 50, (30, 40))
    together = rasterize(verts, faces, (30, 40))
    for i in range(5): assert torch.equal(together.pix_to_face[i], rasterize(verts[i:i+1], faces, (30, 40)).pix_to_face[0])
    assert together.pix_to_face.max() < len(faces)                       # counted within faces, not through the batch

def test_number_types():
    verts, faces = soup(1, 30, (30, 40))
    plain = rasterize(verts, faces, (30, 40))
    assert torch.equal(plain.pix_to_face, rasterize(verts, faces.int(), (30, 40)).pix_to_face)
    assert rasterize(verts.double(), faces, (30, 40)).bary.dtype == torch.float64
    assert rasterize(verts.half(), faces, (30, 40)).bary.dtype == torch.float32
    assert torch.equal(plain.pix_to_face, rasterize(verts, faces.flip(1), (30, 40)).pix_to_face)  # both windings

# ---- rules

SQUARE = torch.tensor([[[2., 2, 1], [8, 2, 1], [8, 8, 1], [2, 8, 1]]])
TWO = torch.tensor([[0, 1, 2], [0, 2, 3]])

def test_no_cracks():
    "Grids whose corners and edges lie on pixel centres, at any place and in any order of corners"
    for shift in (0., .5, .25, 1/3):
        n = 9
        r, c = torch.meshgrid(torch.arange(n), torch.arange(n), indexing='ij')
        points = torch.stack([c*2. + shift, r*1.5 + shift, torch.full((n, n), 2.)], -1).view(1, -1, 3)
        a = (r*n + c)[:-1, :-1].reshape(-1)
        faces = torch.cat([torch.stack([a, a + 1, a + n], 1), torch.stack([a + n + 1, a + n, a + 1], 1)])
        faces = faces[torch.randperm(len(faces))]
        f = rasterize(points, faces, (12, 16))
        centre_r, centre_c = torch.arange(12)[:, None] + .5, torch.arange(16) + .5
        inside = (centre_r >= shift) & (centre_r <= 12 + shift) & (centre_c >= shift) & (centre_c <= 16 + shift)
        assert torch.equal(f.mask[0], inside)

def test_shared_edge_goes_to_the_lower_face():
    f = rasterize(SQUARE + torch.tensor([.5, .5, 0]), TWO, 10).pix_to_face[0]
    assert f.diagonal()[2:9].tolist() == [0]*7
    assert rasterize(SQUARE + torch.tensor([.5, .5, 0]), TWO.flip(0), 10).pix_to_face[0].diagonal()[2:9].tolist() == [0]*7

def test_ties_go_to_the_lower_face():
    faces = torch.tensor([[0, 1, 2], [0, 1, 2], [1, 2, 0]])
    assert rasterize(SQUARE, faces, 10).pix_to_face.unique().tolist() == [-1, 0]

def test_nearest_wins():
    verts = torch.cat([SQUARE, SQUARE*torch.tensor([1, 1, .5])], 1)
    assert rasterize(verts, torch.cat([TWO, TWO + 4]), 10).pix_to_face.unique().tolist() == [-1, 2, 3]

@pytest.mark.parametrize('z', [0., -1., 1e-9, -1e-30])
def test_a_face_with_a_corner_at_or_behind_the_camera_is_dropped(z):
    verts = SQUARE.clone()
    verts[0, 3, 2] = z
    f = rasterize(verts, TWO, 10)
    assert f.pix_to_face.unique().tolist() == [-1, 0]
    compare(verts, TWO, (10, 10))
    assert not rasterize(SQUARE*torch.tensor([1, 1, -1.]), TWO, 10).mask.any()

def test_just_before_the_camera_is_drawn():
    assert rasterize(SQUARE*torch.tensor([1, 1, 1e-6]), TWO, 10).mask.sum() == 36

def test_degenerate_faces():
    verts = torch.tensor([[[1., 1, 1], [9, 9, 1], [5, 5, 1], [1, 1, 1], [3.1, .7, 1], [6.2, 1.4, 1], [9.3, 2.1, 1]]])
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 0, 0], [4, 5, 6]])
    f = rasterize(verts.double(), faces[:3], 10)
    assert not f.mask.any() and torch.isfinite(f.bary).all()
    assert torch.isfinite(rasterize(verts, faces, 10).bary).all()
    compare(verts, faces, (10, 10))

def test_nearly_degenerate_faces():
    "Slivers: long, and thinner than a thousandth of a pixel"
    g = torch.Generator().manual_seed(2)
    a, b = torch.rand(2, 400, 2, generator=g)*40
    c = a + (b - a)*torch.rand(400, 1, generator=g) + torch.randn(400, 2, generator=g)*1e-3
    verts = torch.cat([torch.stack([a, b, c], 1), 1 + torch.rand(400, 3, 1, generator=g)], -1).view(1, -1, 3)
    f = rasterize(verts, torch.arange(1200).view(400, 3), 40)
    assert torch.isfinite(f.bary).all() and (f.bary[f.mask] >= 0).all()
    compare(verts, torch.arange(1200).view(400, 3), (40, 40))

def test_nothing_to_draw():
    none = torch.zeros(0, 3).long()
    for verts, faces in ((SQUARE, none), (torch.zeros(0, 4, 3), TWO), (torch.zeros(2, 0, 3), none), (SQUARE + 50, TWO), (SQUARE - 50, TWO)):
        f = rasterize(verts, faces, (6, 7))
        assert f.pix_to_face.shape == (len(verts), 6, 7) and f.bary.shape == (len(verts), 6, 7, 3)
        assert (f.pix_to_face == -1).all() and (f.bary == -1).all() and (f.zbuf == -1).all() and not len(f.covered.pixel)
        assert interpolate(f, faces, torch.ones(1, 4, 2), 5.).shape == (len(verts), 2, 6, 7)
    assert len(rasterize(SQUARE, TWO, 10)[:0].covered.pixel) == 0

def test_faces_over_the_whole_picture():
    verts = torch.tensor([[[-1e4, -1e4, 2.], [3e4, -1e4, 2], [-1e4, 3e4, 2],
                           [-500, -500, 1/.4475], [900, -400, 1/.5875], [10, 2000, 1/.4985]]]) # they meet at x = 25
    f = compare(verts, torch.tensor([[0, 1, 2], [3, 4, 5]]), (30, 50))
    assert f.mask.all() and len(f.pix_to_face.unique()) == 2

def test_far_beyond_the_border():
    verts = SQUARE.clone()
    verts[0, 1, 0], verts[0, 3, 1] = 1e9, -1e9
    compare(verts, TWO, (10, 10))
    assert torch.isfinite(rasterize(SQUARE*torch.tensor([1e30, 1e30, 1]), TWO, 10).bary).all()

def test_screens_in_bounded_memory():
    "26 million candidates in a fresh process; the peak counts everything above the imports. The benchmark does a thousand screens"
    pytest.importorskip('resource')
    code = '''
import resource, sys, torch
from spice.render import rasterize
unit = 1 if sys.platform == 'darwin' else 1024
torch.set_num_threads(2)
corner = torch.tensor([[-600., -600], [2000, -600], [-600, 2000]]) + torch.rand(100, 3, 2)
verts = torch.cat([corner, 1 + torch.rand(100, 3, 1)], -1).view(1, 300, 3)
faces = torch.arange(300).view(100, 3)
rasterize(verts[:, :3], faces[:1], 8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert rasterize(verts, faces, 512).mask.all()
print('MB', (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)*unit/1e6)
'''
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert out.returncode == 0, out.stderr
    assert float(re.search(r'MB ([\d.]+)', out.stdout)[1]) < 200

# ---- gradients

def test_gradients():
    verts, faces = soup(1, 4, (12, 12), seed=5)
    verts = verts.double().requires_grad_()
    for perspective_correct in (True, False):
        maps = lambda v: torch.cat([(f := rasterize(v, faces, 12, perspective_correct)).bary[f.mask].flatten(), f.zbuf[f.mask]])
        assert torch.autograd.gradcheck(maps, (verts,), eps=1e-7, atol=1e-5)

def test_interpolation_gradients():
    verts, faces = soup(2, 5, (12, 12), seed=3)
    f = rasterize(verts.double(), faces, 12)
    assert torch.autograd.gradcheck(lambda a: interpolate(f, faces, a), (torch.randn(2, 15, 2).double().requires_grad_(),))

# ---- interpolation

def test_interpolate_against_loops():
    verts, faces = soup(2, 20, (20, 15))
    f, values = rasterize(verts, faces, (20, 15)), torch.randn(2, 60, 4)
    mine, shared = interpolate(f, faces, values, -7.), interpolate(f, faces, values[1:])
    for i in range(2):
        for r in range(20):
            for c in range(15):
                k, b = int(f.pix_to_face[i, r, c]), f.bary[i, r, c]
                for out, rows, back in ((mine, values[i, faces[k]], -7.), (shared, values[1, faces[k]], 0.)):
                    right = b@rows if k >= 0 else torch.full((rows.shape[1],), back)
                    assert torch.allclose(out[i, :, r, c], right, atol=1e-5)

def test_fragments_are_picked_and_moved():
    f = rasterize(*soup(3, 20, (20, 15)), (20, 15))
    assert isinstance(f[1:], Fragments) and len(f[1:]) == 2 and f.size == (20, 15) and '15 x 20' in repr(f)
    assert torch.equal(f[[2]].pix_to_face[0], f.pix_to_face[2]) and len(f.to('cpu')) == 3
    o = f[1:].covered
    assert torch.equal(f[1:].pix_to_face[o.image, o.pixel % 300 // 15, o.pixel % 15], o.face)
    assert torch.equal(paint(f[1:], o.face[:, None].float(), -1.)[:, 0].long(), f[1:].pix_to_face)

# ---- what lies in front of a point

def slow_hidden(points, verts, faces, tolerance):
    "Whether a face lies in front of each point, over all faces; None where it is within 1e-6 of the tolerance"
    t = verts.double()[faces]
    (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = (t[:, i].T for i in range(3))
    area = (x1 - x0)*(y2 - y0) - (x2 - x0)*(y1 - y0)
    out = []
    for x, y, z in points.double():
        b0, b1 = ((x1 - x)*(y2 - y) - (x2 - x)*(y1 - y))/area, ((x2 - x)*(y0 - y) - (x0 - x)*(y2 - y))/area
        b2 = 1 - b0 - b1
        ok = (b0 >= 0) & (b1 >= 0) & (b2 >= 0) & (area.abs() > 1e-8) & (torch.minimum(torch.minimum(z0, z1), z2) > 1e-8)
        ahead = z - 1/(b0/z0 + b1/z1 + b2/z2)[ok]
        most = ahead.amax() if len(ahead) else torch.tensor(-math.inf)
        out.append(None if abs(most - tolerance) < 1e-6 else bool(most > tolerance))
    return out

@pytest.mark.parametrize('device', DEVICES)
def test_hidden_points_in_a_soup(device):
    size = (30, 44)
    verts, faces = soup(3, 40, size)
    points = torch.rand(3, 200, 3)*torch.tensor([44., 30, 3.]) + torch.tensor([0, 0, 1.])
    mine = hidden_points(points.to(device), verts.to(device), faces.to(device), size).cpu()
    for i in range(3):
        for a, b in zip(mine[i].tolist(), slow_hidden(points[i], verts[i], faces, .001)): assert b is None or a == b
    assert .1 < mine.float().mean() < .95
    for block in (30000, 300000): assert torch.equal(hidden_points(points, verts, faces, size, block=block), mine)

def test_hidden_vertices_of_bodies(bodies):
    body, verts = bodies
    px = frame_body(verts, (128, 96)).project(verts)
    mine = hidden_points(px, px, body.faces, (128, 96))
    for i in range(3):
        pick = torch.randperm(px.shape[1])[:150]
        for a, b in zip(mine[i, pick].tolist(), slow_hidden(px[i, pick], px[i], body.faces, .001)): assert b is None or a == b

def test_hidden_at_every_size(bodies):
    "Exact visibility doesn't depend on the size of the picture, unlike a depth map's"
    body, verts = bodies
    camera = frame_body(verts, 256)
    answers = [hidden_points(*[camera.resize(n).project(verts)]*2, body.faces, n) for n in (8, 50, 256)]
    assert all((a != answers[-1]).float().mean() < .002 for a in answers[:2])

def test_hidden_points_out_of_sight():
    points = torch.tensor([[[5., 5, .5], [5, 5, 2], [-1, 5, .5], [5, 10.1, .5], [5, 5, -1], [0, 0, 3], [10, 10, 3]]])
    assert hidden_points(points, SQUARE, TWO, 10)[0].tolist() == [False, True, True, True, True, False, False]
    assert hidden_points(points, SQUARE, TWO[:0], 10)[0].tolist() == [False, False, True, True, True, False, False]
    assert hidden_points(points[:, :0], SQUARE, TWO, 10).shape == (1, 0)
    assert hidden_points(points[:0], SQUARE[:0], TWO, 10).shape == (0, 7)

# ---- bad input

BAD = [
    (lambda: rasterize(SQUARE*math.nan, TWO, 10), DataError, '12 of 12 vertex coordinates are NaN'),
    (lambda: rasterize(SQUARE/0, TWO, 10), DataError, 'NaN or infinite'),
    (lambda: rasterize(SQUARE[0], TWO, 10), DataError, 'vertices of shape [4, 3]'),
    (lambda: rasterize(SQUARE[..., :2], TWO, 10), DataError, 'vertices of shape [1, 4, 2]'),
    (lambda: rasterize(SQUARE.long(), TWO, 10), DataError, 'int64'),
    (lambda: rasterize(SQUARE, TWO.float(), 10), DataError, 'faces of shape [2, 3] and type torch.float32'),
    (lambda: rasterize(SQUARE, TWO[None], 10), DataError, 'faces of shape [1, 2, 3]'),
    (lambda: rasterize(SQUARE, TWO + 1, 10), DataError, 'faces name vertices 1 to 4'),
    (lambda: rasterize(SQUARE, TWO - 1, 10), DataError, 'faces name vertices -1 to 2'),
    (lambda: rasterize(SQUARE, TWO, (10, 0)), DataError, 'no picture size'),
    (lambda: rasterize(SQUARE, TWO, 10.5), DataError, 'no picture size'),
    (lambda: rasterize(SQUARE, TWO, 10, backend='cuda'), SpiceError, "'cuda' is no renderer. Use 'torch' or 'pytorch3d'"),
    (lambda: rasterize(SQUARE, TWO, 10, block=0), SpiceError, 'a block of 0 candidates'),
    (lambda: interpolate(rasterize(SQUARE, TWO, 10), TWO, torch.ones(2, 4, 3)), DataError, 'attributes of shape [2, 4, 3] for 1 pictures'),
    (lambda: hidden_points(torch.ones(2, 4, 3), SQUARE, TWO, 10), DataError, 'points of shape [2, 4, 3] for 1 meshes'),
]

@pytest.mark.parametrize('make, kind, message', BAD, ids=[m for *_, m in BAD])
def test_bad_input(bad_input, make, kind, message):
    with pytest.raises(kind) as e: make()
    assert message in str(e.value) and '\n' not in str(e.value)

def test_pytorch3d_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pytorch3d', None)
    monkeypatch.setitem(sys.modules, 'pytorch3d.structures', None)
    with pytest.raises(SpiceError, match='pytorch3d is not there .* Install it from .* or leave backend out'):
        rasterize(SQUARE, TWO, 10, backend='pytorch3d')
    assert not rasterize(SQUARE, TWO[:0], 10, backend='pytorch3d').mask.any()

# ---- the second backend, where it is installed

@pytest.mark.parametrize('perspective_correct', [True, False])
@pytest.mark.parametrize('size', [(40, 40), (25, 61), (57, 16)])
def test_pytorch3d_soup(size, perspective_correct):
    pytest.importorskip('pytorch3d.renderer')
    same_as_pytorch3d(*soup(2, 40, size), size, perspective_correct)

def test_pytorch3d_body(bodies):
    pytest.importorskip('pytorch3d.renderer')
    body, verts = bodies
    same_as_pytorch3d(frame_body(verts, (48, 36)).project(verts), body.faces, (48, 36), True)

def same_as_pytorch3d(verts, faces, size, perspective_correct):
    "The same faces but for ties and pixel centres within 1e-4 of an edge, where 32-bit numbers decide"
    ours, theirs = (rasterize(verts, faces, size, perspective_correct, backend=o) for o in (None, 'pytorch3d'))
    same = ours.pix_to_face == theirs.pix_to_face
    fine = (ours.bary.amin(-1) < 1e-3) | (theirs.bary.amin(-1) < 1e-3) | ((ours.zbuf - theirs.zbuf).abs() < 1e-4)
    assert (same | fine).all() and same.float().mean() > .99
    inside = same & ours.mask & (ours.bary.amin(-1) > 1e-3)
    assert torch.allclose(ours.bary[inside], theirs.bary[inside], atol=2e-3)
    assert torch.allclose(ours.zbuf[inside], theirs.zbuf[inside], atol=1e-3)
    assert (theirs.pix_to_face[~theirs.mask] == -1).all() and (theirs.zbuf[~theirs.mask] == -1).all()
