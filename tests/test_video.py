"""Films in and out, one person followed, filters against their definitions, and photos that move."""
import json
import math
import weakref
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from processes import command

import spice.film
from spice.core import DataError, SpiceError, save_image, seeded, to_pil
from spice.reposer import Reposer, cut_map
from spice.infer import repose
from spice.keypoints import Keypoints, cat_keypoints
from spice.people import People, free_body
from spice.people.people_detector import JointNet, PeopleDetector
from spice.pose_files import save_iuv, write_openpose
from spice.smplify import Fitter, fit_keypoints
from spice.surface import render_body
from spice.train import make_system
from spice.film import Frames, at_rate, film_flow, identity_drift, warping_error, write_video
from spice.video import Live, animate, spice_video
from spice.tracking import (Motion, OneEuro, OneEuroTurns, Track, bridge, calm_joints, detect_film, film_boxes, fit_pieces, motion_from, motion_of, on_boxes,
                            read_poses, spin_camera)

pytestmark = pytest.mark.filterwarnings('ignore:the body may be wrong')

@pytest.fixture(scope='module')
def film(): return People((64, 48), 'valid', samples=1, detail=1, device='cpu').film(19, 'walk', 12)

@pytest.fixture(scope='module')
def tool():
    with seeded(0): return Reposer(make_system('spice', 'tiny'), device='cpu')

@pytest.fixture(scope='module')
def people(): return People(128, 'valid', poses='everyday', yaw=30., samples=1, detail=1, device='cpu').photos([4])

@pytest.fixture(scope='module')
def photo(people): return to_pil(people.image)[0]

@pytest.fixture
def mine(people): return people.keypoints[0]

@pytest.fixture(scope='module')
def shots(film): return to_pil(film.image)

class Known:
    "A detector that knows what is in each frame, one after the other"
    def __init__(self, keypoints): self.keypoints, self.at = list(keypoints), 0
    def __call__(self, images):
        self.at += len(images)
        return [self.keypoints[t] for t in range(self.at - len(images), self.at)]

def apart(a, b): return np.abs(np.asarray(a).astype(int) - np.asarray(b)).mean()

# files

@pytest.mark.parametrize('end', ['.mp4', '.webm', '.gif', '.mov', '.MP4'])
def test_there_and_back(end, shots, tmp_path):
    made = write_video((o for o in shots), tmp_path/f'film{end}', 24)
    back = list(Frames(made))
    assert len(back) == 12 and back[0].size == (48, 64) and Frames(made).fps == pytest.approx(25 if end == '.gif' else 24, abs=1.01)
    assert max(apart(a, b) for a, b in zip(back, shots)) < 5
    assert apart(back[0], shots[6]) > 1.5*apart(back[0], shots[0])                                  # in order

@pytest.mark.parametrize('size', [(33, 47), (32, 47), (2, 2), (1, 5)])
def test_odd_sizes(size, tmp_path):
    image = Image.fromarray(np.full((*size[::-1], 3), 77, np.uint8))
    for end in ('.mp4', '.webm', '.gif'):
        back = next(iter(Frames(write_video([image]*3, tmp_path/f'odd{end}'))))
        even = size if end == '.gif' else tuple(o + o % 2 for o in size)
        assert back.size == even and apart(back.crop((0, 0, *size)), image) < 3

def test_clear_pixels_are_white(tmp_path):
    clear = Image.new('RGBA', (20, 20), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (5, 5, 15, 15))
    clear.save(tmp_path/'clear.gif', save_all=True, append_images=[clear.rotate(90)], disposal=2)
    first = next(iter(Frames(tmp_path/'clear.gif')))
    assert first.getpixel((1, 1)) == (255, 255, 255) and first.getpixel((10, 10)) == (255, 0, 0)

def test_films_that_lie_on_their_side(shots, tmp_path):
    "A phone's note in the header: turn by a quarter"
    data = bytearray(write_video(shots, tmp_path/'film.mp4').read_bytes())
    at = data.index(b'tkhd') + 4 + 40
    unit = 0x10000
    quarter = [0, unit, 0, (-unit) & 0xffffffff, 0, 0, 0, 0, 0x40000000]
    data[at:at + 36] = b''.join(o.to_bytes(4, 'big') for o in quarter)
    (tmp_path/'turned.mp4').write_bytes(data)
    turned = next(iter(Frames(tmp_path/'turned.mp4')))
    assert turned.size == (64, 48)
    assert apart(turned, shots[0].rotate(-90, expand=True)) < 4                                    # clockwise, as the header says

def test_uneven_times(tmp_path, shots):
    "Frames at 0, 1, 2, 10 tenths of a second"
    with av.open(str(tmp_path/'uneven.mp4'), 'w') as file:
        stream = file.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 64, 'yuv420p'
        for t, image in zip((0, 1, 2, 10), shots[::3]):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = t, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert len(list(Frames(tmp_path/'uneven.mp4'))) == 4
    even = list(Frames(tmp_path/'uneven.mp4', fps=10))
    assert len(even) >= 11 and [min(range(4), key=lambda k: apart(o, shots[::3][k])) for o in even[:11]] == [0, 1] + [2]*8 + [3]

@pytest.mark.parametrize('fps', [3., 7., 10., 25., 60.])
def test_even_steps(fps):
    timed = [(k/10, k) for k in range(30)]
    got = list(at_rate(timed, fps, .1))
    assert len(got) == math.ceil(3*fps - 1e-6) and got == [min(29, int(k*10/fps + 1e-6)) for k in range(len(got))]

def test_folders_and_lists(shots, tmp_path):
    for k, o in enumerate(shots): save_image(o, tmp_path/'frames'/f'frame{k}.png')                # frame10 after frame9
    assert all(apart(a, b) == 0 for a, b in zip(Frames(tmp_path/'frames'), shots))
    assert len(list(Frames(shots, fps=5, first=.4, seconds=1))) == 5
    frames = Frames(shots)
    assert [apart(a, b) for a, b in zip(frames, frames)] == [0]*12                                 # two loops at once

def test_few_frames_are_in_memory(tmp_path, monkeypatch):
    write_video((Image.new('RGB', (16, 16), (k*4, 0, 0)) for k in range(60)), tmp_path/'long.mp4')
    alive, most, upright = [0], [0], spice.film._upright
    def gone(): alive[0] -= 1
    def counted(frame):
        image = upright(frame)
        weakref.finalize(image, gone)
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return image
    monkeypatch.setattr(spice.film, '_upright', counted)
    one = Keypoints(torch.ones(1, 18, 3), (16, 16))
    assert len(detect_film(Frames(tmp_path/'long.mp4'), lambda images: [one]*len(images), batch=8)) == 60
    assert 8 <= most[0] <= 18                                                                           # a batch, and the one before

def broken(kind, tmp_path, shots):
    "Files that are no films"
    path = tmp_path/'film.mp4'
    if kind == 'missing': return path
    if kind == 'empty': path.write_bytes(b'')
    elif kind == 'text': path.write_text('no film at all, really, only words')
    elif kind == 'folder':
        path.mkdir()
        (path/'notes.txt').write_text('x')
    elif kind == 'sound':
        with av.open(str(path), 'w') as file:
            stream = file.add_stream('aac', rate=44100)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
            frame.rate = 44100
            file.mux(stream.encode(frame))
            file.mux(stream.encode())
    else:
        data = bytearray(write_video([Image.fromarray(np.random.default_rng(k).integers(0, 255, (64, 48, 3), np.uint8)) for k in range(8)], path).read_bytes())
        if kind == 'cut': data = data[:len(data)//2]
        else:
            at = data.index(b'mdat') + 2000
            data[at:at + 9000] = np.random.default_rng(0).integers(0, 255, 9000, np.uint8).tobytes()
        path.write_bytes(data)
    return path

@pytest.mark.parametrize('kind, says', [('missing', 'there is no such file'), ('empty', 'is empty'), ('text', 'is no film, or damaged'), ('folder', 'holds no pictures'),
                                        ('sound', 'has no pictures'), ('cut', 'is no film, or damaged'), ('noise', 'is damaged after')])
def test_what_is_no_film_gets_one_line(kind, says, tmp_path, shots, bad_input):
    with pytest.raises(SpiceError) as e: list(Frames(broken(kind, tmp_path, shots)))
    assert says in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('end', ['.mp4', '.webm', '.gif'])
def test_half_a_film_is_never_left(end, shots, tmp_path):
    (tmp_path/f'film{end}').write_text('the one before')
    def breaks():
        yield from shots[:5]
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): write_video(breaks(), tmp_path/f'film{end}')
    with pytest.raises(DataError, match='frame 1 is'): write_video([shots[0], shots[1].resize((50, 64))], tmp_path/f'film{end}')
    assert [o.name for o in tmp_path.iterdir()] == [f'film{end}'] and (tmp_path/f'film{end}').read_text() == 'the one before'

def test_unwritable_films(shots, tmp_path, bad_input):
    for path, fps, says in ((tmp_path/'film', 25, 'no ending is no film'), (tmp_path/'film.png', 25, '.png is no film'), (tmp_path/'film.mp4', 0, 'fps=0'),
                            (tmp_path/'film.mp4', -3, 'fps=-3'), (tmp_path/'film.mp4', math.inf, 'fps=inf'), (tmp_path/'film.mp4', math.nan, 'fps=nan'),
                            (tmp_path/'film.mp4', 1e-4, 'fps=0.0001'), (tmp_path/'film.mp4', '25', "fps='25'"), ('/proc/none/film.mp4', 25, 'can not write there')):
        with pytest.raises(SpiceError) as e: write_video(shots, path, fps)
        assert says in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('wrong, says', [(dict(first=-1), 'first=-1'), (dict(first=math.inf), 'first=inf'), (dict(first='1'), "first='1'"), (dict(seconds=-2), 'seconds=-2'),
                                         (dict(fps=0), 'fps=0'), (dict(fps='25'), "fps='25'"), (dict(first=100), 'nothing is left of the film after 100 seconds')])
def test_cuts_that_leave_nothing(wrong, says, shots, tmp_path, bad_input):
    for source in (shots, write_video(shots, tmp_path/'film.mp4', 12)):
        with pytest.raises(DataError) as e: list(Frames(source, **wrong))
        assert says in str(e.value) and '\n' not in str(e.value)

# filters

def reference(xs, dt, cutoff, beta, speed_cutoff):
    "The filter, one number at a time, by its definition"
    alpha = lambda f: 1/(1 + 1/(2*math.pi*f)/dt)
    value, raw, speed, out = xs[0], xs[0], 0., [xs[0]]
    for x in xs[1:]:
        speed += alpha(speed_cutoff)*((x - raw)/dt - speed)
        value, raw = value + alpha(cutoff + beta*abs(speed))*(x - value), x
        out.append(value)
    return out

@pytest.mark.parametrize('cutoff, beta, speed_cutoff, dt', [(1., 0., 1., .04), (.5, 3., 1., .04), (3., .1, 2., .1), (.01, 10., .5, 1/120)])
def test_one_euro_is_its_definition(cutoff, beta, speed_cutoff, dt):
    xs = np.cumsum(np.random.default_rng(0).normal(size=80)).tolist()
    f = OneEuro(cutoff, beta, speed_cutoff)
    got = [float(f(torch.tensor([o], dtype=torch.float64), dt)) for o in xs]
    np.testing.assert_allclose(got, reference(xs, dt, cutoff, beta, speed_cutoff), rtol=1e-9)

def test_one_euro_takes_each_row_for_itself():
    xs, f = torch.randn(30, 5, 2), OneEuro(1., 2.)
    together = torch.stack([f(o, .04) for o in xs])
    g = OneEuro(1., 2.)
    assert torch.allclose(together[:, 3], torch.stack([g(o[3], .04) for o in xs]), atol=1e-6)

def test_turns_stay_turns():
    f = OneEuroTurns(1., 1.)
    R = torch.linalg.qr(torch.randn(50, 24, 3, 3))[0]
    R = R*R.det()[..., None, None]
    out = torch.stack([f(o, .04) for o in R])
    assert (out@out.mT - torch.eye(3)).abs().max() < 1e-4 and (out.det() - 1).abs().max() < 1e-4

def test_calm_joints_come_and_go(film):
    points = film.points.clone()
    points[3:5, 7], points[2:, 4], points[:6, 9] = 0, 0, 0
    out = calm_joints(points, 12., hold=.25)
    assert (out[3:5, 7, 2] > 0).all() and torch.equal(out[3, 7], out[2, 7])                       # stays for three frames
    assert (out[2:5, 4, 2] > 0).all() and not out[5:, 4].any()                                    # and not longer
    assert not out[:6, 9].any() and torch.allclose(out[6, 9], points[6, 9])                       # comes as it is
    assert torch.equal(calm_joints(film.points*torch.tensor([3., 3, 1]), 12.)[..., 2], film.points[..., 2])
    assert torch.allclose(calm_joints(film.points*torch.tensor([3., 3, 1]), 12.)[..., :2], 3*calm_joints(film.points, 12.)[..., :2], atol=1e-3) # no unit

# who, and where

def test_bridge_is_a_line(film):
    points, g = film.points.clone(), torch.Generator().manual_seed(0)
    points[torch.rand(12, 18, generator=g) < .3] = 0
    filled, t = bridge(points, 12), np.arange(12)
    for j in range(18):
        known = points[:, j, 2].numpy() > 0
        inside = (t >= t[known].min()) & (t <= t[known].max())
        for c in range(2): np.testing.assert_allclose(filled[inside, j, c], np.interp(t, t[known], points[known, j, c])[inside], atol=1e-3)
        assert not filled[~inside, j].any()
    assert torch.equal(bridge(points, 0), points)

def test_followed_through_a_crowd():
    "Four people on circles, in any order, each missing now and then"
    rng, stand = np.random.default_rng(1), Keypoints(torch.rand(1, 18, 3)*torch.tensor([30, 80, 0]) + torch.tensor([0., 0, 1]), (400, 400))
    at = lambda i, t: stand.shift(150 + 90*math.cos(i*1.6 + .1*t), 150 + 90*math.sin(i*1.6 + .1*t))
    track = Track(2)
    order = sorted(range(4), key=lambda i: at(i, 0).xy[..., 0].mean())
    for t in range(60):
        here = [i for i in rng.permutation(4).tolist() if t == 0 or rng.random() > .2]
        one = track(cat_keypoints([at(i, t) for i in here])) if here else track(None)
        if order[2] in here: assert torch.equal(one.points, at(order[2], t).points), t
        else: assert one is None, t

def test_a_lone_walker_is_followed_whatever_the_rate(film):
    "A third of a height a frame, also to and fro; somebody else is a step too far"
    one = film.keypoints[0].resize((60, 45))
    tall = float((one.box()[0, 3] - one.box()[0, 1]))
    for steps in ([.3*t for t in range(12)], [3*(t % 2) for t in range(12)]):
        for fps in (3., 25.): assert motion_from([one.shift(o*tall, 0) for o in steps], fps).found.all()
    two = [cat_keypoints([one.shift(.5*t*tall, 0), one.shift(.5*t*tall, 9*tall)]) for t in range(8)]
    assert motion_from(two, 3.).found.all() and motion_from(two, 25.).found.sum() == 1         # in a crowd a step has to be short, by the clock
    gone = two[:4] + [o[1:] for o in two[4:]]
    assert motion_from(gone, 3., 0).found.tolist() == [True]*4 + [False]*4
    track = Track(alone=True)
    assert track(one) is not None and track(two[0]) is not None and track(two[0][1:]) is None, 'from now on there is somebody else'

def test_no_joint_in_common(film):
    upper, lower = film.points[0].clone(), film.points[0].clone()
    upper[8:], lower[:8] = 0, 0
    assert motion_from([Keypoints(o[None], film.size) for o in (upper, lower, upper)]).found.all()

def test_lost_and_looked_for_again(film):
    one, track = film.keypoints[0], Track(lost=5)
    track(one)
    far = one.shift(500, 0)
    assert [track(far) is None for _ in range(7)] == [True]*6 + [False]

def test_openpose_folder(film, tmp_path):
    for k in (0, 5, 10, 20): write_openpose(cat_keypoints([film.keypoints[k//2], film.keypoints[k//2].shift(200, 0)]), tmp_path/f'v_{k:04d}_keypoints.json')
    found = read_poses(tmp_path)
    assert [o is None for o in found] == [False, False, False, True, False]                       # every fifth frame; 15 is missing
    motion = motion_of(tmp_path, person=1)
    assert len(motion) == 5 and motion.found.tolist() == [True, True, True, False, True]
    assert torch.allclose(motion.points[0, :, 0], film.points[0, :, 0] + 200, atol=.01) and motion.size == (64, 48)
    with pytest.raises(SpiceError, match='there are 2 people'): motion_of(tmp_path, person=None)

def test_openpose_files_that_say_no_size(film, tmp_path):
    for k in range(3):
        write_openpose(film.keypoints[k], tmp_path/f'{k}.json')
        data = json.loads((tmp_path/f'{k}.json').read_text())
        (tmp_path/f'{k}.json').write_text(json.dumps(dict(people=data['people'])))
    motion = motion_of(tmp_path)
    assert torch.allclose(motion.points, film.points[:3], atol=.01) and motion.size[0] >= film.points[:3, :, 1].max()

def test_joints_are_cut_as_the_frames_are(film, shots, tmp_path):
    "Joints of every frame of a film, of which some are shown"
    path = write_video(shots, tmp_path/'film.mp4', 12)
    for k in range(12): write_openpose(film.keypoints[k], tmp_path/'poses'/f'{k}.json')
    for given in (tmp_path/'poses', film.keypoints):
        for how, kept in ((dict(), range(12)), (dict(fps=6), range(0, 12, 2)), (dict(fps=24), [k//2 for k in range(24)]), (dict(first=.5), range(6, 12)),
                          (dict(fps=6, first=.5, seconds=.5), (6, 8, 10))):
            moved = motion_of(Frames(path, **how), keypoints=given)
            assert torch.allclose(moved.points, film.points[list(kept)], atol=.01) and len(list(moved.frames)) == len(moved)
        cut = motion_of(Frames(shots, 12, first=.5, seconds=.25), keypoints=given)                   # pictures keep their number at any rate
        assert torch.allclose(cut.points, film.points[6:9], atol=.01)

def test_joints_of_other_films_are_refused(film, shots, tmp_path):
    path = write_video(shots, tmp_path/'film.mp4', 12)
    for k in range(5): write_openpose(film.keypoints[k], tmp_path/'poses'/f'{k}.json')
    for driver in (path, shots, Frames(path, fps=5), Frames(path, seconds=5/12)):
        for given in (tmp_path/'poses', film.keypoints[:5]):
            with pytest.raises(DataError, match='joints of 5 frames for a film of 12'): motion_of(driver, keypoints=given)
    with pytest.raises(DataError, match='nothing is left of the film after 100 seconds'): motion_of(Frames(path, first=100), keypoints=film.keypoints)

def test_bad_motions(film, tmp_path, bad_input):
    (tmp_path/'broken').mkdir()
    (tmp_path/'broken'/'1.json').write_text('{"people": [')
    (tmp_path/'nobody').mkdir()
    for k in range(3): (tmp_path/'nobody'/f'{k}.json').write_text('{"people": []}')
    (tmp_path/'bare').mkdir()
    (tmp_path/'null').mkdir()
    (tmp_path/'null'/'1.json').write_text('{"people": [{"pose_keypoints_2d": null}]}')
    walk = torch.eye(3).expand(24, 3, 3)
    cases = {'flying': 'neither a motion nor a film', str(tmp_path/'broken'): 'is no valid JSON', str(tmp_path/'nobody'): 'nobody was found in 3 frames',
             str(tmp_path/'bare'): 'holds no pictures', str(tmp_path/'null'): 'person 0 has nothing in pose_keypoints_2d'}
    for driver, says in cases.items():
        with pytest.raises(SpiceError) as e: motion_of(driver)
        assert says in str(e.value) and '\n' not in str(e.value)
    for driver, says in ((np.full((4, 18, 3), np.nan), 'NaN'), (np.zeros((4, 18, 3)), 'all joints of the pose are missing'), (walk.numpy(), 'Give'),
                         ([None, None], 'nobody was found in 2 frames'), ([], 'a film without frames'), (7, 'int is no motion')):
        with pytest.raises(SpiceError) as e: motion_of(driver)
        assert says in str(e.value) and '\n' not in str(e.value)
    for fps in ('25', -5, 0, math.inf):
        for driver in (film.keypoints, film, [film.keypoints[0]]):
            with pytest.raises(DataError, match=f'fps={fps!r}'): motion_of(driver, fps)
    with pytest.raises(DataError, match='frames of sizes'): motion_of([film.keypoints[0], film.keypoints[1].resize((32, 32))])

def test_pieces_join_without_a_jump(film):
    body = free_body('cpu')
    fitter = Fitter(body)
    long = Keypoints(torch.cat([film.points, film.points, film.points]), film.size)               # three rounds of one walk
    whole, pieces = fit_pieces(fitter, long), fit_pieces(fitter, long, piece=16, overlap=8)
    assert len(pieces) == len(whole) == 36 and (pieces.rotmats@pieces.rotmats.mT - torch.eye(3)).abs().max() < 1e-4
    one = fitter.fit_film(long, spin_camera(long))
    assert torch.allclose(one.rotmats, whole.rotmats)
    jump = lambda o: body.skeleton(o.rotmats, o.betas)[0].diff(dim=0).norm(dim=2).mean(1)
    assert jump(pieces).max() < 1.5*jump(whole).max()

def test_boxes_keep_the_canvas_shape(film):
    for canvas in ((64, 64), (64, 48), (30, 90)):
        boxes = film_boxes(film.points, canvas)
        left, top, right, bottom = boxes.unbind(1)
        assert torch.allclose((right - left)*canvas[0], (bottom - top)*canvas[1], rtol=1e-4)
        moved = on_boxes(film.points, boxes, canvas)[..., :2]
        assert (moved > 0).all() and (moved < torch.tensor(canvas[::-1])).all()

# photos that move

def test_every_driver(tool, film, shots, photo, mine, tmp_path):
    write_video(shots, tmp_path/'film.mp4', 12)
    for k, o in enumerate(shots): save_image(o, tmp_path/'frames'/f'{k}.png')
    for k in range(12): write_openpose(film.keypoints[k], tmp_path/'poses'/f'{k}.json')
    np.save(tmp_path/'joints.npy', film.points.numpy() - [.5, .5, 0])
    fits = fit_keypoints(tool.body, film.keypoints, fitter=tool.fitter)
    drivers = [tmp_path/'poses', str(tmp_path/'joints.npy'), film, fits, film.keypoints, film.points.numpy(), list(film.keypoints), film.rotmats, 'walk',
               Motion(film.points, film.size, 12., torch.ones(12) > 0)]
    for driver in drivers:
        made = animate(photo, driver, tool, mine, fps=12., smooth='none')
        assert len(made) in (12, 14) and made.fps == 12 and next(iter(made)).size == (64, 64)
    by_file = animate(photo, tmp_path/'film.mp4', tool, mine, detector=Known(film.keypoints), smooth='none')
    by_frames = animate(photo, tmp_path/'frames', tool, mine, driver_keypoints=tmp_path/'poses', fps=12, smooth='none')
    assert torch.allclose(by_file.aims.points, by_frames.aims.points, atol=.1) and by_file.fps == 12
    assert torch.allclose(by_file.aims.points, animate(photo, film.keypoints, tool, mine, fps=12, smooth='none').aims.points, atol=.1)
    assert len(list(by_file.sides())) == 12
    part = animate(photo, Frames(tmp_path/'film.mp4', first=.5, seconds=.25), tool, mine, detector=Known(film.keypoints[6:]), smooth='none')
    assert len(part) == 3 and torch.allclose(part.motion.points, by_file.motion.points[6:9])

def test_a_frame_is_what_repose_gives(tool, film, photo, mine):
    driver = Keypoints(film.points*torch.tensor([64/48, 1, 1]), (64, 64))                         # the canvas' size: taken as it is
    made = list(animate(photo, driver, tool, mine, smooth='none'))
    for t in (0, 5, 11): assert apart(made[t], repose(photo, driver[t], tool, mine)) < 1
    made = list(animate(photo, driver, tool, mine, smooth='none', retarget=False))
    assert apart(made[5], repose(photo, driver[5], tool, mine, retarget=False)) < 1

def test_the_source_is_computed_once(film, photo, mine, monkeypatch):
    with seeded(0): tool = Reposer(make_system('spice', 'tiny'), detector=Known([mine]*3), device='cpu', batch=4)
    calls, encode = [], tool.system.generator.encode_source
    monkeypatch.setattr(tool.system.generator, 'encode_source', lambda *args: calls.append(1) or encode(*args))
    for _ in range(2): assert len(list(animate(photo, film.keypoints, tool))) == 12
    assert calls == [1] and tool.detector.at == 1

def test_other_systems_move_too(tool, film, photo, mine):
    class Plain(type(tool.system)):
        name = ''
        def forward(self, batch): return dict(image=batch['target_wheel'])
    plain = Reposer(Plain(tool.system.settings), device='cpu')
    made = animate(photo, film, plain, mine)
    assert all(apart(a, b) < 1 for a, b in zip(made, made.bodies()))                               # it draws R, so that is what comes out

def test_proportions_stay_the_sources(tool, film, photo, mine):
    kept, taken = (animate(photo, film, tool, mine, retarget=o).aims for o in (True, False))
    assert torch.equal(kept.rotmats, taken.rotmats) and not torch.allclose(kept.points, taken.points, atol=.1)
    seen = tool.see(photo, mine)
    bone = lambda betas: (tool.body.skeleton(kept.rotmats, betas.expand(12, -1))[0][:, [1, 4]]).diff(dim=1).norm(dim=2)
    own, drivers = bone(seen.fits.betas), bone(film.betas)
    shown = lambda aims: (aims.points[:, [8, 9], :2]).diff(dim=1).norm(dim=2)
    ratio = (shown(kept)/shown(taken)).mean()
    assert (ratio - 1)*((own/drivers).mean() - 1) > 0                                              # longer thighs look longer

@pytest.mark.parametrize('smooth', ['film', 'live', 'none'])
def test_gaps_and_short_films(tool, film, photo, mine, smooth):
    found = [film.keypoints[t] if t % 4 else None for t in range(11)]
    made = animate(photo, found, tool, mine, smooth=smooth)
    assert len(list(made)) == 11 and int(made.motion.found.sum()) == 8
    for n in (1, 2): assert len(list(animate(photo, film.keypoints[:n], tool, mine, smooth=smooth))) == n

def test_live(tool, film, photo, mine):
    live = Live(tool, tool.see(photo, mine), 12.)
    with seeded(0): tool.detector = PeopleDetector(JointNet('tiny'), 'cpu', least=0.)
    try: assert live(film.image[0]).size == (64, 64)
    finally: tool.detector = None
    live = Live(tool, tool.see(photo, mine), 12.)
    empty = Keypoints(torch.zeros(0, 18, 3), film.size)
    got = [live(keypoints=o) for o in (empty, film.keypoints[0], empty, empty, film.keypoints[3])]
    assert got[0] is None and apart(got[1], got[2]) == apart(got[1], got[3]) == 0 and apart(got[1], got[4]) > 0

def test_live_follows_a_lone_runner(tool, film, photo, mine):
    "Two frames far apart"
    wide = [Keypoints(film.keypoints[0].shift(o, 0).points, (64, 400)) for o in (0, 300)]
    live = Live(tool, tool.see(photo, mine), 12.)
    for o in wide: live(keypoints=o)
    assert live.track.gone == 0 and torch.equal(live.track.last.points, wide[1].points)
    made = animate(photo, Motion(torch.cat([o.points for o in wide]), (64, 400), 12., torch.ones(2) > 0), tool, mine, smooth='live')
    assert not torch.equal(made.aims.camera.translation[0], made.aims.camera.translation[1])          # as it was found, not frozen

@pytest.mark.parametrize('driver, how, says', [
    ('walk', dict(fps='25'), "fps='25'"), ('walk', dict(fps=-5), 'fps=-5'), ('walk', dict(fps=0), 'fps=0'), ('walk', dict(repeat=0), 'repeat=0'), ('walk', dict(repeat=1.5), 'repeat=1.5'),
    (torch.zeros(0, 24, 3, 3), {}, r'rotations \[0, 24, 3, 3\]'), (torch.eye(3).expand(24, 3, 3), {}, r'rotations \[24, 3, 3\]'),
    (-torch.eye(3).expand(2, 24, 3, 3), {}, 'mirrored rotations'), (2*torch.eye(3).expand(2, 24, 3, 3), {}, 'off by 3')])
def test_bad_animations_get_one_line(driver, how, says, tool, photo, mine, bad_input):
    with pytest.raises(DataError, match=says) as e: animate(photo, driver, tool, mine, **how)
    assert '\n' not in str(e.value)

def test_many_gaps_are_said(tool, film, photo, mine):
    found = [film.keypoints[t] if t in (0, 5, 11) else None for t in range(12)]
    with pytest.warns(UserWarning, match='found in 3 of 12 frames only'): animate(photo, found, tool, mine, smooth='none')

def test_doubtful_bodies_are_said(tool, film, photo, mine):
    wild = film.points.clone()
    wild[4:6, ::2, 1] = 64 - wild[4:6, ::2, 1]
    with pytest.warns(UserWarning, match='the body may be wrong in .* of 12 frames'): animate(photo, Keypoints(wild, film.size), tool, mine, smooth='none')

# what is known of frames

MAPPED = dict( # a system that needs a map of the target, as small as it can be
    densepose=('dpt', dict(width=4, blocks=2, blend_width=4, chart_widths=(4, 8), embedding=8, critic_width=4, charts='densepose'), 'dense_pose'),
    parsing=('parsing', dict(width=4, cap=8, readers=4, critic_width=4, levels=3, variant='TS-GT'), 'maps_of'))

@pytest.fixture(scope='module')
def walk(): return People(64, 'valid', samples=1, detail=1, device='cpu').film(19, 'walk', 4)

@pytest.fixture(params=MAPPED)
def mapped(request, walk, tmp_path):
    "Kind of map, the system, what it was given of targets, a folder with a photo and frames wider than the person, and what is known of these; the true maps"
    kind, (name, changes, method), wide = request.param, MAPPED[request.param], 40
    with seeded(0): system = make_system(name, 'tiny', **changes)
    true = render_body(free_body('cpu'), walk.rotmats, walk.betas, walk.camera).iuv if kind == 'densepose' else walk.parsing
    true, given, ask = torch.nn.functional.pad(true, (wide, wide)), [], getattr(system, method)
    def asked(batch, side='source'):
        if side == 'target': given.append(batch['target_' + kind])
        return ask(batch, side)
    object.__setattr__(system, method, asked)
    places = [tmp_path/'me', *(tmp_path/'frames'/f'{k}' for k in range(len(walk)))]
    for k, place in zip((0, *range(len(walk))), places):
        place.parent.mkdir(exist_ok=True)
        pixels = np.pad(np.asarray(to_pil(walk.image)[k]), ((0, 0), (wide, wide), (0, 0)), constant_values=200)
        save_image(Image.fromarray(pixels), place.with_suffix('.png'))
        if kind == 'densepose': save_iuv(true[k], place.parent/f'{place.name}_IUV.png')
        else: np.save(place.parent/f'{place.name}_parsing.npy', true[k].numpy())
        write_openpose(Keypoints(walk.points[k:k + 1] + torch.tensor([wide, 0, 0]), (64, 64 + 2*wide)), tmp_path/'poses'/f'{place.name}.json')
    (tmp_path/'poses'/'me.json').rename(tmp_path/'me.json')
    for end in ('_IUV.png', '_parsing.npy'):
        if (tmp_path/f'me{end}').exists(): (tmp_path/f'me{end}').rename(tmp_path/'frames'/f'me{end}')
    return kind, system, given, tmp_path, true

@pytest.mark.parametrize('smooth', ['film', 'live'])
def test_maps_of_each_frame_reach_the_system(mapped, walk, smooth, bad_input):
    "By a folder, a function, a film's file: what is known of a frame is cut out as the frame is"
    kind, system, given, folder, true = mapped
    how = dict(keypoints=folder/'me.json', driver_keypoints=folder/'poses', smooth=smooth)
    film = animate(str(folder/'me.png'), str(folder/'frames'), Reposer(system, device='cpu', maps=str(folder/'frames')), **how)
    assert len(list(film)) == len(walk) == len(film), 'NAME_IUV.png is no frame'
    there = torch.cat(given)
    given.clear()
    cut = torch.stack([cut_map(true[k], box.tolist(), (64, 64)) for k, box in enumerate(film.aims.boxes)])
    assert torch.allclose(there.float(), cut.float(), atol=.003) and (there[1:] != there[:-1]).flatten(1).any(1).all()
    on = (there[:, 0] if kind == 'densepose' else there) > 0
    x, y = on_boxes(film.motion.points, film.aims.boxes, (64, 64))[:, [8, 11], :2].mean(1).long().T
    assert on[torch.arange(len(on)), y, x].all(), 'maps lie where the person is'
    paths = [folder/'frames'/f'{k}.png' for k in range(len(walk))]
    known = lambda photo: {kind: true[0 if Path(photo).stem == 'me' else int(Path(photo).stem)]}
    list(animate(str(folder/'me.png'), paths, Reposer(system, device='cpu', maps=known), **how))
    assert torch.allclose(torch.cat(given).float(), there.float(), atol=.003)
    given.clear()
    write_video([Image.open(o) for o in paths], folder/'film.mp4', 4.)
    asked = iter((true[0], *true))
    list(animate(str(folder/'me.png'), str(folder/'film.mp4'), Reposer(system, device='cpu', maps=lambda photo: {kind: next(asked)}), **how))
    assert len(torch.cat(given)) == len(walk), 'a function is asked for the frames of a file, too'

def test_maps_by_command_and_what_has_none(mapped, walk, monkeypatch, bad_input):
    kind, system, given, folder, _ = mapped
    system.save_pretrained(folder/'model')
    how = dict(model=str(folder/'model'), keypoints=str(folder/'me.json'), device='cpu')
    driven = how | dict(driver_keypoints=str(folder/'poses'))
    me, frames = str(folder/'me.png'), str(folder/'frames')
    made = spice_video(me, frames, str(folder/'out.gif'), maps=frames, **driven)
    assert len(list(Frames(made))) == len(walk)
    for driver, more, says in (('walk', how | dict(maps=frames), f'this driver has no photos to have {kind} of'), (str(folder/'poses'), how | dict(maps=frames), 'this driver has no photos'),
                               (frames, driven, f'{system.name} needs {kind} of every frame'), (frames, driven | dict(maps=str(folder/'poses')), 'the source has no|frame 1 of the driver has no')):
        with pytest.raises(SpiceError, match=says) as e: spice_video(me, driver, str(folder/'other.gif'), **more)
        assert '\n' not in str(e.value) and not (folder/'other.gif').exists()
    next(iter((folder/'frames').glob('2_*'))).unlink()
    with pytest.raises(DataError, match=f'frame 3 of the driver has no {kind}'): spice_video(me, frames, str(folder/'other.gif'), maps=frames, **driven)
    with pytest.raises(DataError, match='maps beside a Reposer'): animate(me, 'walk', Reposer(system, device='cpu'), maps=frames)

def test_maps_of_a_photo_go_with_a_motion_by_its_name(walk, bad_input):
    "A system that finds the target's map itself needs only the photo's; and live, a function is asked for each picture"
    with seeded(0): system = make_system('parsing', 'tiny', **MAPPED['parsing'][1] | dict(variant='E2E'))
    photo, mine = to_pil(walk.image)[0], walk.keypoints[0]
    films = [[np.asarray(o) for o in animate(photo, 'walk', Reposer(system, device='cpu', maps=o), mine, fps=4)] for o in (None, lambda photo: dict(parsing=walk.parsing[0]))]
    assert np.abs(np.stack(films[0]).astype(int) - np.stack(films[1])).max() > 0
    with seeded(0): system = make_system('parsing', 'tiny', **MAPPED['parsing'][1])
    known = lambda photo: dict(parsing=walk.parsing[next(k for k in range(len(walk)) if torch.equal(walk.image[k], photo))])
    tool = Reposer(system, device='cpu', maps=known)
    live = Live(tool, tool.see(walk.image[0], mine), 4.)
    made = [live(walk.image[k], walk.keypoints[k]) for k in range(3)]
    assert all(o.size == (64, 64) for o in made) and torch.equal(live.maps['parsing'], walk.parsing[2])

def test_measures(film):
    body = free_body('cpu')
    flow, visibility = film_flow(body, film, film.betas)
    assert flow.shape == (11, 2, 64, 48) and visibility.shape == (11, 64, 48)
    still = film[[0, 0, 0]]
    flow0, seen0 = film_flow(body, still, still.betas)
    assert flow0.abs().max() < 1e-2 and warping_error(still.image, flow0, seen0).max() < 1e-4      # a film that stands still
    turns = People((64, 48), 'valid', samples=1, detail=1, device='cpu').film(19, 'turn', 12)
    flow, visibility = film_flow(body, turns, turns.betas)
    assert warping_error(turns.image, flow, visibility).nanmean() < .5*warping_error(turns.image, flow*0, visibility).nanmean()
    same = identity_drift(film.image[:1], film.image[:1].expand(6, -1, -1, -1))
    assert same['distance'].abs().max() < 1e-5 and abs(same['drift']) < 1e-5
    back = identity_drift(film.image[:1], film.image.flip(0), batch=5)
    there = identity_drift(film.image[:1], film.image)
    assert torch.allclose(back['distance'], there['distance'].flip(0), atol=1e-5) and back['drift'] == pytest.approx(-there['drift'], abs=1e-5)

def test_command(tool, film, shots, photo, mine, tmp_path, capsys):
    tool.system.save_pretrained(tmp_path/'model')
    save_image(photo, tmp_path/'me.png')
    write_openpose(mine, tmp_path/'me.json')
    write_video(shots, tmp_path/'film.webm', 12)
    for k in range(12): write_openpose(film.keypoints[k], tmp_path/'poses'/f'{k}.json')
    how = dict(model=str(tmp_path/'model'), keypoints=str(tmp_path/'me.json'), device='cpu')
    spice_video(str(tmp_path/'me.png'), str(tmp_path/'film.webm'), str(tmp_path/'out.mp4'), driver_keypoints=str(tmp_path/'poses'), smooth='live', json=True, **how)
    said = json.loads(capsys.readouterr().out)
    assert (said['frames'], said['found'], said['fps']) == (12, 12, 12.) and len(list(Frames(tmp_path/'out.mp4'))) == 12
    with pytest.raises(DataError, match='is there already'): spice_video(str(tmp_path/'me.png'), 'walk', str(tmp_path/'out.mp4'), **how)
    spice_video(str(tmp_path/'me.png'), 'walk', str(tmp_path/'out.mp4'), fps=6., overwrite=True, **how)
    assert 'frames at 6 a second' in capsys.readouterr().out

def test_command_says_no_in_one_line(tmp_path):
    out = command('spice_video', 'me.jpg', 'walk', '--device', 'cpu', cwd=tmp_path)
    assert out.returncode == 1 and 'me.jpg' in out.stderr and out.stderr.count('\n') == 1
    assert list(tmp_path.iterdir()) == []

@pytest.mark.parametrize('seed', (1, 17, 27)) # with which x264 was seen to differ
def test_same_frames_give_the_same_file(seed, tmp_path):
    rng = np.random.default_rng(seed)
    first = rng.normal(120, 40, (64, 64, 3))
    frames = [Image.fromarray((first + k*rng.normal(0, 25, first.shape)).clip(0, 255).astype(np.uint8)) for k in (0, *[1]*6)]
    assert len({write_video(frames, tmp_path/'film.mp4', 5).read_bytes() for _ in range(12)}) == 1
