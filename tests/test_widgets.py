"The widgets through their traits, and once in a real browser."
import asyncio
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from spice.body import JOINTS
from spice.callbacks import History
from spice.core import DataError, SpiceError, read_image, save_image, seeded, to_pil
from spice.infer import ReposeResult
from spice.reposer import Reposer
from spice.keypoints import KEYPOINTS
from spice.people import People
from spice.pose_files import write_openpose
from spice.people.poses import turn
from spice.runs import Plan, claim, train
from spice.train import make_system
from spice.widgets import Browser, Monitor, browse, drag, read_log, read_run, run_line
from spice.pose_editor import Carried, PoseEditor, Throttle, angles_of, bend

OUTPUT = Path(__file__).parent/'output'

@pytest.fixture(scope='module')
def tool(): return Reposer(Carried(), device='cpu')

@pytest.fixture(scope='module')
def people(): return People(256, 'valid', poses='everyday', yaw=30., samples=1, device='cpu').photos([19, 4])

@pytest.fixture(scope='module')
def photo(people): return to_pil(people.image[:1])[0]

@pytest.fixture(scope='module')
def made(tool, people, photo): return PoseEditor('stand', tool, photo, people.keypoints[0], longest=256)

@pytest.fixture
def editor(made):
    "Made once, and as new for each test"
    made.hearers.clear()
    made.keep.value, made.backdrop.value, made.pose.value, made.joint.value = True, 'body', 'stand', JOINTS.index('left_shoulder')
    made.begin('stand')
    return made

@pytest.fixture
def hasty(editor, monkeypatch):
    "Without results, which take most of the time"
    monkeypatch.setattr(editor, 'later', lambda: None)
    return editor

def differ(a, b): return float(np.abs(np.asarray(a).astype(float) - np.asarray(b)).mean())
def sides(R): return (R@R.mT - torch.eye(3)).abs().max()

# the pose editor

@pytest.mark.parametrize('joint', KEYPOINTS)
def test_each_joint_follows_the_pointer(hasty, joint):
    i, before, start = KEYPOINTS.index(joint), hasty.keypoints.xy[0].clone(), hasty.rotmats.clone()
    to = tuple((before[i] + torch.tensor([8., -6.])).tolist())
    drag(hasty.canvas, joint, to)
    after = hasty.keypoints.xy[0]
    assert (after[i] - torch.tensor(to)).norm() < 5 < (before[i] - torch.tensor(to)).norm()
    far = [k for k in range(18) if k != i]
    assert (after - before).norm(dim=1)[far].mean() < 6
    assert sides(hasty.rotmats) < 1e-4 and not torch.equal(hasty.rotmats, start)
    assert torch.allclose(torch.tensor(hasty.canvas.points), hasty.keypoints.points[0], atol=1e-4)

def test_feet_and_hands_keep_their_turns(hasty):
    hasty.joint.value = JOINTS.index('left_foot')
    hasty.angles[0].value = 20.
    still = [JOINTS.index(o) for o in ('left_ankle', 'left_foot', 'right_wrist', 'left_hand')]
    before = hasty.rotmats[still].clone()
    drag(hasty.canvas, 'right_wrist', (60., 60.))
    assert torch.equal(hasty.rotmats[still], before)

def test_result_follows_a_drag_and_a_slider(editor):
    first = editor.result
    drag(editor.canvas, 'left_wrist', (190., 70.))
    second = editor.result
    editor.joint.value = JOINTS.index('pelvis')
    editor.angles[1].value = 60.
    assert differ(first, second) > 1 and differ(second, editor.result) > 1
    assert differ(read_image(editor.sheet.value), editor.panel(.62)) < 4          # what is on the screen

@pytest.mark.parametrize('joint', JOINTS)
def test_sliders_turn_each_joint(hasty, joint):
    j = JOINTS.index(joint)
    hasty.joint.value = j
    before = hasty.rotmats.clone()
    for o, value in zip(hasty.angles, (12., -30., 25.)): o.value = value
    wanted = turn(torch.tensor([12., -30., 25.]))
    if j == 0: wanted = torch.tensor([1., -1, -1])[:, None]*wanted                   # the root is in the camera's frame
    assert torch.allclose(hasty.rotmats[j], wanted, atol=1e-5)
    others = [k for k in range(24) if k != j]
    assert torch.equal(hasty.rotmats[others], before[others])

def test_sliders_tell_the_joint_that_is_picked(hasty):
    hasty.pose.value = 'sit'
    for j in range(24):
        before = hasty.rotmats.clone()
        hasty.joint.value = j
        said = turn(torch.tensor([o.value for o in hasty.angles]))
        if j == 0: said = torch.tensor([1., -1, -1])[:, None]*said
        assert torch.allclose(said, hasty.rotmats[j], atol=1e-4) and torch.equal(before, hasty.rotmats)

def test_angles_come_back():
    g = torch.Generator().manual_seed(0)
    degrees = (torch.rand(500, 3, generator=g) - .5)*torch.tensor([178., 358, 358])
    assert torch.allclose(angles_of(turn(degrees)), degrees, atol=.02)
    locked = torch.tensor([[s*90., y, z] for s in (1, -1) for y in (-120, 0, 40) for z in (-70, 0, 150)])
    assert torch.allclose(turn(angles_of(turn(locked))), turn(locked), atol=1e-3)

def test_bones_keep_their_lengths_or_not(hasty):
    far = (250., 20.)
    drag(hasty.canvas, 'left_wrist', far, 2)
    assert (hasty.keypoints.xy[0, 7] - torch.tensor(far)).norm() > 10               # no arm is that long
    hasty.keep.value = False
    drag(hasty.canvas, 'left_wrist', far, 2)
    assert torch.allclose(hasty.keypoints.xy[0, 7], torch.tensor(far))
    hasty.keep.value = True
    assert (hasty.keypoints.xy[0, 7] - torch.tensor(far)).norm() > 10
    assert torch.equal(hasty.betas, hasty.seen.fits.betas)

def test_while_it_is_held_the_joint_stays_under_the_pointer(hasty):
    points = [list(o) for o in hasty.canvas.points]
    points[7] = [250., 20., 1.]
    hasty.canvas.set_state(dict(points=points, held=7))
    assert hasty.canvas.points[7] == [250., 20., 1.] and hasty.keypoints.xy[0, 7, 0] < 240
    hasty.canvas.set_state(dict(points=hasty.canvas.points, held=-1))
    assert np.allclose(hasty.canvas.points, hasty.keypoints.points[0], atol=1e-4)

def test_joints_out_of_the_frame_are_let_be(hasty):
    hasty.joint.value = JOINTS.index('pelvis')
    camera = hasty.aim.camera
    hasty.take(hasty.tool.aim_at(hasty.aim.rotmats, hasty.betas, type(camera)(camera.focal, camera.center + 90, camera.translation, camera.size)))
    missing = hasty.keypoints.scores[0] == 0
    assert missing.any() and not missing.all()
    i = int((~missing).nonzero()[0])
    x, y, _ = hasty.canvas.points[i]
    drag(hasty.canvas, KEYPOINTS[i], (x - 10, y))
    assert sides(hasty.rotmats) < 1e-4 and abs(hasty.keypoints.xy[0, i, 0] - x + 10) < 5

def test_start_again(hasty):
    first = hasty.rotmats.clone()
    drag(hasty.canvas, 'nose', (100., 30.))
    assert not torch.equal(first, hasty.rotmats)
    hasty.reset.click()
    assert torch.allclose(first, hasty.rotmats)

def test_it_starts_with_whatever_repose_takes(tool, people, photo, tmp_path):
    write_openpose(people.keypoints[1], tmp_path/'pose.json')
    for start in ('sit', people.rotmats[1], people[1:2], people.keypoints[1], str(tmp_path/'pose.json'), people.points[1].numpy()):
        editor = PoseEditor(start, tool, photo, people.keypoints[0])
        assert sides(editor.rotmats) < 1e-4 and editor.result.size == (256, 256)
        assert editor.pose.value == (start if isinstance(start, str) and start == 'sit' else 'as given')
    editor.pose.value = 'walk'
    moved = editor.rotmats.clone()
    editor.pose.value = 'as given'
    assert not torch.allclose(moved, editor.rotmats)
    alone = PoseEditor(people.rotmats[1])
    assert alone.result is None and torch.allclose(alone.rotmats, people.rotmats[1], atol=1e-5)

def test_a_model_from_a_folder(people, photo, tmp_path):
    with seeded(0): make_system('spice', 'tiny').save_pretrained(tmp_path/'model')
    editor = PoseEditor('walk', str(tmp_path/'model'), photo, people.keypoints[0])
    first = editor.result
    assert first.size == (64, 64) and editor.keypoints.size == (64, 64) and editor.canvas.zoom == 380/64
    drag(editor.canvas, 'right_wrist', (10., 12.))
    assert differ(first, editor.result) > .1

def test_pictures_need_not_be_square(people, photo):
    wide = PoseEditor('arms_up', Reposer(Carried((128, 96)), device='cpu'), photo, people.keypoints[0])
    assert wide.result.size == (96, 128) and wide.canvas.picture().size == (285, 380)
    x, y, _ = wide.canvas.points[10]
    drag(wide.canvas, 'right_ankle', (x + 6, y))
    assert abs(wide.keypoints.xy[0, 10, 0] - x - 6) < 3

@pytest.mark.parametrize('kind', ['body', 'R', 'photo', 'white'])
def test_what_lies_under_the_joints(editor, kind):
    editor.backdrop.value = kind
    under = read_image(editor.canvas.backdrop)
    wanted = dict(photo=editor.seen.image, white=Image.new('RGB', under.size, 'white')).get(kind)
    if wanted: assert differ(under, wanted) < 6
    else: assert differ(under, to_pil(getattr(editor.surface(), dict(body='picture', R='wheel')[kind]))[0]) < 6

def test_bad_starts_are_one_line(bad_input, tool, people, photo, editor):
    before = editor.rotmats.clone()
    for args, word in [(('flying', tool, photo, people.keypoints[0]), 'flying'), (('walk', tool), 'no photo'),
                       ((torch.ones(24, 3, 3), tool, photo, people.keypoints[0]), 'no rotations'),
                       (('walk', tool, photo, people.keypoints), '2 people')]:
        with pytest.raises(SpiceError, match=word) as e: PoseEditor(*args)
        assert '\n' not in str(e.value)
    with pytest.raises(SpiceError): editor.begin('flying')
    assert torch.equal(before, editor.rotmats)

def test_pull_without_a_difference_moves_nothing(tool):
    editor = PoseEditor('contrapposto', size=256)
    rotmats, camera = bend(tool.fitter, editor.seen.fits, editor.seen.keypoints)
    points = tool.aim_at(rotmats, editor.betas, camera).points
    assert (points - editor.seen.keypoints.points)[..., :2].norm(dim=2).max() < 3

# not too often

def test_results_are_throttled_but_the_last_one_comes(tool, people, photo):
    heard, times = [], []
    async def run():
        editor = PoseEditor('stand', tool, photo, people.keypoints[0], wait=.3)
        editor.on_change(lambda o: (heard.append(o.keypoints.xy[0, 4].tolist()), times.append(time.monotonic())))
        x, y, _ = editor.canvas.points[4]
        for k in range(1, 13):
            points = [list(o) for o in editor.canvas.points]
            points[4] = [x - 2*k, y - 4*k, 1.]
            editor.canvas.set_state(dict(points=points, held=4))
            await asyncio.sleep(0)
        editor.canvas.set_state(dict(points=editor.canvas.points, held=-1))
        while editor.later.waits: await asyncio.sleep(.05)
        return editor
    editor = asyncio.run(run())
    assert np.allclose(heard[-1], editor.keypoints.xy[0, 4], atol=1e-3) and np.diff(times).min(initial=1.) >= .29

def test_throttle_calls_at_once_without_a_loop():
    calls = []
    slow = Throttle(lambda: calls.append(1), 100.)
    for _ in range(3): slow()
    assert len(calls) == 3

def test_throttle_survives_an_error():
    def fail(): raise DataError('no')
    async def run():
        slow = Throttle(fail, .05)
        for _ in range(2):
            with pytest.raises(DataError): slow.now()
        assert not slow.waits
        slow()
        assert slow.waits
        slow.timer.cancel()
    asyncio.run(run())

# sources and poses

def test_browser_asks_once_and_keeps_the_newest():
    asked = []
    def make(source, pose):
        asked.append((source, pose))
        return Image.new('RGB', (20, 30), (source, pose, 0))
    browser = Browser({f's{i}': i for i in range(3)}, {f'p{i}': i for i in range(3)}, make, most=4, longest=60)
    assert asked == [(0, 0)] and browser.result.getpixel((0, 0)) == (0, 0, 0)
    for s in range(3):
        for p in range(3): browser.source.value, browser.pose.value = f's{s}', f'p{p}'
    assert browser.result.getpixel((0, 0)) == (2, 2, 0) and len(browser.made) == 4
    count = len(asked)
    browser.pose.value = 'p1'
    assert len(asked) == count
    browser.source.value = 's0'
    assert len(asked) == count + 1 and browser.picture().size == (48, 86)

@pytest.mark.parametrize('made, titles', [(Image.new('RGB', (8, 8)), ['result']), (np.zeros((8, 8, 3), np.uint8), ['result']),
                                          (ReposeResult(Image.new('RGB', (8, 8)), dict(flow=Image.new('RGB', (8, 8)))), ['flow', 'result']),
                                          (dict(a=Image.new('RGB', (8, 8)), b=Image.new('RGB', (9, 9))), ['a', 'b'])])
def test_browser_takes_pictures_results_and_dictionaries(made, titles):
    browser = Browser({'x': 1}, ['walk'], lambda source, pose: made)
    assert list(browser.steps) == titles and read_image(browser.sheet.value).size == browser.picture().size
    if len(titles) > 1:
        browser.step.value = titles[0]
        assert browser.picture().size[0] < 400

def test_browser_goes_on_after_a_failure():
    def make(source, pose):
        if pose == 'b' and not ready: raise DataError('<b> is not there', 'Wait')
        return Image.new('RGB', (8, 8))
    ready = []
    browser = Browser({'x': 1}, ['a', 'b'], make)
    browser.pose.value = 'b'
    assert browser.word.value == '&lt;b&gt; is not there. Wait' and browser.result is None
    ready.append(1)
    browser.pose.value = 'a'
    browser.pose.value = 'b'
    assert browser.word.value == '' and browser.result is not None

def test_browse_people(tool, people, photo):
    photos = {'a': photo, 'b': to_pil(people.image[1:])[0], 'twice': photo}
    browser = browse(photos, ['walk', 'sit'], tool, {'a': people.keypoints[0], 'b': people.keypoints[1], 'twice': people.keypoints})
    first = browser.result
    browser.source.value = 'b'
    assert differ(first, browser.result) > 1 and list(browser.steps)[0] == 'source'
    browser.source.value = 'twice'
    assert '2 people' in browser.word.value

# a run

def stage(folder, name, upto, every=25, **more):
    history = History(folder/name/'log.csv')
    history.rows = [dict(step=k, percep=1/k, critic=1., photos_per_second=9.5, MB=0, **more) for k in range(every, upto + 1, every)]
    history.write()
    for k in range(100, upto + 1, 100): save_image(Image.new('RGB', (60, 40), (k % 250, 80, 80)), folder/name/'samples'/f'step_{k:07d}.jpg')

@pytest.fixture
def run(tmp_path):
    claim(tmp_path/'run', Plan(stages=('flow', 'full'), steps=(200, 400)))
    stage(tmp_path/'run', 'flow', 200)
    (tmp_path/'run'/'flow'/'last').mkdir()
    (tmp_path/'run'/'flow'/'last'/'config.json').write_text('{}')
    stage(tmp_path/'run', 'full', 200)
    return tmp_path/'run'

def test_monitor_follows_a_run(run):
    monitor = Monitor(run)
    assert 'stage full · step 200 of 400' in monitor.word.value and monitor.sample.options == (100, 200)
    shown = monitor.sheet.value, monitor.curves.value
    stage(run, 'full', 400)
    monitor.again.click()
    assert monitor.sample.value == 400 and monitor.sheet.value != shown[0] and monitor.curves.value != shown[1]
    monitor.stage.value = 'flow'
    assert monitor.word.value.endswith('finished') and monitor.sample.value == 200
    monitor.refresh()
    assert monitor.stage.value == 'flow'                                              # a look back is not interrupted

def test_monitor_reads_while_it_is_written(run):
    monitor, whole = Monitor(run), (run/'full'/'log.csv').read_bytes()
    for cut in range(0, len(whole), 7):
        (run/'full'/'log.csv').write_bytes(whole[:cut])
        rows = read_log(run/'full'/'log.csv')
        assert all(o['step'] == 25*(i + 1) and o['percep'] == float(f"{1/o['step']}") for i, o in enumerate(rows))
    for cut in (0, 3, len(whole)//2):
        (run/'full'/'log.csv').write_bytes(whole[:cut])
        monitor.refresh()
        assert 'stage full' in monitor.word.value
    (run/'plan.json').write_text('{"system": "sp')
    (run/'full'/'samples'/'step_0000200.jpg').write_bytes(b'\xff\xd8\xff')
    monitor.refresh()
    assert monitor.sample.value == 200 and monitor.sample_picture().getpixel((5, 5))[0] in range(94, 107)    # that of step 100

def test_monitor_takes_odd_numbers(run):
    text = (run/'full'/'log.csv').read_text()
    (run/'full'/'log.csv').write_text(text + '225,nan,inf,9.5,0\n250,,2,9.5,0\n')
    (run/'full'/'bad_batch_0000225.pt').write_bytes(b'')
    monitor = Monitor(run)
    assert monitor.now.at == 250 and 'stopped at NaN: bad_batch_0000225.pt' in monitor.word.value and monitor.curves.value

def test_a_missing_folder_is_one_line_until_it_is_there(tmp_path):
    with pytest.raises(DataError, match='there is no such folder'): read_run(tmp_path/'run')
    monitor = Monitor(tmp_path/'run')
    assert 'there is no such folder' in monitor.word.value and '\n' not in monitor.word.value and monitor.now is None
    (tmp_path/'run').mkdir()
    monitor.refresh()
    assert monitor.word.value == 'run: nothing is written yet'
    stage(tmp_path/'run', 'flow', 100)
    monitor.refresh()
    assert monitor.stage.value == 'flow' and 'step 100' in monitor.word.value and ' of ' not in monitor.word.value
    shutil.rmtree(tmp_path/'run')
    monitor.refresh()
    assert 'there is no such folder' in monitor.word.value and monitor.sheet.value == b''

def test_monitor_refreshes_by_itself(run):
    async def watch():
        monitor = Monitor(run, auto=True, every=.05)
        stage(run, 'full', 300)
        for _ in range(100):
            await asyncio.sleep(.05)
            if monitor.now.at == 300: break
        assert monitor.now.at == 300
        monitor.auto.value = False
        assert monitor.task is None
        stage(run, 'full', 400)
        await asyncio.sleep(.3)
        assert monitor.now.at == 300
        monitor.auto.value = True
        task = monitor.task
        monitor.close()
        await asyncio.sleep(0)
        assert task.cancelled()
    asyncio.run(watch())
    assert Monitor(run, auto=True).auto.value is False                                # nothing would wake it

def test_where_a_run_is(run):
    plan, (_, full) = read_run(run)
    for seconds, words in ((5, '5 seconds'), (300, '5 minutes'), (9000, '2 hours'), (400000, '5 days')):
        assert run_line(plan, full, full.changed + seconds).endswith(f'last written {words} ago')

def test_monitor_reads_a_real_run(tmp_path, bad_input): # without checks of types: a run gives People a device, not its name
    train(tmp_path/'run', Plan(stages=('flow',), steps=(2,), bs=1, pool=2, epoch=2, checkpoint=2, samples=1, every=1, quiet=True), 'cpu')
    monitor = Monitor(tmp_path/'run')
    assert 'stage flow · step 2 of 2' in monitor.word.value and monitor.word.value.endswith('finished')
    assert monitor.sample.options == (1, 2) and monitor.sheet.value and monitor.curves.value and len(monitor.terms.options) >= 2

# a real browser

def browser_or_reason():
    "Chromium and its driver, or why there is no test"
    for package in ('voila', 'selenium', 'ipykernel', 'nbformat'): pytest.importorskip(package)
    program = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'))), None)
    if not program or not shutil.which('chromedriver'): pytest.skip('no Chromium with chromedriver on this machine')
    return program, shutil.which('chromedriver')

PAGE = '''
import json
from ipywidgets import HTML, Layout
from IPython.display import display
from spice.core import to_pil
from spice.reposer import Reposer
from spice.people import People
from spice.pose_editor import Carried, PoseEditor
from spice.widgets import Monitor, browse
people = People(256, 'valid', poses='everyday', yaw=30., samples=1, device='cpu').photos([19, 4])
photos = dict(zip(('Ada', 'Ben'), to_pil(people.image)))
joints = {k: people.keypoints[i] for i, k in enumerate(photos)}
tool = Reposer(Carried(), device='cpu')
editor = PoseEditor('stand', tool, photos['Ada'], joints['Ada'])
said = HTML()
said.add_class('said')
def say(o):
    pixels = sum(p*(i + 1) for i, p in enumerate(o.result.resize((16, 16)).convert('L').tobytes()))
    said.value = json.dumps(dict(points=o.keypoints.points[0].tolist(), angles=[a.value for a in o.angles], result=pixels))
editor.on_change(say)
say(editor)
browser = browse(photos, ['walk', 'sit', 'arms_up'], tool, joints, longest=200)
monitor = Monitor('run')
for name, part in dict(editor=editor, browser=browser, monitor=monitor).items():
    part.add_class('spice-' + name)
    display(part)
display(said)
'''

def play(run, upto):
    "A real run as it was after some steps"
    kept = Path(__file__).parent.parent/'benchmarks'/'results'
    head, *lines = (kept/'tiny_run.csv').read_text().splitlines()
    for k in range(100, upto + 1, 100): save_image(kept/'tiny_run.jpg', run/'full'/'samples'/f'step_{k:07d}.jpg')
    (run/'full'/'log.csv').write_text('\n'.join([head, *(o for o in lines if int(o.split(',')[0]) <= upto), '']))

@pytest.fixture
def served(tmp_path):
    "The page, served by Voila"
    browser_or_reason()
    import nbformat
    claim(tmp_path/'run', Plan(stages=('flow', 'full'), steps=(300,)))
    play(tmp_path/'run', 200)
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PAGE)], metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')))
    nbformat.write(page, tmp_path/'page.ipynb')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    root = str(Path(__file__).parent.parent)
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([root, os.environ.get('PYTHONPATH', '')]), JUPYTER_CONFIG_DIR=str(tmp_path/'config'),
               JUPYTER_RUNTIME_DIR=str(tmp_path/'runtime'), IPYTHONDIR=str(tmp_path/'ipython'))
    with open(tmp_path/'voila.log', 'w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'voila', 'page.ipynb', '--no-browser', f'--port={port}', '--Voila.ip=127.0.0.1', '--show_tracebacks=True'],
                                  cwd=tmp_path, env=env, stdout=log, stderr=log)
        try: yield f'http://127.0.0.1:{port}/', tmp_path
        finally:
            server.terminate()
            server.wait(20)

@pytest.fixture
def chromium():
    program, driver = browser_or_reason()
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location, options.page_load_strategy = program, 'eager'
    for o in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--window-size=1280,1700'): options.add_argument(o)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try: yield browser
    finally: browser.quit()

def until(seconds, true, what):
    "Wait for something to be true"
    end = time.time() + seconds
    while time.time() < end:
        try:
            if found := true(): return found
        except Exception: pass
        time.sleep(.2)
    raise AssertionError(f'{what}: not within {seconds} seconds')

@pytest.mark.long
def test_in_a_real_browser(served, chromium):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    address, folder = served
    css, shot = lambda o: chromium.find_element(By.CSS_SELECTOR, o), lambda o: Image.open(io.BytesIO(o.screenshot_as_png)).convert('RGB')
    said = lambda: json.loads(css('.said').text)
    OUTPUT.mkdir(exist_ok=True)
    def load():
        if css('body').text == '' or 'refused' in chromium.page_source: chromium.get(address)
        return css('.spice-editor canvas')
    until(30, lambda: chromium.get(address) or True, 'the server answers')
    try:
        canvas = until(150, load, 'the editor')
        before = until(60, said, 'the first result')
    except AssertionError:
        chromium.save_screenshot(str(OUTPUT/'failed.png'))
        print((folder/'voila.log').read_text()[-3000:], [o['message'] for o in chromium.get_log('browser')][-10:])
        raise
    until(30, lambda: canvas.size['width'] > 300 and len(shot(canvas).getcolors(1 << 20)) > 500, 'a body on the canvas')
    time.sleep(1)
    first = shot(canvas)
    save_image(first, OUTPUT/'editor_before.png')

    # drag the right wrist up and out
    x, y, _ = before['points'][4]
    zoom, middle = 380/256, 128
    hand = ActionChains(chromium, duration=40)
    hand.move_to_element_with_offset(canvas, round((x - middle)*zoom), round((y - middle)*zoom)).click_and_hold()
    for _ in range(10): hand.move_by_offset(-5, -11)
    hand.release().perform()
    wanted = x - 50/zoom, y - 110/zoom
    def arrived():
        now = said()['points'][4]
        return np.hypot(now[0] - wanted[0], now[1] - wanted[1]) < 6 and said()
    dragged = until(60, arrived, 'the wrist where it was dragged')
    assert dragged['result'] != before['result']
    time.sleep(1)
    assert differ(first, shot(canvas)) > 2
    save_image(shot(css('.spice-editor')), OUTPUT/'editor_dragged.png')

    # turn a joint by a slider
    second = shot(canvas)
    handle = chromium.find_elements(By.CSS_SELECTOR, '.spice-editor .noUi-handle')[2]
    ActionChains(chromium, duration=100).click_and_hold(handle).move_by_offset(14, 0).release().perform()
    turned = until(60, lambda: abs((o := said())['angles'][2] - dragged['angles'][2]) > 10 and o['result'] != dragged['result'] and o, 'the slider turned')
    assert turned['points'][7] != dragged['points'][7]
    time.sleep(1)
    assert differ(second, shot(canvas)) > .5
    save_image(shot(css('.spice-editor')), OUTPUT/'editor_turned.png')

    # pick another pair
    sheet = css('.spice-browser img')
    pictures = [shot(sheet)]
    for name in ('sit', 'Ben'):
        next(o for o in chromium.find_elements(By.CSS_SELECTOR, '.spice-browser option') if o.text == name).click()
        until(60, lambda: differ(shot(css('.spice-browser img')).resize((200, 100)), pictures[-1].resize((200, 100))) > 1, f'another picture for {name}')
        time.sleep(.5)
        pictures.append(shot(css('.spice-browser img')))
    save_image(shot(css('.spice-browser')), OUTPUT/'browser.png')

    # the run goes on
    monitor = css('.spice-monitor')
    curves = shot(css('.spice-monitor img'))
    assert 'step 200 of 300' in monitor.text
    play(folder/'run', 300)
    next(o for o in monitor.find_elements(By.TAG_NAME, 'button') if o.text == 'refresh').click()
    until(60, lambda: 'step 300 of 300' in css('.spice-monitor').text, 'the newer step')
    until(60, lambda: differ(curves, shot(css('.spice-monitor img'))) > .2, 'longer curves')
    time.sleep(1)
    save_image(shot(css('.spice-monitor')), OUTPUT/'monitor.png')
    chromium.save_screenshot(str(OUTPUT/'page.png'))
    assert 'rror' not in css('body').text
