"Keypoints against plain loops, every file format there and back, and bad input by the dozen."
import json
import math

import numpy as np
import pytest
import torch

from spice.core import DataError
from spice.keypoints import (FLIP, KEYPOINTS, POSES_2D, Keypoints, cat_keypoints, from_heatmaps, heatmaps, named_skeleton)
from spice.systems.flow_regression import pose_discs
from spice.measure.measures import pose_mask
from spice.pose_files import (FRAMES, change_frame, find_frame, from_array, from_dwpose, read_annotations, read_keypoints, read_openpose, read_table, to_array, to_dwpose,
                              write_annotations, write_openpose)
from spice.systems.upis import belief_maps

@pytest.fixture
def people(): return cat_keypoints([named_skeleton(o) for o in POSES_2D])

def random_points(b=3, k=18, size=(48, 40), margin=0):
    points = torch.rand(b, k, 3)*torch.tensor([size[1] - 2*margin, size[0] - 2*margin, 1.]) + torch.tensor([margin, margin, 0.])
    points[:, ::5] = 0
    return points

@pytest.mark.parametrize('size', [(48, 40), (40, 48), (32, 32)])
@pytest.mark.parametrize('whole', [False, True])
def test_heatmaps_against_a_loop(size, whole):
    points = random_points(size=size)
    maps, sigma = heatmaps(points, size, whole_pixels=whole), 6*max(size)/256
    slow = torch.zeros_like(maps)
    for b in range(len(points)):
        for k in range(18):
            x, y, score = points[b, k].tolist()
            if score == 0: continue
            if whole: x, y = int(x - .5) + .5, int(y - .5) + .5
            for r in range(size[0]):
                for c in range(size[1]): slow[b, k, r, c] = math.exp(-((c + .5 - x)**2 + (r + .5 - y)**2)/(2*sigma**2))
    assert (maps - slow).abs().max() < 1e-5

def test_gradient_of_heatmaps_reaches_the_points():
    xy = (torch.rand(1, 4, 2, dtype=torch.float64)*10).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: heatmaps(torch.cat([p, torch.ones_like(p[..., :1])], -1), (12, 10), sigma=2.), xy)

@pytest.mark.parametrize('size', [(64, 48), (128, 128), (256, 176)])
def test_heatmaps_and_back(size):
    points = random_points(size=size, margin=2)
    back = from_heatmaps(heatmaps(points, size))
    there = points[..., 2] > 0
    assert ((back[..., 2] > 0) == there).all()
    assert (back - points)[..., :2][there].abs().max() < .05

def test_discs_against_a_loop():
    points = random_points(1, 18)
    maps = pose_discs(points, (48, 40), radius=4)
    for k in range(18):
        x, y, score = points[0, k].tolist()
        for r in range(48):
            for c in range(40): assert maps[0, k, r, c] == float(score > 0 and (c + .5 - x)**2 + (r + .5 - y)**2 <= 16)

def test_maps_work_where_the_joints_lie_outside():
    points = torch.tensor([[[-20., 10, 1], [500., 500, 1]]])
    assert heatmaps(points, 32).isfinite().all() and pose_discs(points, 32).sum() == 0 and belief_maps(points, 32).isfinite().all()

def test_mask_covers_its_joints(people):
    mask = pose_mask(people.points, 256)
    for i, person in enumerate(people.points):
        for x, y, score in person.tolist():
            if score: assert mask[i, 0, int(y), int(x)] == 1

def test_flip_exchanges_the_sides(people):
    flipped = people.flip()
    for i, name in enumerate(KEYPOINTS):
        other = KEYPOINTS[FLIP[i]]
        assert other == name.replace('left', '@').replace('right', 'left').replace('@', 'right')
    there = people.valid
    assert torch.allclose(flipped.xy[:, list(FLIP)][there][:, 0], 256 - people.xy[there][:, 0], atol=1e-4)

def test_moves_undo_each_other(people):
    for there, back in ((lambda k: k.flip(), lambda k: k.flip()), (lambda k: k.resize((100, 300)), lambda k: k.resize(256)),
                        (lambda k: k.crop((-30, 20, 200, 290)), lambda k: k.pad(-30, 20, 56, -34)), (lambda k: k.pad(1, 2, 3, 4), lambda k: k.crop((1, 2, 257, 258)))):
        again = back(there(people))
        assert again.size == people.size and (again.points - people.points).abs().max() < 1e-3

@pytest.mark.parametrize('n', [18, 25])
def test_openpose_files(n, people, tmp_path):
    rows = np.zeros((len(people), n, 3))
    points = people.points.double().numpy() - .5*np.array([1, 1, 0])*(people.points[..., 2:] > 0).numpy()
    order = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18] if n == 25 else range(18)
    rows[:, list(order)] = points
    path = tmp_path/'pose.json'
    path.write_text(json.dumps({'people': [{'pose_keypoints_2d': row.ravel().tolist()} for row in rows]}))
    read = read_openpose(path, 256)
    assert (read.points - people.points).abs().max() < 1e-3

def test_own_openpose_files_know_their_size(people, tmp_path):
    small = people.resize((128, 96))
    again = read_keypoints(write_openpose(small, tmp_path/'p.json'))
    assert again.size == (128, 96) and (again.points - small.points).abs().max() < 1e-3

def test_coco_arrays():
    coco = np.random.default_rng(0).uniform(20, 200, (17, 2))
    k = from_array(coco, 256)
    names = ['nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder', 'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist',
             'left_hip', 'right_hip', 'left_knee', 'right_knee', 'left_ankle', 'right_ankle']
    for name, xy in zip(names, coco): assert np.allclose(k.xy[0, KEYPOINTS.index(name)].numpy(), xy + .5, atol=1e-3), name
    assert np.allclose(k.xy[0, 1].numpy(), (coco[5] + coco[6])/2 + .5, atol=1e-3)
    k133 = from_array(np.concatenate([coco, np.ones((116, 2))*50]), 256)
    assert torch.equal(k133.points, k.points)

def test_dwpose_arrays(people):
    candidate, score = np.full((len(people), 134, 2), .5), np.ones((len(people), 134))
    candidate[:, :18] = people.xy.numpy()/256
    score[:, :18] = people.scores.numpy()
    assert (from_dwpose(candidate, score, 256).points - people.points).abs().max() < 1e-3

@pytest.mark.parametrize('joints', [17, 18, 25, 133, 134])
def test_every_order_is_written_too(joints, people):
    array = to_array(people, joints)
    assert array.shape == (len(people), joints, 3)
    back = from_array(array, 256)
    same = [i for i in range(18) if i != 1 or joints not in (17, 133)]
    assert (back.points[:, same] - people.points[:, same]).abs().max() < 1e-3
    assert (from_dwpose(*to_dwpose(people), 256).points - people.points).abs().max() < 1e-3

def many(): return cat_keypoints([named_skeleton(o, (256, 176)).shift(dx, 0) for o in ('t_pose', 'walk', 'stand', 'wave') for dx in (-8, -4, 0, 2, 4, 8)]).drop_outside()

@pytest.mark.parametrize('frame', FRAMES)
def test_all_three_frames_there_and_back(frame, tmp_path, capsys):
    photos = many()
    path = write_annotations([f'{i}.jpg' for i in range(len(photos))], change_frame(photos, 'photo', frame), tmp_path/'a.csv')
    assert path.read_text().startswith('name:keypoints_y:keypoints_x\n0.jpg: [')
    names, bars = read_annotations(path)
    assert f"frame '{frame}'" in capsys.readouterr().out
    wanted = photos.pad(left=40, right=40)
    assert names[3] == '3.jpg' and bars.size == (256, 256) and torch.equal(bars.valid, wanted.valid)
    assert (bars.xy - wanted.xy).abs().max() <= 1.001
    stretched = read_annotations(path, frame, to='stretched')[1]
    assert (stretched.xy - photos.resize((256, 256)).xy).abs().max() <= 1.001*256/176

def test_frames_are_never_guessed(tmp_path):
    middle = named_skeleton('stand')
    path = write_annotations(['a.jpg'], middle, tmp_path/'a.csv')
    with pytest.raises(DataError, match='Give frame= one of photo, bars, stretched'): read_annotations(path)
    assert read_annotations(path, 'bars')[1].size == (256, 256)
    assert find_frame(read_table(path)[1], width=176) == 'photo'
    with pytest.raises(DataError, match='lies outside the frame'): read_annotations(write_annotations(['a'], middle.shift(60, 0), tmp_path/'b.csv'), 'photo')

def file(name, text):
    def make(folder):
        (folder/name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder/name
    return make

def row(n=18): return f'[{", ".join(["5"]*n)}]'

BAD_FILES = {
    'missing': (lambda folder: folder/'no.json', 'there is no such file'),
    'empty': (file('a.json', ''), 'is empty'),
    'no JSON': (file('a.json', '{people'), 'is no valid JSON'),
    'bytes': (file('a.json', b'\xff\xfe\x00'), 'is no text'),
    'a number': (file('a.json', '5'), 'no list "people"'),
    'no people': (file('a.json', '{"people": []}'), 'holds no people'),
    'no list': (file('a.json', '{"people": {}}'), 'no list "people"'),
    'short person': (file('a.json', '{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}'), 'person 0 has 3 numbers'),
    'words': (file('a.json', json.dumps({'people': [{'pose_keypoints_2d': ['a']*54}]})), 'person 0 has 54 numbers'),
    'all zero': (file('a.json', json.dumps({'people': [{'pose_keypoints_2d': [0]*54}]})), 'all joints of the pose are missing'),
    'NaN': (file('a.json', '{"people": [{"pose_keypoints_2d": [' + ', '.join(['NaN']*54) + ']}]}'), 'NaN'),
    'no person': (file('a.json', '{"people": [7]}'), 'person 0 has nothing'),
    'text as npy': (file('a.npy', 'hello'), 'can not be read'),
    'other ending': (file('a.txt', 'hello'), 'no pose format'),
}

@pytest.mark.parametrize('name', BAD_FILES)
def test_bad_files_get_one_line(name, tmp_path, bad_input):
    make, says = BAD_FILES[name]
    with pytest.raises(DataError, match=says) as e: read_keypoints(make(tmp_path), 256)
    assert '\n' not in str(e.value)

BAD_TABLES = {
    'missing': (lambda folder: folder/'no.csv', 'there is no such file'),
    'empty': (file('a.csv', ''), 'is empty'),
    'header only': (file('a.csv', 'name:keypoints_y:keypoints_x\n'), 'holds no rows'),
    'ragged': (file('a.csv', f'a.jpg: {row()}: {row(17)}\n'), 'line 1 has 17 numbers'),
    'two fields': (file('a.csv', f'a.jpg: {row()}\n'), 'line 1 has 2 fields'),
    'cut off': (file('a.csv', f'a.jpg: {row()}: [5, 5'), 'Each row is name'),
    'words': (file('a.csv', f'a.jpg: {row()}: hello\n'), "line 1 has 'hello'"),
    'calls': (file('a.csv', f'a.jpg: {row()}: [print(1)]*18\n'), 'Each row is name'),
}

@pytest.mark.parametrize('name', BAD_TABLES)
def test_bad_tables_get_one_line(name, tmp_path, bad_input):
    make, says = BAD_TABLES[name]
    with pytest.raises(DataError, match=says): read_annotations(make(tmp_path), 'bars')

BAD_CALLS = {
    '16 joints': (lambda: from_array(np.ones((16, 2)), 256), 'a pose of shape'),
    'four columns': (lambda: from_array(np.ones((18, 4)), 256), 'a pose of shape'),
    'words': (lambda: from_array(['a'], 256), 'no array of numbers'),
    'NaN': (lambda: from_array(np.full((18, 3), np.nan), 256), 'NaN'),
    'all missing': (lambda: from_array(np.full((18, 2), -1), 256), 'all joints of the pose are missing'),
    'no size': (lambda: read_keypoints(np.ones((18, 3))), 'Give size='),
    'size 0': (lambda: from_array(np.ones((18, 3)), (0, 5)), 'is no picture size'),
    'a number': (lambda: read_keypoints(5), 'int is no pose'),
    'wrong shape': (lambda: Keypoints(torch.zeros(1, 18, 2), 256), 'keypoints of shape'),
    'NaN keypoints': (lambda: Keypoints(torch.full((1, 18, 3), torch.nan), 256), 'NaN'),
    '19 joints': (lambda: to_array(named_skeleton('walk'), 19), '19 joints'),
    'OpenPose of 17': (lambda: write_openpose(named_skeleton('walk'), 'no.json', 17), 'Give 18 or 25'),
    'unknown pose': (lambda: named_skeleton('flying'), 'Take one of'),
    'frames differ': (lambda: cat_keypoints([named_skeleton('walk', 64), named_skeleton('walk', 32)]), 'make no batch'),
    'merge frames': (lambda: named_skeleton('walk', 64).merge(named_skeleton('walk', 32)), 'Resize one'),
    'nobody to join': (lambda: cat_keypoints([]), 'empty list'),
    'maps of 2-d points': (lambda: heatmaps(torch.zeros(18, 3), 64), 'points of shape'),
    'negative sigma': (lambda: heatmaps(torch.zeros(1, 18, 3), 64, sigma=-1.), 'sigma is'),
    'no box': (lambda: named_skeleton('walk').crop((1, 2, 3)), 'is no box'),
    'empty box': (lambda: named_skeleton('walk').crop((5, 5, 5, 9)), 'is no picture size'),
    'unknown frame': (lambda: read_annotations('no.csv', 'wide'), 'there is no such file|there is no frame'),
    'dwpose shapes': (lambda: from_dwpose(np.ones((1, 134, 2)), np.ones((1, 18)), 256), 'scores of shape'),
}

@pytest.mark.parametrize('name', BAD_CALLS)
def test_bad_calls_get_one_line(name, bad_input):
    call, says = BAD_CALLS[name]
    with pytest.raises(DataError, match=says) as e: call()
    assert '\n' not in str(e.value)
