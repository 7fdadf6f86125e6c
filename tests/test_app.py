"The page in the browser: its requests as functions, through a server, and once in a real browser."
import http.client
import io
import json
import shutil
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from spice import app as module
from spice.app import LARGEST, App, Overtaken, Server, Turns, picture_of, refused, serve, spice_app
from spice.core import DataError, WeightsError, save_image, seeded, to_pil
from spice.detector import Detector
from spice.reposer import Reposer
from spice.keypoints import Keypoints, cat_keypoints
from spice.people import People
from spice.people.poses import POSES
from spice.train import make_system
from spice.pose_editor import Carried

OUTPUT = Path(__file__).parent/'output'

def sent(image, kind='PNG', **how):
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()

def opened(data): return Image.open(io.BytesIO(data))
def differ(a, b): return float(np.abs(np.asarray(a.convert('RGB')).astype(float) - np.asarray(b.convert('RGB'))).mean())

class Known(Detector):
    "Knows the people of some photos, and their mattes"
    def __init__(self, photos, keypoints, mattes):
        both, alphas = Image.new('RGB', (512, 256)), [Image.new('L', (512, 256)) for _ in photos]
        for i in range(2):
            both.paste(photos[i], (256*(1 - i), 0))                                  # the first on the right
            alphas[i].paste(mattes[i], (256*(1 - i), 0))
        wide = [Keypoints(o.points + o.points.new_tensor([256.*(1 - i), 0, 0])*(o.points[..., 2:] > 0), (256, 512)) for i, o in enumerate(keypoints)]
        self.both, self.lock, self.asked = both, threading.Lock(), 0
        self.known = {photos[i].tobytes(): (keypoints[i], [mattes[i]]) for i in range(2)} | {both.tobytes(): (cat_keypoints(wide), alphas)}
    def look(self, photo):
        assert self.lock.acquire(blocking=False), 'two at once'
        try:
            self.asked += 1
            time.sleep(.02)
            return self.known.get(photo.tobytes(), (Keypoints(torch.zeros(0, 18, 3), photo.size[::-1]), None))
        finally: self.lock.release()

@pytest.fixture(scope='module')
def people(): return People(256, 'valid', poses='everyday', yaw=30., samples=1, device='cpu').photos([19, 4])

@pytest.fixture(scope='module')
def photos(people): return to_pil(people.image)

@pytest.fixture(scope='module')
def known(people, photos):
    return Known(photos, [people.keypoints[i] for i in range(2)], [Image.fromarray((o > 0).byte().numpy()*255) for o in people.parsing])

@pytest.fixture(scope='module')
def tool():
    with seeded(0): return Reposer(make_system('guided', 'large').eval(), device='cpu', keep=3)

@pytest.fixture(scope='module')
def app(tool, known): return App(tool, known.look)

@pytest.fixture(scope='module')
def say(app):
    "What the page would hear: status, and JSON or a picture"
    def ask(path, what, page='mine'):
        reply = app.answer('POST', '/' + path, {'X-Spice': page}, what if isinstance(what, bytes) else json.dumps(what).encode())
        return reply.status, opened(reply.body) if reply.kind == 'image/png' else json.loads(reply.body)
    return ask

@pytest.fixture(scope='module')
def me(say, photos): return dict(photo=say('photo', sent(photos[0]))[1]['photo'], person=0)

@pytest.fixture(scope='module')
def own(say, me): return say('person', me)[1]

# photos and people

def test_upload(say, known, photos):
    status, found = say('photo', sent(photos[0]))
    assert status == 200 and (found['width'], found['height'], len(found['people'])) == (256, 256, 1)
    left, top, right, bottom = found['people'][0]
    assert 0 <= left < 110 < 150 < right <= 256 and 0 <= top < 40 < 220 < bottom <= 256
    asked = known.asked
    assert say('photo', sent(photos[0], 'WEBP', lossless=True))[1] == found and known.asked == asked      # by content, looked at once

def test_a_turned_photo_stands_upright(say, photos):
    exif = Image.Exif()
    exif[0x112] = 6                                                                   # turn by 90 degrees to the right
    assert say('photo', sent(photos[0].rotate(90, expand=True), exif=exif))[1] == say('photo', sent(photos[0]))[1]

def test_several_people_are_counted_from_the_left(say, known, photos, own):
    both = say('photo', sent(known.both))[1]
    left, right = both['people']
    assert left[2] < 300 and right[0] > 220
    first, second = (say('person', dict(photo=both['photo'], person=k))[1] for k in (0, 1))
    box, frame = second['box'], second['frame']
    nose = box[0] + second['points'][0][0]*(box[2] - box[0])/frame
    alone = own['box'][0] + own['points'][0][0]*(own['box'][2] - own['box'][0])/own['frame']
    assert abs(nose - 256 - alone) < 3 and first['points'] != second['points']        # the person of the first photo stands on the right
    for person in (2, -1, True, None, '0', 1e3): assert say('person', dict(photo=both['photo'], person=person))[0] == 422
    assert say('result', dict(photo=both['photo'], person=None, pose=None, whole=True))[1].size == (512, 256)    # to choose from

@pytest.mark.parametrize('data, word', [(b'', 'not a picture'), (b'words', 'not a picture'), (b'%PDF-1.7 ', 'not a picture'),
                                        (sent(Image.new('RGB', (9, 9)), 'GIF'), 'not a picture'), (sent(Image.new('RGB', (99, 99), 'red'))[:-40], 'damaged or cut off'),
                                        (sent(Image.new('1', (9000, 6000))), '54 million pixels'), (sent(Image.new('1', (20000, 10000))), 'too many pixels'),
                                        (bytes(LARGEST + 1), '30 MB'), (sent(Image.new('RGB', (300, 500), 'skyblue')), 'Nobody was found in this photo')])
def test_what_is_no_photo_of_a_person_is_one_line(say, data, word):
    status, said = say('photo', data)
    assert status == 422 and word in said['error'] and '\n' not in said['error'] and list(said) == ['error']

def test_pictures_of_four_kinds(photos):
    for kind in ('JPEG', 'PNG', 'WEBP', 'BMP'): assert picture_of(sent(photos[0], kind)).size == (256, 256)

def test_old_photos_are_forgotten(tool, known, photos):
    app = App(tool, lambda photo: known.known[photos[0].tobytes()])
    names = [app.photo(sent(Image.new('RGB', (256, 256), (k, 0, 0))))['photo'] for k in range(4)]
    with pytest.raises(DataError, match='this photo was forgotten. Choose it again'): app.person(dict(photo=names[0], person=0))
    assert list(app.shots) == names[1:]

def test_what_to_expect_is_said(app, say, me, own, monkeypatch):
    assert own['notes'] == ''
    monkeypatch.setattr(app.tool, 'spot', lambda seen: (None, True), raising=False)
    assert 'ends above the feet' in say('person', me)[1]['notes']

# poses

def test_pose_by_name(app, say, me, own):
    status, pose = say('pose', me | dict(name='arms_up'))
    assert status == 200 and len(pose['points']) == 18
    wrists, before = ([o['points'][i][1] for i in (4, 7)] for o in (pose, own))
    assert max(wrists) < min(before) - 40                                             # y points down
    small, large = (say('result', me | dict(pose=pose['pose'], size=o))[1] for o in ('draft', 'own'))
    assert small.size == large.size == (256, 256) and differ(large, say('result', me | dict(pose=None))[1]) > 2

def test_all_names_can_be_had(app, say, me):
    shown = json.loads(app.answer('GET', '/about', {}).body)
    assert sorted(shown['names']) == sorted(POSES) and len(shown['joints']) == 18
    for name in shown['names'][::7]: assert say('pose', me | dict(name=name))[0] == 200

@pytest.mark.parametrize('name', ['flying', '', '/etc/passwd', '../settings.ini', 'tests/test_app.py', 7, None, ['walk'], {'a': 1}])
def test_unknown_poses_open_no_file(say, me, name, monkeypatch):
    monkeypatch.setattr(Reposer, 'aim', lambda *_, **__: pytest.fail('it went on'))
    status, said = say('pose', me | dict(name=name))
    assert status == 422 and 'There is no pose' in said['error'] and '\n' not in said['error']

def test_pose_by_joints(app, say, me, own):
    x, y = own['points'][4]
    pose, wanted = own['pose'], (x - 25, y - 60)
    for k in range(1, 6): # as the page sends them: on the way, then let go
        to = [x + (wanted[0] - x)*min(k, 4)/4, y + (wanted[1] - y)*min(k, 4)/4]
        status, reply = say('pose', me | {'from': pose, 'joint': 4, 'to': to, 'done': k == 5})
        assert status == 200
        pose = reply['pose']
    now, before = torch.tensor(reply['points']), torch.tensor(own['points'])
    assert (now[4] - torch.tensor(wanted)).norm() < 6 < (before[4] - torch.tensor(wanted)).norm()
    assert (now - before).norm(dim=1)[[0, 1, 5, 6, 7, 8, 9, 10, 11, 12, 13]].max() < 10
    assert differ(say('result', me | dict(pose=own['pose']))[1], say('result', me | dict(pose=pose))[1]) > .5

def test_a_joint_that_is_pulled_far_away_stays_near_the_canvas(say, me, own):
    pose = own['pose']
    for joint in (8, 11, 1, 4): pose = say('pose', me | {'from': pose, 'joint': joint, 'to': [9999, -9999], 'done': True})[1]['pose']
    status, reply = say('pose', me | {'from': pose, 'joint': 0, 'to': [9999, 9999.5], 'done': True})
    assert status == 200 and np.isfinite(reply['points']).all() and np.abs(reply['points']).max() < 1000
    assert say('result', me | dict(pose=reply['pose'], whole=True))[1].size == (256, 256)

@pytest.mark.parametrize('wrong', [dict(joint=18), dict(joint=-1), dict(joint='4'), dict(joint=[4]), dict(to=None), dict(to=[1]), dict(to=[1, 'x']), dict(to=[1, 1e9]),
                                   dict(to=[float('nan'), 1]), {'from': 'other'}, {'from': None}, {'from': ['x']}])
def test_wrong_joints_are_one_line(say, me, own, wrong):
    status, said = say('pose', me | {'from': own['pose'], 'joint': 4, 'to': [9, 9]} | wrong)
    assert status == 422 and ('without a place' in said['error'] or 'forgotten' in said['error'])

def test_pose_by_a_second_photo(app, say, me, photos):
    other = say('photo', sent(photos[1]))[1]['photo']
    status, pose = say('pose', me | dict(like=dict(photo=other, person=0)))
    turns = app.seen(dict(photo=other, person=0))[2].fits.rotmats
    assert status == 200 and torch.allclose(app.poses[pose['pose']].rotmats, turns, atol=1e-5)
    assert say('pose', me | dict(like=dict(photo='other', person=0)))[0] == 422
    assert say('pose', me | dict(like='/etc/passwd'))[0] == 422

# pictures

def test_transparent_png_has_alpha(say, me):
    pose = say('pose', me | dict(name='wave'))[1]['pose']
    for whole in (False, True):
        image = say('result', me | dict(pose=pose, background='transparent', whole=whole))[1]
        alpha = np.asarray(image)[..., 3]
        assert image.format == 'PNG' and image.mode == 'RGBA' and alpha[0, 0] == 0 and alpha.max() == 255 and .05 < (alpha > 128).mean() < .6
    plain = say('result', me | dict(pose=pose, background='plain'))[1]
    assert plain.mode == 'RGB' and plain.getpixel((0, 0)) == (236, 236, 236)

def test_whole_photo_keeps_its_size_and_its_other_people(say, known):
    one = dict(photo=say('photo', sent(known.both))[1]['photo'], person=1)
    pose = say('pose', one | dict(name='stand', whole=True))[1]['pose']
    for size in ('draft', 'screen', 'own'):
        image = say('result', one | dict(pose=pose, whole=True, size=size))[1]
        assert image.size == (512, 256) if size != 'draft' else image.width/image.height == pytest.approx(2, .01)
        assert differ(image.resize((512, 256)).crop((0, 0, 150, 256)), known.both.crop((0, 0, 150, 256))) < (2 if size == 'draft' else .01)

def test_a_large_photo_is_made_small_first(tool, people, photos, known):
    size = 1200
    big, points = photos[0].resize((size, size)), people.keypoints[0].resize((size, size))
    app = App(tool, lambda photo: (points, [known.known[photos[0].tobytes()][1][0].resize((size, size))]))
    one = dict(photo=app.photo(sent(big, 'BMP'))['photo'], person=0)
    seen = app.person(one)
    assert seen['square'] > 1100
    pose = app.pose(one | dict(name='walk'))['pose']
    made = {o: opened(app.result(one | dict(pose=pose, size=o))) for o in ('draft', 'screen')}
    assert [made[o].size for o in made] == [(256, 256), (1024, 1024)] and differ(made['draft'], made['screen'].resize((256, 256))) < 8

def test_unknown_backgrounds_and_sizes(say, me, own):
    for what, word in [(dict(background='cloudy'), 'Take keep, plain, transparent'), (dict(background=['keep']), 'Take keep'), (dict(background=None), 'Take keep'),
                       (dict(size='huge'), 'There is no size'), (dict(size=['own']), 'There is no size'), (dict(pose='1'), 'this pose was forgotten'),
                       (dict(photo='1'), 'this photo was forgotten')]:
        status, said = say('result', me | dict(pose=own['pose']) | what)
        assert status == 422 and word.lower() in said['error'].lower()

def test_what_the_photo_does_not_show_is_said(app, me, own, monkeypatch):
    pose = json.dumps(me | dict(pose=own['pose'])).encode()
    assert app.answer('POST', '/result', {'X-Spice': 'mine'}, pose).note == ''
    monkeypatch.setattr(module, 'SHOWN', 1.1)
    assert app.answer('POST', '/result', {'X-Spice': 'mine'}, pose).note.startswith('The photo shows only ')

# one at a time

def test_two_requests_at_once(known, tool, photos):
    "`look` fails if two are in it; the older of two that wait goes home"
    app, replies = App(tool, known.look), {}
    def click(name, photo, page):
        replies[name] = app.answer('POST', '/photo', {'X-Spice': page}, sent(photo)).status
    threads = [threading.Thread(target=click, args=o) for o in (('first', photos[0], 'a'), ('other page', photos[1], 'b'), ('second', photos[1], 'a'), ('third', known.both, 'a'))]
    with app.turns.lock:                                                              # as if something were being made
        for i, o in enumerate(threads):
            o.start()
            while sum(app.turns.newest.values()) < (0, 1, 3, 4)[i] or not app.turns.newest: time.sleep(.001)   # it stands in the queue
    for o in threads: o.join(20)
    assert replies == {'first': 409, 'other page': 200, 'second': 409, 'third': 200}

def test_a_request_that_fails_lets_the_next_one_in():
    turns = Turns()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            with turns.of('mine'): 1/0
    with turns.of('mine'): turns.newest.keep(dict(mine=99))
    with pytest.raises(Overtaken):
        with turns.of('mine'):
            pass
        turns.newest.keep(dict(mine=1000))
        turns.numbers = iter([5])
        turns.newest.keep = lambda _: None
        with turns.of('mine'): pass

def test_what_nobody_thought_of_is_one_line(app, say, me, monkeypatch, capsys):
    monkeypatch.setattr(app, 'known', lambda asked: 1/0)
    status, said = say('person', me)
    assert status == 500 and said == dict(error='Something went wrong. The window in which spice_app runs says what.')
    assert capsys.readouterr().err == 'spice_app: /person: ZeroDivisionError: division by zero\n'

@pytest.mark.parametrize('body', [b'', b'[]', b'{', b'7', b'\xff', b'['*5000, b'{"a": "' + b'x'*20000 + b'"}'])
def test_odd_requests_are_one_line(say, body):
    for path in ('person', 'pose', 'result'):
        status, said = say(path, body)
        assert status == 422 and said['error'] == 'This is no request of the page. Load it again.'

# who may ask

def test_hosts_and_origins():
    ours = {'Host': '127.0.0.1:8000', 'X-Spice': 'mine'}
    fine = [{}, {'Host': 'localhost:8000'}, {'Host': '127.0.0.1'}, {'Host': '192.168.1.7:8000'}, {'Host': '[::1]:8000'}, {'Origin': 'http://127.0.0.1:8000'}]
    bad = [{'Host': 'evil.example'}, {'Host': 'evil.example:8000'}, {'Host': ''}, {'Host': 'localhost.evil.example:8000'}, {'Host': '127.0.0.1.nip.example:8000'},
           {'Origin': 'http://evil.example'}, {'Origin': 'null'}, {'Origin': 'https://127.0.0.1:8000'}, {'Origin': 'http://127.0.0.1:8001'},
           {'Sec-Fetch-Site': 'cross-site'}, {'Sec-Fetch-Site': 'same-site'}, {'X-Spice': ''}]
    assert not any(refused('POST', ours | o, '127.0.0.1') for o in fine) and all(refused('POST', ours | o, '127.0.0.1') for o in bad)

@pytest.fixture(scope='module')
def server(app):
    server = serve(app)
    threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=.05), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()

def ask(server, method, path, body=None, **headers):
    "Status, headers and body through a socket"
    line = http.client.HTTPConnection('127.0.0.1', server.server_port, timeout=20)
    try:
        line.request(method, path, body, {'X-Spice': 'mine'} | headers)
        reply = line.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally: line.close()

def test_through_the_server(server, me, photos, own):
    status, headers, page = ask(server, 'GET', '/')
    assert status == 200 and b'<html lang="en">' in page and headers['Content-Security-Policy'].startswith("default-src 'none'")
    for name in ('/app.js', '/app.css', '/icon.svg', '/poses.jpg', '/about'): assert ask(server, 'GET', name)[0] == 200
    for name in ('/app.py', '/../app.py', '/..%2fapp.py', '/assets/app/app.js', '//etc/passwd', '/photo'): assert ask(server, 'GET', name)[0] == 404
    assert json.loads(ask(server, 'POST', '/photo', sent(photos[0]))[2])['photo'] == me['photo']
    status, headers, body = ask(server, 'POST', '/result', json.dumps(me | dict(pose=own['pose'])))
    assert status == 200 and headers['Content-Type'] == 'image/png' and headers['Cache-Control'] == 'no-store' and opened(body).size == (256, 256)
    assert ask(server, 'OPTIONS', '/photo')[0] == 501 and ask(server, 'POST', '/', b'{}')[0] == 404

def test_the_server_refuses_strangers_without_reading(server, known):
    asked = known.asked
    for headers in ({'Host': 'evil.example'}, {'Origin': 'http://evil.example'}, {'X-Spice': ''}):
        status, said, body = ask(server, 'POST', '/photo', b'x'*1000, **headers)
        assert status == 403 and said['Connection'] == 'close' and b'Traceback' not in body
    assert ask(server, 'GET', '/', Host='evil.example')[0] == 403 and known.asked == asked

@pytest.mark.parametrize('length, status', [(str(LARGEST + 1), 413), ('9'*5000, 413), ('-1', 411), ('many', 411), ('', 411), ('٣', 411)])
def test_what_is_too_large_is_not_read(server, length, status):
    with socket.create_connection(('127.0.0.1', server.server_port), 20) as line:
        line.sendall(f'POST /photo HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Spice: mine\r\nContent-Length: {length}\r\n\r\n'.encode())
        said = line.makefile('rb').read().decode()                                    # until the server hangs up
    assert said.startswith(f'HTTP/1.1 {status} ') and ('30 MB' in said or status == 411)

def test_a_browser_that_goes_away_leaves_no_word(server, capsys):
    for part in (b'', b'POST /photo HTTP/1.1\r\n', b'POST /photo HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Spice: a\r\nContent-Length: 900\r\n\r\nxx', b'\x16\x03\x01 nonsense\r\n\r\n'):
        with socket.create_connection(('127.0.0.1', server.server_port), 20) as line: line.sendall(part)
    assert ask(server, 'GET', '/about')[0] == 200
    assert capsys.readouterr().err == ''

def test_a_port_that_is_taken(app, server):
    other = serve(app, port=server.server_port)
    assert other.server_port != server.server_port and other.server_address[0] == '127.0.0.1'
    other.server_close()
    for host, port in (('127.0.0.1', 70000), ('127.0.0.1', -1), ('203.0.113.1', 0), ('no such host', 0)):
        with pytest.raises(DataError): serve(app, host, port)

def test_a_model_of_one_size_is_refused():
    with pytest.raises(WeightsError, match='pictures of any size'): App(Reposer(Carried(), device='cpu'))

def test_the_command(monkeypatch, capsys, tool):
    asked, opened_at = [], []
    monkeypatch.setattr(module, 'Reposer', lambda model, **how: asked.append((model, how)) or tool)
    monkeypatch.setattr(module, 'webbrowser', SimpleNamespace(open=opened_at.append))
    def stop(self): raise KeyboardInterrupt
    monkeypatch.setattr(Server, 'serve_forever', stop)
    spice_app(port=0, no_browser=True)
    assert asked == [(None, dict(detector='blazepose', device=None, keep=3))] and not opened_at
    assert capsys.readouterr().out.startswith('The page is at http://127.0.0.1:')
    spice_app(host='0.0.0.0', port=0)
    until(5, lambda: opened_at, 'the browser')
    said = capsys.readouterr().out
    assert 'Whoever reaches this computer' in said and said.split()[4] == opened_at[0] and opened_at[0].startswith('http://127.0.0.1:')

def test_files_are_packaged_and_know_no_other_place():
    folder = Path(module.__file__).parent/'assets'/'app'
    assert {o.name for o in folder.iterdir()} == {name for name, _ in module.SERVED_FILES.values()}
    for o in folder.iterdir():
        if o.suffix in ('.html', '.css', '.js'):
            text = o.read_text(encoding='utf-8').replace('http://www.w3.org/2000/svg', '')
            assert '//' not in text.replace('// ', '') and len(text.splitlines()) < 300, o.name
            assert 'style="' not in text and 'onclick="' not in text                  # the page's policy would refuse them

# a real browser

def until(seconds, true, what):
    "Wait for something to be true"
    end = time.time() + seconds
    while time.time() < end:
        if found := true(): return found
        time.sleep(.05)
    raise AssertionError(f'{what}: not within {seconds} seconds')

@pytest.fixture(params=[(1280, 900), (390, 844)], ids=['desk', 'phone'])
def chromium(request, tmp_path):
    pytest.importorskip('selenium')
    from selenium import webdriver
    program = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'))), None)
    if not program or not shutil.which('chromedriver'): pytest.skip('no Chromium with chromedriver on this machine')
    options, (w, h) = webdriver.ChromeOptions(), request.param
    options.binary_location = program
    for o in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', f'--window-size={w},{h}'): options.add_argument(o)
    if w < 500: options.add_experimental_option('mobileEmulation', dict(deviceMetrics=dict(width=w, height=h, pixelRatio=2, touch=True)))
    options.add_experimental_option('prefs', {'download.default_directory': str(tmp_path)})
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which('chromedriver')))
    browser.wide = w
    try: yield browser
    finally: browser.quit()

@pytest.mark.long
def test_in_a_real_browser(chromium, known, photos, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    server = serve(App(Reposer(device='cpu', keep=3), known.look))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    css, js = lambda o: chromium.find_element(By.CSS_SELECTOR, o), chromium.execute_script
    status = lambda: css('#status').text
    done = lambda: until(60, lambda: status().startswith('Done') and js("return document.getElementById('bar').hidden"), 'the picture')
    places = lambda: js('return me.points')
    for i, o in enumerate((photos[0], known.both, Image.new('RGB', (300, 300), 'skyblue'))): save_image(o, tmp_path/f'photo_{i}.png')
    chromium.get(server.url)
    until(20, lambda: len(chromium.find_elements(By.CSS_SELECTOR, '#poses label')) == len(POSES), 'the poses')
    assert js('return document.documentElement.scrollWidth') <= chromium.wide          # nothing sticks out
    css('#file').send_keys(str(tmp_path/'photo_2.png'))
    until(30, lambda: css('#error').text.startswith('Nobody was found'), 'the error')
    css('#file').send_keys(str(tmp_path/'photo_1.png'))
    until(30, lambda: status().startswith('2 people'), 'the question')
    chromium.find_elements(By.CSS_SELECTOR, '.who')[1].send_keys(Keys.ENTER)
    until(30, lambda: status().startswith('Pick'), 'the second person')
    css('#file').send_keys(str(tmp_path/'photo_0.png'))
    until(30, lambda: js('return me.width') == 256 and status().startswith('Pick'), 'the first photo')
    assert css('#error').text == ''
    js("document.querySelector('input[value=wave]').click()")
    done()
    before = places()
    dot = js("const o = document.querySelectorAll('g.dot .seen')[4].getBoundingClientRect(); return [o.x + o.width/2, o.y + o.height/2]")
    if chromium.wide > 500: # the mouse
        hand = ActionChains(chromium, duration=40).move_to_element(chromium.find_elements(By.CSS_SELECTOR, 'g.dot .seen')[4]).click_and_hold()
        for _ in range(8): hand.move_by_offset(-6, -10)
        hand.release().perform()
    else: # a finger, which must not scroll the page
        touch = lambda kind, *points: chromium.execute_cdp_cmd('Input.dispatchTouchEvent', dict(type=kind, touchPoints=[dict(x=x, y=y) for x, y in points]))
        touch('touchStart', dot)
        for k in range(9): touch('touchMove', (dot[0] - 4*k, dot[1] - 7*k))
        touch('touchEnd')
        assert js('return scrollY') == 0
    until(10, lambda: not status().startswith('Done'), 'a new picture')
    done()
    after = places()
    assert np.hypot(*np.subtract(after[4], before[4])) > 15 and after[4][1] < before[4][1]
    js("document.querySelector('g.dot[data-joint=\"7\"]').focus()")
    ActionChains(chromium).send_keys(Keys.ARROW_UP).pause(.3).send_keys(Keys.ARROW_UP).perform()
    until(10, lambda: not status().startswith('Done'), 'a new picture')
    done()
    assert places()[7][1] < after[7][1] and js('return document.activeElement.dataset.joint') == '7'
    if chromium.wide > 500: js("document.activeElement.blur()")
    OUTPUT.mkdir(exist_ok=True)
    time.sleep(.5)
    chromium.save_screenshot(str(OUTPUT/f'app_{chromium.wide}.png'))
    css('#save').click()
    file = until(20, lambda: next(tmp_path.glob('reposed.png'), None), 'the download')
    assert opened(file.read_bytes()).size == (256, 256)
    assert [o['message'] for o in chromium.get_log('browser') if '422' not in o['message']] == []
    server.shutdown()
    server.server_close()
