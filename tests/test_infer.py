"""repose: everything it takes, and one clear line for everything it doesn't."""
import json, shutil, warnings
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from processes import command
from spice.core import DataError, SpiceError, WeightsError, save_image, seeded, to_pil
from spice.sources import person_box
from spice.reposer import Reposer, own_detector
from spice.infer import demo_result, files_of, repose, spice_demo, spice_repose
from spice.keypoints import Keypoints
from spice.people import People
from spice.people.people_detector import JointNet, PeopleDetector
from spice.pose_files import write_openpose
from spice.train import make_system

@pytest.fixture(scope='module')
def tool():
    with seeded(0): return Reposer(make_system('spice', 'tiny'), device='cpu')

@pytest.fixture(scope='module')
def people(): return People(256, 'valid', poses='everyday', yaw=30., samples=1, device='cpu').photos([19, 4])

@pytest.fixture(scope='module')
def photo(people): return to_pil(people.image[:1])[0]

@pytest.fixture
def mine(people): return people.keypoints[0]

class Known:
    "A detector that knows the answer"
    def __init__(self, keypoints): self.keypoints = keypoints
    def __call__(self, images): return [self.keypoints]*len(images)

def same(a, b): return np.array_equal(np.asarray(a), np.asarray(b))

def alike(a, b):
    "The same picture, made in another batch: its last bits may round to the next of 255 steps, or put an edge on the other side of a pixel's centre"
    return (np.abs(np.asarray(a, int) - np.asarray(b, int)) > 2).mean() < .005

def test_photos_and_poses_of_every_kind(tool, people, photo, mine, tmp_path):
    save_image(photo, tmp_path/'me.png')
    np.save(tmp_path/'pose.npy', people.points[1].numpy())
    write_openpose(people.keypoints[1], tmp_path/'pose.json')
    sources = [photo, tmp_path/'me.png', str(tmp_path/'me.png'), np.asarray(photo)]
    results = [repose(o, 'walk', tool, mine) for o in sources]
    assert all(same(o, results[0]) for o in results)
    poses = [people.keypoints[1], people.points[1].numpy(), people.points[1].tolist(), str(tmp_path/'pose.npy')]
    made = [repose(photo, o, tool, mine) for o in poses]
    assert all(same(o, made[1]) for o in made[1:]) and not same(made[0], results[0])      # arrays are pixel indices, half a pixel off
    for pose in (tmp_path/'pose.json', people[1:2], people.rotmats[1], 'sit'): assert repose(photo, pose, tool, mine).size == (64, 64)
    coco17 = np.concatenate([people.points[1, [0, 14, 15, 16, 17, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]].numpy()], 0)
    assert repose(photo, coco17, tool, mine).size == (64, 64)

def test_detector_is_asked(tool, photo, mine, people):
    tool.detector = Known(mine)
    try: assert same(repose(photo, 'walk', tool), repose(photo, 'walk', tool, mine))
    finally: tool.detector = None

def test_lists_and_batches(tool, photo, mine):
    poses = ['walk', 'sit', 'arms_up']
    whole = repose([photo, photo], poses, tool, [mine, mine])
    assert len(whole) == 6 and same(whole[0], whole[3])
    tool.batch = 1
    try: alone = repose([photo, photo], poses, tool, [mine, mine])
    finally: tool.batch = 16
    assert all(np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 2 for a, b in zip(whole, alone))
    assert isinstance(repose(photo, ['walk'], tool, mine), list) and isinstance(repose(photo, 'walk', tool, mine), Image.Image)

def test_a_photo_of_any_size_is_cut_to_the_person(tool, photo, mine):
    wide = Image.new('RGB', (700, 300), 'gray')
    wide.paste(photo, (400, 20))
    moved = mine.points.clone()
    moved[..., 0] += 400
    moved[..., 1] += 20
    seen = tool.see(wide, Keypoints(moved, (300, 700)))
    direct = tool.see(photo, mine)
    assert torch.allclose(seen.keypoints.points, direct.keypoints.points, atol=.6)
    assert seen.box[0] - direct.box[0] == pytest.approx(400, abs=1) and seen.image.size == (64, 64)
    back = repose(wide, 'walk', tool, Keypoints(moved, (300, 700)), paste=True)
    assert back.size == (700, 300) and same(back.crop((0, 0, 300, 300)), wide.crop((0, 0, 300, 300)))

def test_a_canvas_is_taken_as_it_is(tool, photo, mine):
    small = photo.resize((64, 64))
    seen = tool.see(small, mine.resize((64, 64)))
    assert seen.box == (0, 0, 64, 64) and same(seen.image, small)

def test_proportions_stay_the_sources(tool, people, photo, mine):
    seen = tool.see(photo, mine)
    kept, taken = (tool.aim(people.keypoints[1], seen, retarget=o) for o in (True, False))
    assert not torch.allclose(kept.points, taken.points, atol=.1)
    driver = tool.driver(people.keypoints[1])
    assert torch.equal(taken.points.cpu(), driver.keypoints.points)
    assert torch.allclose(kept.rotmats, driver.fits.rotmats)

def test_every_step_is_there(tool, photo, mine):
    steps = repose(photo, 'walk', tool, mine, return_all=True).steps
    assert list(steps) == ['source', 'its joints', 'R of it', 'target', 'R of the target', 'flow', 'from source', 'warped', 'result']
    assert all(o.size == (64, 64) for o in steps.values())

def test_boxes():
    points = torch.zeros(1, 18, 3)
    points[0, 0] = torch.tensor([30., 40, 1])
    left, top, right, bottom = person_box(Keypoints(points, (64, 64)), (128, 64))
    assert (right - left)*2 == pytest.approx(bottom - top, abs=2)

BAD = {
    'no system': (dict(model=torch.nn.Linear(1, 1)), 'a Linear is no model'),
    'a number as model': (dict(model=3.5), 'a float is no model'),
    'a word as seed': (dict(seed='a'), "seed='a'"),
    'mirrored rotations': (dict(pose=-torch.eye(3).expand(24, 3, 3)), 'these are no rotations'),
    'mirrored rotations as an array': (dict(pose=-np.broadcast_to(np.eye(3), (24, 3, 3))), 'these are no rotations'),
    'ragged joints': (dict(pose=[[1., 2]]*16 + [[1., 2, 3]]), 'these joints are no table of numbers'),
    'yes as person': (dict(keypoints=Keypoints(torch.rand(2, 18, 3)*200 + 1, (256, 256)), person=True), 'person=True of 2'),
    'no such model': (dict(model='nowhere'), 'no such folder or model'),
    'no photo': (dict(photo='nowhere.jpg'), 'no such file'),
    'a folder as photo': (dict(photo='.'), 'is a folder'),
    'no poses': (dict(pose=[]), 'no photo or no pose'),
    'no photos': (dict(photo=[]), 'no photo or no pose'),
    'unknown pose': (dict(pose='flying'), 'neither a pose nor a file'),
    'missing pose file': (dict(pose='pose.json'), 'neither a pose nor a file'),
    'wrong joints': (dict(pose=np.zeros((5, 3))), 'Give [n, 2] or [n, 3] with n = 17 (COCO), 18, 25 (BODY_25)'),
    'NaN joints': (dict(pose=np.full((18, 3), np.nan)), 'the pose holds NaN or infinite values'),
    'infinite joints': (dict(pose=np.full((18, 2), np.inf)), 'the pose holds NaN or infinite values'),
    'no joint known': (dict(pose=np.zeros((18, 3))), 'all joints of the pose are missing'),
    'no joints at all': (dict(pose=np.zeros((0, 3))), 'Give [n, 2] or [n, 3] with n = 17'),
    'keypoints of nobody': (dict(pose=Keypoints(torch.zeros(1, 18, 3), (64, 64))), 'no joint of the person is known'),
    'no rotations': (dict(pose=torch.ones(24, 3, 3)), 'no rotations'),
    'two bodies': (dict(pose=torch.eye(3).expand(2, 24, 3, 3)), '2 bodies for one pose'),
    'keypoints of another size': (dict(keypoints=Keypoints(torch.ones(1, 18, 3), (300, 256))), 'Give those of this photo'),
    'no keypoints': (dict(keypoints=Keypoints(torch.zeros(1, 18, 3), (256, 256))), 'no joint of the person'),
    'a detector twice': (dict(detector=Known), 'Give them to the Reposer'),
    'two people': (dict(keypoints=Keypoints(torch.rand(2, 18, 3)*200 + 1, (256, 256))), 'there are 2 people'),
    'a person too many': (dict(keypoints=Keypoints(torch.rand(2, 18, 3)*200 + 1, (256, 256)), person=2), 'person=2 of 2'),
    'an odd choice': (dict(keypoints=Keypoints(torch.rand(2, 18, 3)*200 + 1, (256, 256)), person='tallest'), "person='tallest'"),
    'too few sets of keypoints': (dict(photo=['a', 'b'], keypoints=[None]), '1 sets of keypoints for 2'),
    'an empty array': (dict(photo=np.zeros((0, 0, 3), np.uint8)), 'has no pixels'),
    'floats over 1': (dict(photo=np.full((9, 9, 3), 255.)), 'float values from 255 to 255'),
    'an array of no picture': (dict(photo=np.zeros((4, 4, 7), np.uint8)), 'is no picture'),
    'NaN rotations': (dict(pose=torch.full((24, 3, 3), float('nan'))), 'these are no rotations'),
    'a number as pose': (dict(pose=7), 'int is no picture'),
    'joints of a larger picture': (dict(keypoints=np.random.default_rng(0).uniform(300, 900, (18, 2))), 'most joints lie outside the photo of 256 x 256'),
    'a person that is no number': (dict(keypoints=Keypoints(torch.rand(2, 18, 3)*200 + 1, (256, 256)), person=1.5), 'person=1.5 of 2'),
}

def test_there_are_at_least_twenty_cases(): assert len(BAD) >= 20 and all(says for _, says in BAD.values())

@pytest.mark.parametrize('case', BAD)
def test_bad_input_gets_one_line(case, tool, photo, mine, bad_input):
    change, says = BAD[case]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(SpiceError) as e: repose(**{**dict(photo=photo, pose='walk', model=tool, keypoints=mine), **change})
    assert says in str(e.value) and '\n' not in str(e.value)

def test_corrupt_photo_and_foreign_model(tool, mine, tmp_path, photo, bad_input):
    (tmp_path/'cut.png').write_bytes(b'\x89PNG\r\n\x1a\n12345')
    with pytest.raises(SpiceError): repose(tmp_path/'cut.png', 'walk', tool, mine)
    (tmp_path/'config.json').write_text(json.dumps(dict(network='Regressor', settings={})))
    with pytest.raises(WeightsError, match='holds no system'): Reposer(tmp_path, device='cpu')

def test_bad_files_get_one_line(tool, photo, mine, tmp_path, bad_input):
    one = lambda numbers: json.dumps(dict(people=[dict(pose_keypoints_2d=numbers)], canvas_width=9, canvas_height=9))
    files = {'cut.json': ('{"people": [', 'is no valid JSON'), 'empty.json': ('{"people": []}', 'holds no people'), 'list.json': ('[1, 2]', 'has no list "people"'),
             'five.json': (one([1, 2, 3, 4, 5]), 'has 5 numbers'), 'zeros.json': (one([0]*54), 'all joints of the pose are missing'),
             'size.json': ('{"people": [{"pose_keypoints_2d": %s}]}' % ([1]*54), 'does not say how large its picture is'),
             'text.npy': ('walk', 'can not be read'), 'text.txt': ('walk', 'is not a picture'), 'nothing.png': ('', 'the file is empty')}
    for name, (text, says) in files.items():
        (tmp_path/name).write_text(text)
        with pytest.raises(SpiceError) as e: repose(photo, tmp_path/name, tool, mine)
        assert says in str(e.value) and '\n' not in str(e.value), name

def test_a_model_of_another_size(tool, tmp_path, bad_input):
    "Settings and weights that do not belong together"
    tool.system.save_pretrained(tmp_path)
    config = json.loads((tmp_path/'config.json').read_text())
    config['settings']['generator']['width'] = 48
    (tmp_path/'config.json').write_text(json.dumps(config))
    with pytest.raises(WeightsError) as e: Reposer(tmp_path, device='cpu')
    assert '\n' not in str(e.value)

class Counted:
    "A detector that knows the answer and counts the questions"
    def __init__(self, keypoints): self.keypoints, self.asked = keypoints, 0
    def __call__(self, images):
        self.asked += len(images)
        return [self.keypoints]*len(images)

def test_a_photo_is_looked_at_once(tool, photo, mine, people, tmp_path):
    tool.forget()
    save_image(photo, tmp_path/'me.png')
    try:
        tool.detector = Counted(mine)
        first = repose(photo, ['walk', 'sit'], tool)
        second = repose(str(tmp_path/'me.png'), ['walk', 'sit'], tool)
        assert tool.detector.asked == 1 and all(same(a, b) for a, b in zip(first, second))
        assert tool.see(photo) is tool.see(tmp_path/'me.png') and len(tool.encoded) == 1
        tool.detector = Counted(mine.shift(3, 0))                  # another detector, another answer
        assert tool.see(photo).box[0] == tool.see(photo, mine).box[0] + 3 and tool.detector.asked == 1
    finally: tool.detector = None

def test_one_driver_is_fitted_once_for_many_photos(tool, photo, mine, people, monkeypatch):
    import spice.reposer
    tool.forget()
    fitted, fit = [], spice.reposer.fit_keypoints
    monkeypatch.setattr(spice.reposer, 'fit_keypoints', lambda *args, **kwargs: fitted.append(1) or fit(*args, **kwargs))
    repose([photo, to_pil(people.image[1:])[0]], people.keypoints[1].resize((64, 64)), tool, [mine, people.keypoints[1]])
    assert len(fitted) == 3                                        # two sources, one driver
    repose([photo, to_pil(people.image[1:])[0]], people.keypoints[0], tool, [mine, people.keypoints[1]])
    assert len(fitted) == 3                                        # the driver is the first source

def test_batches_fit_the_device(tool):
    assert tool.batch == 16 and Reposer(tool.system, device='cpu', batch=3).batch == 3
    assert Reposer(make_system('spice', 'small'), device='cpu').batch == 6

def test_little_is_remembered(tool, photo, mine):
    small = Reposer(tool.system, device='cpu', keep=1)
    for turn in range(3): small.see(photo.rotate(90*turn), mine)
    assert len(small.found) == 1
    nothing = Reposer(tool.system, device='cpu', keep=0)
    a, b, c = repose(photo, 'walk', nothing, mine), repose(photo, 'walk', tool, mine), repose(photo, 'stroll', nothing, mine)
    assert alike(a, b) and not alike(a, c) and not nothing.found and not nothing.encoded

def test_other_systems_go_the_plain_way(tool, photo, mine):
    class Plain(type(tool.system)):
        name = ''
        def forward(self, batch): return dict(image=batch['source_image'].flip(3))
    with seeded(0): plain = Reposer(Plain(tool.system.settings), device='cpu')
    assert np.abs(np.asarray(repose(photo, 'walk', plain, mine).transpose(0)).astype(int) - np.asarray(plain.see(photo, mine).image)).max() <= 1
    assert not plain.encoded

def test_seeds(tool, photo, mine):
    class Noisy(type(tool.system)):
        name = ''
        def forward(self, batch): return dict(image=torch.rand_like(batch['source_image']))
    noisy = Reposer(Noisy(tool.system.settings), device='cpu')
    a, b, c = (repose(photo, 'walk', noisy, mine, seed=o) for o in (1, 1, 2))
    assert same(a, b) and not same(a, c)
    assert same(*(repose(photo, 'walk', tool, mine, seed=o) for o in (1, 2)))

def test_whose_pose(tool, photo, mine, people, tmp_path):
    pair = Keypoints(torch.cat([people.points[1], people.points[1]*torch.tensor([.4, .4, 1])]).view(2, 18, 3), (256, 256))
    with pytest.raises(SpiceError, match='there are 2 people'): repose(photo, pair, tool, mine)
    wanted = repose(photo, people.keypoints[1], tool, mine)
    assert same(repose(photo, pair, tool, mine, whose='largest'), wanted)
    write_openpose(pair, tmp_path/'pair.json')
    write_openpose(mine, tmp_path/'mine.json')
    save_image(photo, tmp_path/'photo.png')
    tool.system.save_pretrained(tmp_path/'model')
    how = dict(out=str(tmp_path/'out'), model=str(tmp_path/'model'), keypoints=str(tmp_path/'mine.json'), device='cpu')
    with pytest.raises(DataError, match='1 could not be made'): spice_repose(str(tmp_path/'photo.png'), str(tmp_path/'pair.json'), **how)
    made, = spice_repose(str(tmp_path/'photo.png'), str(tmp_path/'pair.json'), whose='largest', **how)
    assert alike(Image.open(made), wanted)

def test_people_detector_finds_both(tool, photo):
    with seeded(0): untrained = PeopleDetector(JointNet('tiny'), 'cpu', least=0.)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')                            # it has learned nothing: the body is a guess
        assert repose(photo, photo, Reposer(tool.system, detector=untrained, device='cpu')).size == (64, 64)
        assert repose(photo, photo, tool.system, detector=untrained, device='cpu').size == (64, 64)

def test_command_with_folders(tool, photo, mine, people, tmp_path, capsys):
    tool.system.save_pretrained(tmp_path/'model')
    for name, image, points in (('a', photo, mine), ('b', to_pil(people.image[1:])[0], people.keypoints[1])):
        save_image(image, tmp_path/'photos'/f'{name}.png')
        write_openpose(points, tmp_path/'joints'/f'{name}.json')
    save_image(photo, tmp_path/'photos'/'c.png')
    how = dict(out=str(tmp_path/'out'), model=str(tmp_path/'model'), keypoints=str(tmp_path/'joints'), device='cpu', json=True)
    with pytest.raises(DataError, match='1 could not be made'): spice_repose(str(tmp_path/'photos'), f"walk,{tmp_path/'joints'}", **how)
    said = json.loads(capsys.readouterr().out)
    names = ['a_a.png', 'a_b.png', 'a_walk.png', 'b_a.png', 'b_b.png', 'b_walk.png']
    assert sorted(Path(o).name for o in said['made']) == sorted(o.name for o in (tmp_path/'out').iterdir()) == names and said['there'] == 0
    assert len(said['wrong']) == 1 and 'has no joints of c.png' in said['wrong'][0]['error']
    assert np.abs(np.asarray(Image.open(tmp_path/'out'/'a_walk.png')).astype(int) - np.asarray(repose(photo, 'walk', tool, mine))).mean() < 3
    before = (tmp_path/'out'/'a_walk.png').stat().st_mtime_ns
    spice_repose(str(tmp_path/'photos'/'a.png'), 'walk,sit', **how)
    assert json.loads(capsys.readouterr().out) == dict(made=[str(tmp_path/'out'/'a_sit.png')], there=1, wrong=[])
    spice_repose(str(tmp_path/'photos'/'a.png'), 'walk', **{**how, 'json': False}, overwrite=True)
    assert '1 picture in' in capsys.readouterr().out and (tmp_path/'out'/'a_walk.png').stat().st_mtime_ns > before
    with pytest.raises(DataError, match='1 could not be made'): spice_repose(str(tmp_path/'photos'/'a.png'), 'nowhere.json', **how)

def test_doubtful_fits_are_said(tool, photo, mine):
    wild = Keypoints(mine.points.clone(), mine.size)
    wild.points[0, ::2, :2] = 256 - wild.points[0, ::2, :2]
    with pytest.warns(UserWarning, match='the body may be wrong'): tool.see(photo, wild)

def test_names_of_files(tmp_path):
    for o in ('b.png', 'a.jpg', 'notes.txt'): (tmp_path/o).write_bytes(b'x')
    assert [o.name for o in files_of(str(tmp_path))] == ['a.jpg', 'b.png']
    assert [o.name for o in files_of(f'{tmp_path}/*.png')] == ['b.png'] and files_of('walk, sit') == ['walk', 'sit']
    (tmp_path/'b_IUV.png').touch() # what DensePose says of b.png
    assert [o.name for o in files_of(str(tmp_path))] == ['a.jpg', 'b.png'] and [o.name for o in files_of(f'{tmp_path}/*.png')] == ['b.png']
    assert [o.name for o in files_of(f'{tmp_path}/b_IUV.png')] == ['b_IUV.png']
    with pytest.raises(DataError, match='names no file'): files_of(' , ')

def test_command_says_no_in_one_line(tmp_path):
    out = command('spice_repose', 'me.jpg', 'walk', '--device', 'cpu', cwd=tmp_path)
    assert out.returncode == 1 and '1 could not be made' in out.stderr and out.stderr.count('\n') == 1
    assert 'me.jpg: there is no such file' in out.stdout and list(tmp_path.iterdir()) == []

@pytest.fixture
def trained(tmp_path):
    "A model's folder with a detector of its own"
    with seeded(0): make_system('spice', 'tiny').save_pretrained(tmp_path/'model')
    with seeded(0): JointNet('tiny').save_pretrained(tmp_path/'model'/'detector')
    return tmp_path/'model'

def test_no_other_place_is_asked_for_a_detector(trained, monkeypatch):
    "A folder, or a name of the package, is never taken for a name on the Hub"
    asked = []
    monkeypatch.setattr('spice.weights.hf_hub_download', lambda *a: asked.append(a) or 1/0)
    monkeypatch.chdir(trained.parent)
    assert own_detector('model', 'cpu') is not None and own_detector(trained, 'cpu') is not None
    shutil.rmtree(trained/'detector')
    assert own_detector('model', 'cpu') is None and own_detector('nobody', 'cpu') is None and asked == []
    assert own_detector('some/model', 'cpu') is None and asked == []
    assert own_detector('hf:some/model', 'cpu') is None and asked == [('some/model', 'detector/config.json')]

def test_one_joint_far_away(tool, photo, mine):
    "It does not make the canvas huge"
    wild = Keypoints(mine.points.clone(), mine.size)
    wild.points[0, 4, 0] = 1e5
    box = tool.see(photo, wild).box
    assert max(abs(o) for o in box) < 2*max(photo.size)

def test_rotations_as_an_array(tool, photo, mine):
    body = torch.as_tensor(tool.see(photo, mine).fits.rotmats[0])
    assert np.array_equal(*(np.asarray(repose(photo, o, tool, mine)) for o in (body, body.numpy())))

def test_a_model_brings_its_detector(trained, photo, mine):
    assert Reposer(str(trained), device='cpu').detector is None                                # BlazePose, loaded when it is needed
    tool = Reposer(str(trained), detector='own', device='cpu')
    with pytest.raises(WeightsError, match='brings no detector of its own'): Reposer(tool.system, detector='own', device='cpu')
    assert isinstance(tool.detector, PeopleDetector) and tool.detector.net.name == JointNet('tiny').name
    assert Reposer(str(trained), device='cpu', detector=Known(mine)).detector.keypoints is mine
    (trained/'detector'/'model.safetensors').write_bytes(b'half')
    with pytest.raises(WeightsError, match='can not be read'): Reposer(str(trained), detector='own', device='cpu')

def test_demo_with_a_model(tool, trained, photo, mine, tmp_path, capsys, monkeypatch, bad_input):
    wide = demo_result(tool, 'sit').size
    assert wide[0] > 3*64 and wide == demo_result(tool, 'walk').size
    save_image(photo, tmp_path/'me.png')
    write_openpose(mine, tmp_path/'me.json')
    path = spice_demo('walk', out=str(tmp_path/'demo.png'), photo=str(tmp_path/'me.png'), keypoints=str(tmp_path/'me.json'), model=str(trained))
    assert path.exists() and 'in the pose "walk"' in capsys.readouterr().out
    with pytest.raises(SpiceError, match='no such folder or model'): spice_demo('walk', out=str(tmp_path/'x.png'), model='nowhere')
    with pytest.raises(DataError, match='no pose'): spice_demo('flying', out=str(tmp_path/'x.png'), photo=str(tmp_path/'me.png'), model=str(trained))
    assert not (tmp_path/'x.png').exists()
