"What bodies show, against plain loops; flow and visibility against the geometry they stand for; a made-up SMPL file."
import numpy as np
import pytest
import roma
import torch
from spice.body import load_body, rest_pose
from spice.camera import frame_body, world_to_view
from spice.core import DataError
from spice.render import hidden_points, interpolate, paint, rasterize
from spice.segments import colour_wheel
from spice.surface import (BACKGROUND, HIDDEN, SEEN, body_flow, depth_picture, flow_key, flow_picture, paint_numbers, render_body,
                           render_iuv, render_normals, render_torso, render_wheel, resize_flow, rest_points, shade, vertex_normals,
                           visible_vertices, warp)

SIZE = (96, 72)

def random_pose(b, seed=0, bend=.3):
    g = torch.Generator().manual_seed(seed)
    rotmats = rest_pose(b)
    rotmats[:, 1:] = roma.rotvec_to_rotmat(torch.randn(b, 23, 3, generator=g)*bend)
    rotmats[:, 0] = roma.rotvec_to_rotmat(torch.stack([torch.zeros(b), torch.randn(b, generator=g)*.5, torch.zeros(b)], 1))
    return world_to_view(rotmats), torch.randn(b, 10, generator=g)

@pytest.fixture(scope='module')
def scene():
    body = load_body('free')
    rotmats, betas = random_pose(3)
    with torch.no_grad(): posed = body(rotmats, betas)
    return render_body(body, rotmats, betas, frame_body(posed.verts, SIZE))

def each_covered(fragments):
    for i, r, c in fragments.mask.nonzero().tolist()[::7]: yield i, r, c, int(fragments.pix_to_face[i, r, c]), fragments.bary[i, r, c]

# ---- pictures

def test_maps_against_loops(scene):
    body, f = scene.body, scene.fragments
    for i, r, c, k, b in each_covered(f):
        assert torch.allclose(scene.wheel[i, :, r, c], colour_wheel(b@body.face_uv[k]), atol=1e-4)
        rest = b@body.rest[body.faces[k]]
        assert torch.allclose(scene.iuv[i, 1:, r, c], body.iuv(rest[None])[0, 1:], atol=1e-3) or scene.parts[i, r, c] != body.parts(rest[None])[0]
        side = int(body.torso(rest[None])[0])
        assert scene.torso[i, :, r, c].tolist() == [side == 1, side == 2] or abs(rest[2]) < .1
    off = ~f.mask
    assert (scene.wheel.movedim(1, -1)[off] == -1).all() and (scene.iuv.movedim(1, -1)[off] == 0).all() and not scene.torso.any(1)[off].any()
    assert scene.parts.unique().tolist() == list(range(25)) or len(scene.parts.unique()) > 15

def test_ranges(scene):
    assert scene.wheel.abs().max() <= 1 and scene.picture.abs().max() <= 1 and depth_picture(scene.fragments).abs().max() <= 1
    assert scene.iuv[:, 1:].min() >= 0 and scene.iuv[:, 1:].max() <= 1
    assert (scene.picture.movedim(1, -1)[~scene.mask] == 1).all() and (shade(scene.normals, -1.).movedim(1, -1)[~scene.mask] == -1).all()

def test_normals_of_a_sphere():
    n = 24
    a, b = torch.meshgrid(torch.linspace(.01, np.pi - .01, n + 1), torch.arange(2*n)*np.pi/n, indexing='ij')
    points = torch.stack([a.sin()*b.cos(), a.cos(), a.sin()*b.sin()], -1).view(1, -1, 3)
    i = (torch.arange(n)[:, None]*2*n + torch.arange(2*n)).view(-1)
    j = i + torch.where(i % (2*n) == 2*n - 1, 1 - 2*n, 1)
    faces = torch.cat([torch.stack([i, j, i + 2*n], 1), torch.stack([j, j + 2*n, i + 2*n], 1)])
    normals = vertex_normals(points, faces)
    assert (normals*points).sum(-1)[0, 2*n:-2*n].min() > .99                     # outward: the points themselves
    camera = frame_body(points, 64)
    f = rasterize(camera.project(points), faces, 64)
    shown = render_normals(f, faces, points)
    assert shown[0, 2, 32, 32] < -.99 and shown[0, 0, 32, 55] > .5 and shown[0, 1, 55, 32] > .5   # z to us, x right, y down
    light = shade(shown)[0, 0]
    assert light[15, 20] > light[48, 44]                                         # the lamp is at the upper left

def test_depth_picture_order(scene):
    light, z, m = depth_picture(scene.fragments)[1, 0], scene.fragments.zbuf[1], scene.mask[1]
    order = z[m].argsort()
    assert (light[m][order].diff() <= 1e-6).all() and light[m].max() == 1

def test_paint_numbers(scene):
    f = scene.fragments
    assert torch.equal(paint_numbers(f, f.covered.face + 1), f.pix_to_face + 1)

def test_on_another_device_or_size(scene):
    small = render_body(scene.body, *random_pose(3), scene.camera, size=(48, 36))
    assert small.wheel.shape == (3, 3, 48, 36) and small.keypoints.size == (48, 36)
    assert torch.allclose(small.keypoints.xy*2, scene.keypoints.xy, atol=1e-3)
    if torch.cuda.is_available():
        body = load_body('free').cuda()
        rotmats, betas = (o.cuda() for o in random_pose(3))
        there = render_body(body, rotmats, betas, scene.camera.to('cuda'))
        assert (there.parts.cpu() == scene.parts).float().mean() > .998
        assert (there.flow_from(there)[1].cpu() == scene.flow_from(scene)[1]).float().mean() > .998

def test_maps_are_kept(scene):
    assert scene.wheel is scene.wheel and scene.fragments.covered is scene.fragments.covered and len(scene) == 3 and '72 x 96' in repr(scene)

# ---- visibility

def test_visible_vertices(scene):
    visible = visible_vertices(scene.verts_px, scene.body.faces, SIZE)
    assert torch.equal(visible, ~hidden_points(scene.verts_px, scene.verts_px, scene.body.faces, SIZE)) and torch.equal(visible, scene.visible)
    shown = torch.zeros_like(visible)
    for i, r, c, k, b in each_covered(scene.fragments):
        if b.max() > .9: shown[i, scene.body.faces[k, b.argmax()]] = True       # a corner that fills its pixel's centre
    assert visible[shown].float().mean() > .97
    away = vertex_normals(scene.posed.verts, scene.body.faces)[..., 2]
    assert visible[away > .5].float().mean() < .01

def test_out_of_the_picture_is_hidden(scene):
    half = scene.camera.crop((0, 0, 72, 48))
    visible = visible_vertices(half.project(scene.posed.verts), scene.body.faces, half.size)
    below = half.project(scene.posed.verts)[..., 1] > 48
    assert below.any() and not visible[below].any() and torch.equal(visible[~below], scene.visible[~below])

# ---- flow

def test_flow_against_loops(scene):
    source = scene.verts_px[[1, 2, 0]]
    flow, visibility = body_flow(scene.fragments, scene.body.faces, source)
    camera_points = scene.posed.verts[[1, 2, 0]] + scene.camera.translation[[1, 2, 0]][:, None]
    for i, r, c, k, b in each_covered(scene.fragments):
        p = b.double()@camera_points[i, scene.body.faces[k]].double()            # the place in space, then the pinhole
        f, centre = scene.camera.focal[[1, 2, 0]][i], scene.camera.center[i]
        right = f*p[:2]/p[2] + centre - torch.tensor([c + .5, r + .5])
        assert torch.allclose(flow[i, :, r, c].double(), right, atol=2e-3)
    assert (flow.movedim(1, -1)[~scene.mask] == 0).all() and torch.equal(visibility == BACKGROUND, ~scene.mask)
    assert {SEEN, HIDDEN} <= set(visibility.unique().tolist())

def test_visibility_is_exact(scene):
    "Against all faces, at sampled pixels"
    from test_render import slow_hidden
    source, faces = scene.verts_px[[1, 2, 0]], scene.body.faces
    flow, visibility = body_flow(scene.fragments, faces, source)
    depth = interpolate(scene.fragments, faces, source)[:, 2]
    for i, r, c in [o for o in scene.mask.nonzero().tolist()][::23]:
        x, y = (flow[i, :, r, c] + torch.tensor([c + .5, r + .5])).tolist()
        hidden = slow_hidden(torch.tensor([[x, y, depth[i, r, c]]]), source[i], faces, .001)[0]
        outside = not (0 <= x <= SIZE[1] and 0 <= y <= SIZE[0])
        assert hidden is None or (visibility[i, r, c] == HIDDEN) == (hidden or outside)

def test_flow_there_and_back(scene):
    "A pixel that is seen comes back to itself"
    a, b = render_body(scene.body, *random_pose(1, 1), scene.camera[:1]), render_body(scene.body, *random_pose(1, 2), scene.camera[:1])
    flow, visibility = a.flow_from(b)
    back, _ = b.flow_from(a)
    trip = flow + warp(back, flow)
    inner = (visibility == SEEN) & (warp(b.mask[:, None].float(), flow)[:, 0] > .999)
    assert inner.sum() > 100 and trip.norm(dim=1)[inner].median() < .1

def test_source_out_of_frame(scene):
    flow, visibility = body_flow(scene.fragments, scene.body.faces, scene.verts_px + torch.tensor([500., 0, 0]))
    assert (visibility[scene.mask] == HIDDEN).all() and torch.allclose(flow[:, 0][scene.mask], torch.tensor(500.), atol=.1)

def test_other_lens():
    "Flow needs no camera: another focal length of the source is in its pixels"
    body, (rotmats, betas) = load_body('free'), random_pose(1)
    with torch.no_grad(): verts = body(rotmats, betas).verts
    near, far = frame_body(verts, 128, focal=160.), frame_body(verts, 128)
    a, b = render_body(body, rotmats, betas, near), render_body(body, rotmats, betas, far)
    flow, visibility = a.flow_from(b)
    place = paint(b.fragments, rest_points(body, b.fragments), 9.)
    gap = (warp(place, flow) - paint(a.fragments, rest_points(body, a.fragments), 9.)).norm(dim=1)
    assert gap[visibility == SEEN].median() < .002

def test_empty_pictures(scene):
    gone = scene.verts_px + torch.tensor([1000., 0, 0])
    f = rasterize(gone, scene.body.faces, SIZE)
    flow, visibility = body_flow(f, scene.body.faces, scene.verts_px)
    assert (flow == 0).all() and (visibility == BACKGROUND).all()
    assert (render_wheel(scene.body, f) == -1).all() and (render_iuv(scene.body, f) == 0).all() and not render_torso(scene.body, f).any()
    assert (depth_picture(f) == -1).all() and not visible_vertices(gone, scene.body.faces, SIZE).any()

# ---- warping, resizing, colours

def slow_sample(image, x, y):
    "Bilinear between pixel centres, the border repeated"
    h, w = image.shape[1:]
    x, y = min(max(x - .5, 0), w - 1), min(max(y - .5, 0), h - 1)
    c, r = min(int(x), max(w - 2, 0)), min(int(y), max(h - 2, 0))
    a, b, r2, c2 = x - c, y - r, min(r + 1, h - 1), min(c + 1, w - 1)
    return (1 - b)*((1 - a)*image[:, r, c] + a*image[:, r, c2]) + b*((1 - a)*image[:, r2, c] + a*image[:, r2, c2])

@pytest.mark.parametrize('size, target', [((9, 14), (9, 14)), ((9, 14), (5, 20)), ((1, 6), (3, 6))])
def test_warp_against_loops(size, target):
    image, flow = torch.randn(2, 3, *size), torch.randn(2, 2, *target)*3
    out = warp(image, flow)
    for i in range(2):
        for r in range(target[0]):
            for c in range(target[1]):
                dx, dy = flow[i, :, r, c].tolist()
                assert torch.allclose(out[i, :, r, c], slow_sample(image[i], c + .5 + dx, r + .5 + dy), atol=1e-4)

def test_warp_is_differentiable():
    image, flow = torch.randn(1, 2, 6, 7).double().requires_grad_(), (torch.rand(1, 2, 6, 7).double()*.8 + .1).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, flow))

def test_warp_zeros():
    assert (warp(torch.ones(1, 1, 4, 4), torch.full((1, 2, 4, 4), 50.), padding='zeros') == 0).all()
    assert (warp(torch.ones(1, 1, 4, 4), torch.full((1, 2, 4, 4), 50.)) == 1).all()

def test_resize_flow_takes_the_most_frequent_kind():
    flow, visibility = torch.zeros(1, 2, 4, 4), torch.full((1, 4, 4), BACKGROUND)
    flow[0, :, :2, :2] = torch.tensor([4., 8]).view(2, 1, 1)
    visibility[0, :2, :2] = SEEN
    visibility[0, 0, 0], flow[0, :, 0, 0] = HIDDEN, 100.                         # one of four: outvoted, and not averaged in
    coarse, kinds = resize_flow(flow, 2, visibility)
    assert kinds.tolist() == [[[SEEN, BACKGROUND], [BACKGROUND, BACKGROUND]]] and torch.allclose(coarse[0, :, 0, 0], torch.tensor([2., 4]))
    assert torch.allclose(resize_flow(flow, (4, 8))[0, 0, 3], torch.zeros(8))

def test_flow_picture():
    flow = torch.tensor([[1., 0], [0, 1], [-1, 0], [0, -1], [0, 0]]).T.reshape(1, 2, 1, 5)
    colours = flow_picture(flow, 1.)[0, :, 0].T
    assert torch.allclose(colours[4], torch.ones(3)) and len({tuple(o.round().tolist()) for o in colours}) == 5
    assert torch.allclose(flow_picture(flow*7), flow_picture(flow, 1.), atol=1e-5) and flow_key(32).shape == (1, 3, 32, 32)

# ---- a made-up SMPL file

@pytest.fixture(scope='module')
def smpl(tmp_path_factory):
    "A barrel of 6,890 vertices and 13,776 faces under SMPL's names"
    rings, around = 82, 84
    y, a = torch.meshgrid(torch.linspace(-.85, .85, rings), torch.arange(around)*2*np.pi/around, indexing='ij')
    wide = .12 + .55*torch.exp(-((y - .45)/.05)**2)                              # arms, after a fashion
    wall = torch.stack([wide*a.cos(), y, .12*a.sin()], -1).view(-1, 3)
    v = torch.cat([wall, torch.tensor([[0, -.9, 0], [0, .9, 0]])])
    at, f = lambda r, k: r*around + k % around, []
    for k in range(around):
        f += [[6888, at(0, k), at(0, k + 1)], [6889, at(rings - 1, k + 1), at(rings - 1, k)]]
        for r in range(rings - 1): f += [[at(r, k), at(r + 1, k), at(r, k + 1)], [at(r, k + 1), at(r + 1, k), at(r + 1, k + 1)]]
    free = load_body('free')
    nearest = torch.cdist(free.rest_joints, v).topk(8, largest=False).indices
    regressor, weights = torch.zeros(24, len(v)), torch.zeros(len(v), 24)
    regressor.scatter_(1, nearest, 1/8)
    weights[torch.arange(len(v)), torch.cdist(v, regressor@v).argmin(1)] = 1
    path = tmp_path_factory.mktemp('smpl')/'SMPL_NEUTRAL.npz'
    parents = np.array(free.smpl.parents).astype(np.int64)
    shapes = np.random.default_rng(0).normal(size=(len(v), 3, 10))*.003
    np.savez(path, v_template=v.numpy(), f=np.array(f), shapedirs=shapes, posedirs=np.zeros((len(v), 3, 207)),
             J_regressor=regressor.numpy(), weights=weights.numpy(), kintree_table=np.stack([parents, np.arange(24)]))
    return load_body(path)

def test_every_map_of_a_made_up_smpl_file(smpl):
    assert smpl.rest.shape == (6890, 3) and smpl.faces.shape == (13776, 3)
    rotmats, betas = random_pose(2, bend=.05)
    with torch.no_grad(): verts = smpl(rotmats, betas).verts
    s = render_body(smpl, rotmats, betas, frame_body(verts, (128, 96)))
    assert s.mask.float().mean() > .1 and s.wheel.abs().max() <= 1 and len(s.wheel.movedim(1, -1)[s.mask].mul(50).round().unique(dim=0)) > 100
    assert torch.equal(s.parts > 0, s.mask) and s.torso[:, 0].any((1, 2)).all() and s.iuv[:, 1:].min() >= 0 and s.iuv[:, 1:].max() <= 1
    flow, visibility = s.flow_from(s)
    assert flow.abs().max() < 1e-2 and torch.equal(visibility == SEEN, s.mask) and .1 < s.visible.float().mean() < .7

# ---- bad input

BAD = [
    (lambda s: body_flow(s.fragments, s.body.faces, s.verts_px[:2]), '3 targets and source vertices of shape [2,'),
    (lambda s: body_flow(s.fragments, s.body.faces, s.verts_px*torch.nan), 'NaN or infinite'),
    (lambda s: warp(s.wheel, torch.zeros(3, 3, 8, 8)), 'flow of shape [3, 3, 8, 8] for 3 pictures'),
    (lambda s: warp(s.wheel, torch.zeros(2, 2, 8, 8)), 'flow of shape [2, 2, 8, 8] for 3 pictures'),
    (lambda s: resize_flow(torch.zeros(1, 2, 8, 8), (0, 3)), 'no picture size'),
    (lambda s: render_body(s.body, torch.zeros(1, 24, 3), torch.zeros(1, 10), s.camera[:1]), 'rotmats'),
    (lambda s: s.flow_from(render_body(s.body, *random_pose(3), s.camera, size=(48, 36))), 'pictures of sizes (h, w) (96, 72) and (48, 36)'),
    (lambda s: render_body(s.body, *random_pose(2), s.camera), 'points of shape [2, 13524, 3] for 3 cameras'),
]

@pytest.mark.parametrize('make, message', BAD, ids=[m for _, m in BAD])
def test_bad_input(bad_input, scene, make, message):
    with pytest.raises(DataError) as e: make(scene)
    assert message in str(e.value) and '\n' not in str(e.value)
