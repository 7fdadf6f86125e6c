"""What a hostile or careless user gives, as tables: the input, and the words of the one line that answers it.

None of it may crash, hang, fill the memory, run anything, leave the disk or be taken for something good. `pytest -m long -k fuzz` mutates good files for minutes."""
import io
import json
import os
import pickle
import random
import re
import signal
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image
from processes import COMMANDS, ROOT, Running, command
from safetensors.torch import save_file

from spice import guided_system
from spice.blazepose import Found
from spice.core import DataError, ImageError, SpiceError, WeightsError, cache_folder, not_over, read_image, seeded, writing
from spice.sources import PeoplePhotos, PhotoFolder
from spice.data import Prepared, prepare
from spice.measure.evaluate import Row, check_out, evaluate, spice_eval
from spice.measure.results import read_result, read_results
from spice.detector import detect
from spice.files import cached_arrays, open_film, plain, read_array, read_arrays, read_json, read_pickle, read_torch
from spice.fits import spice_fit
from spice.reposer import Recent, Reposer, pick_person, pixels_of
from spice.infer import demo_person, files_of, planned, spice_demo, spice_repose, whom
from spice.keypoints import Keypoints, named_skeleton
from spice.network_training import spice_detector, spice_regressor
from spice.people.people_detector import JointNet
from spice.pose_files import read_annotations, read_keypoints, read_pose, to_array, write_openpose
from spice.prepare import spice_prepare
from spice.prior import read_gmm
from spice.runs import spice_train
from spice.train import load_system, make_system
from spice.film import Frames, write_video
from spice.tracking import read_poses
from spice.video import spice_video
from spice.weights import find_weights, read_state

def one_line(call, says, error=SpiceError):
    "The call fails in one line that holds these words and some advice"
    with pytest.raises(error) as e: call()
    line = str(e.value)
    assert says in line and '\n' not in line and len(line) < 900, line
    return line

def saved(image, form='PNG', **how):
    stream = io.BytesIO()
    image.save(stream, form, **how)
    return stream.getvalue()

def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

def png(width, height, data=b'', more=b''): # a PNG of 8-bit RGB that promises so many pixels
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + more + chunk(b'IDAT', zlib.compress(data)) + chunk(b'IEND', b'')

def npy(shape, kind='<f8', content=b''):
    "An .npy file whose header is made up"
    head = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(head)) + head + content

def zipped(**parts): # names without ending, and bytes
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        for name, content in parts.items(): z.writestr(f'{name}.npy', content)
    return stream.getvalue()

photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
deep = b'['*200_000 + b']'*200_000

# ---- pictures

PICTURES = {
    'EPS as .jpg': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(a) run\n', 'not a picture in a known format'),
    'EPS in a DOS wrapper': (b'\xc5\xd0\xd3\xc6' + bytes(60) + b'%!PS-Adobe-3.0 EPSF-3.0\n', 'not a picture in a known format'),
    'PDF': (b'%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n', 'not a picture in a known format'),
    'SVG': (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', 'not a picture in a known format'),
    'Photoshop': (b'8BPS\x00\x01' + bytes(60), 'not a picture in a known format'),
    'Windows metafile': (b'\xd7\xcd\xc6\x9a' + bytes(60), 'not a picture in a known format'),
    'FITS': (b'SIMPLE  =                    T' + b' '*2850, 'not a picture in a known format'),
    '60,000 x 60,000 pixels': (png(60_000, 60_000), 'too many pixels'),
    '20,000 x 8,000 pixels': (png(20_000, 8_000), 'too many pixels'),
    '2**31 pixels wide': (png(2**31 - 1, 2**31 - 1), 'too many pixels'),
    'no rows': (png(40, 40), 'damaged or cut off'),
    'half a JPEG': (saved(photo, 'JPEG')[:500], 'damaged or cut off'),
    'half a WebP': (saved(photo, 'WEBP')[:60], ''),
    'a text of a gigabyte': (png(4, 4, bytes(52), chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(80_000_000)))), 'damaged or cut off'),
    'nothing': (b'', 'the file is empty'),
    'zeros': (bytes(5000), 'not a picture in a known format'),
}

@pytest.mark.parametrize('name', PICTURES)
def test_pictures(name, tmp_path):
    content, says = PICTURES[name]
    (tmp_path/'p.jpg').write_bytes(content)
    one_line(lambda: read_image(tmp_path/'p.jpg'), says)

def test_no_other_program_is_started(tmp_path, monkeypatch):
    "Ghostscript above all"
    monkeypatch.setattr(subprocess, 'Popen', lambda *a, **k: pytest.fail(f'started {a}'))
    monkeypatch.setattr(os, 'system', lambda *a: pytest.fail(f'started {a}'))
    for content, says in PICTURES.values():
        if content: one_line(lambda: read_image(content), says)

EXIF = [b'Exif\0\0MM\0*\0\0\0\x08\xff\xff' + bytes(9), b'Exif\0\0', b'Exif\0\0II*\0\xff\xff\xff\xff', b'Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\5\0\0\0\1\0\0\0\x1a']

@pytest.mark.parametrize('broken', EXIF)
def test_odd_exif_is_a_picture_or_a_line(broken):
    try: assert read_image(saved(photo, 'JPEG', exif=broken)).size in ((30, 40), (40, 30))
    except SpiceError as e: assert '\n' not in str(e)

def pipe(path):
    os.mkfifo(path)
    return path

READERS = dict(picture=read_image, pose=read_keypoints, array=read_array, arrays=read_arrays, json=read_json, pickle=read_pickle, weights=read_torch, film=open_film)

@pytest.mark.skipif(os.name != 'posix', reason='no pipes')
@pytest.mark.parametrize('name', READERS)
def test_what_is_no_file(name, tmp_path):
    "A pipe would never end; a folder, a device, a name of 300 letters, a zero in a name"
    read, end = READERS[name], dict(pose='.json').get(name, '.x')
    for path, says in ((pipe(tmp_path/f'pipe{end}'), 'is no plain file'), (tmp_path/f'gone{end}', 'there is no such file'), (Path(f'{tmp_path}/{"x"*300}{end}'), 'can not be reached'),
                       (tmp_path/f'a\0b{end}', 'can not be reached')):
        one_line(lambda: read(path), says)
    if name != 'pose': one_line(lambda: read('/dev/zero'), 'is no plain file'), one_line(lambda: read(tmp_path), 'is a folder')

# ---- poses

person = dict(people=[dict(pose_keypoints_2d=[1.]*54)])
POSES = {
    'deep JSON': ('.json', deep, 'is no valid JSON (RecursionError'),
    '10 to the 400': ('.json', json.dumps([[1.]*3]*18).replace('1.0', '1' + '0'*400, 1).encode(), 'does not say how large'),
    '10 to the 400 in OpenPose': ('.json', json.dumps(person | dict(canvas_width=9, canvas_height=9)).replace('1.0', '1' + '0'*400, 1).encode(), 'NaN or infinite'),
    'a million pixels away': ('.json', json.dumps(person | dict(canvas_width=9, canvas_height=9)).replace('1.0', '1e7', 1).encode(), 'a million pixels away'),
    'no size': ('.json', json.dumps(person).encode(), 'does not say how large its picture is. Write canvas_width'),
    'a canvas of words': ('.json', json.dumps(person | dict(canvas_width='a', canvas_height=2)).encode(), 'is no picture size'),
    'a canvas without end': ('.json', json.dumps(person | dict(canvas_width=9, canvas_height=8)).replace('9', '1' + '0'*400).encode(), ''),
    'words for numbers': ('.json', json.dumps(dict(people=[dict(pose_keypoints_2d=['a']*54)])).encode(), 'person 0 has'),
    'people is a number': ('.json', b'{"people": 3}', 'has no list "people"'),
    'UTF-16': ('.json', '{"people": []}'.encode('utf-16'), 'is no text'),
    'nothing': ('.json', b'', 'is empty'),
    'an empty .npy': ('.npy', b'', 'is empty'),
    'objects in .npy': ('.npy', npy('(3,)', '|O', pickle.dumps([1])), 'no plain numbers'),
    'a header of 8 TB': ('.npy', npy('(1000000, 1000000)'), 'should hold an array'),
    'a negative shape': ('.npy', npy('(-1, 3)'), ''),
    'a header that runs': ('.npy', npy('(print(1), 3)'), 'can not be read'),
    'a header without end': ('.npy', b'\x93NUMPY\x02\x00' + struct.pack('<I', 2**31), 'can not be read'),
    'words without letters': ('.npy', npy('(2, 2147483648)', '|S0'), 'no plain numbers or words'),
    'words in .npy': ('.npy', npy('(2,)', '<U4', bytes(32)), 'no array of numbers'),
    'cut off': ('.npy', npy('(18, 3)', '<f8', bytes(100)), 'should hold an array'),
    '18 NaN': ('.npy', npy('(18, 3)', '<f8', np.full(54, np.nan).tobytes()), 'NaN or infinite'),
    'a zip of 600 MB': ('.npz', zipped(a=npy('(75000000,)') + bytes(600_000_000)), 'would become 600'),
    'objects in .npz': ('.npz', zipped(a=npy('(1,)', '|O', pickle.dumps([1]))), 'no plain numbers'),
    'no zip': ('.npz', b'PK\3\4' + bytes(100), 'can not be read'),
    'an empty zip': ('.npz', zipped(), 'holds'),
    'a picture': ('.npy', saved(photo), 'can not be read'),
    'another ending': ('.yaml', b'a: 1', 'is no pose format'),
}

@pytest.mark.parametrize('name', POSES)
def test_poses(name, tmp_path, bad_input):
    end, content, says = POSES[name]
    (tmp_path/f'p{end}').write_bytes(content)
    size = None if 'size' in name or 'canvas' in name or '400' in name or 'away' in name else 256
    one_line(lambda: read_keypoints(tmp_path/f'p{end}', size), says)

TABLES = {'deep': ('a: ' + '['*100_000 + ': [1]', 'line 1 has'), 'code': ('a: print(1): [1]', 'line 1 has'), 'long numbers': (f'a: {[10**30]*18}: {[1]*18}', ''),
          'few': ('a: [1]: [2]', 'line 1 has 1 numbers'), 'Latin-1': (b'\xe9: [1]: [2]', 'is no text')}

@pytest.mark.parametrize('name', TABLES)
def test_annotation_tables(name, tmp_path, bad_input):
    text, says = TABLES[name]
    (tmp_path/'a.csv').write_bytes(text if isinstance(text, bytes) else text.encode())
    one_line(lambda: read_annotations(tmp_path/'a.csv'), says)

# ---- pickles: bodies and priors

sparse = scipy.sparse.csc_matrix(np.eye(24, 50))

def bent(**changes): # a sparse matrix with other arrays, as a pickle
    matrix = sparse.copy()
    for k, v in changes.items(): matrix.__dict__[k] = v
    return pickle.dumps(matrix, 2)

class Runs:
    def __init__(self, f, *args): self.f, self.args = f, args
    def __reduce__(self): return self.f, self.args

whole = lambda *numbers: np.array(numbers, np.int32)
PICKLES = {
    'an index far outside': (bent(indices=np.full(24, 2**30, np.int32)), 'point outside'),
    'a negative index': (bent(indices=np.full(24, -5, np.int32)), 'point outside'),
    'columns that go back': (bent(indptr=np.r_[0, 24, np.zeros(48), 24].astype(np.int32)), 'point outside'),
    'columns beyond': (bent(indptr=np.r_[np.zeros(50), 10**6].astype(np.int32)), 'point outside'),
    'too few columns': (bent(indptr=whole(0, 24)), 'point outside'),
    'no columns': (bent(indptr=np.zeros(0, np.int32)), 'point outside'),
    'indices that are no numbers': (bent(indices=np.ones(24)), 'no whole numbers'),
    'more numbers than places': (bent(data=np.ones(99)), 'point outside'),
    'a matrix without bounds': (bent(_shape=(10**9, 10**9)), 'a sparse matrix of shape'),
    'a shape of words': (bent(_shape=('a', 'b')), 'a sparse matrix of shape'),
    'runs a program': (pickle.dumps(Runs(os.system, 'true')), 'wants to call'),
    'makes an array of 8 GB': (pickle.dumps(Runs(np.ndarray, (10**9,))), 'without contents'),
    'a lying array': (pickle.dumps(np.arange(99.)).replace(b'Kc\x85', b'K\x63\x85').replace(b'\x8c\x02f8', b'\x8c\x02i2'), 'whose shape is not'),
    'a kind that is none': (pickle.dumps(np.arange(9.)).replace(b'\x8c\x02f8', b'\x8c\x02O8'), 'numbers of the kind'),
    'a memory of 10**9 places': (b'\x80\x02]r' + struct.pack('<I', 10**9) + b'.', 'too many small things'),
    'a million lists': (b'\x80\x02' + b']'*1_200_000 + b'.', 'too many small things'),
    'a string of 10**12 bytes': (b'\x80\x04\x8d' + struct.pack('<Q', 10**12) + b'abc.', 'can not be read'),
    'a number of 10**6 digits': (b'L' + b'9'*10**6 + b'L\n.', 'can not be read'),
    'deep': (b'\x80\x02' + b'('*500_000 + b't'*500_000 + b'.', ''),
    'a joke': (b'I am a pickle', 'can not be read'),
    'nothing': (b'', 'the file is empty'),
}

@pytest.mark.parametrize('name', PICKLES)
def test_pickles(name, tmp_path):
    content, says = PICKLES[name]
    (tmp_path/'m.pkl').write_bytes(content)
    line = one_line(lambda: (plain(read_pickle(tmp_path/'m.pkl')), read_gmm(tmp_path/'m.pkl')), says)
    assert 'Error' not in line or 'can not be read' in line

# ---- weights, settings, names of models

@pytest.fixture(scope='module')
def saved_net(tmp_path_factory): return JointNet('tiny').save_pretrained(tmp_path_factory.mktemp('net')/'net')

def config(**settings): return json.dumps(dict(network='JointNet', settings=settings))

CONFIGS = {
    'a width of 10**9': (config(width=10**9), 'width = 1000000000 is beyond all bounds'),
    'a width of 4,000': (config(width=4000), 'a far larger network than the weights'),
    'channels of 4,096': (config(backbone='resnet10', width=8, size=64, channels=4096), 'a far larger network|is 16 x|channels'),
    'a negative width': (config(width=-8), ''),
    'a width of nothing': (config(width=0), ''),
    'a width of words': (config(width='wide'), 'make no JointNet|can not be read'),
    'no such trunk': (config(backbone='resnet999'), 'there is no backbone'),
    'a size of 10**5': (config(size=10**5), 'beyond all bounds'),
    'infinite': ('{"network": "JointNet", "settings": {"sigma": 1e999}}', 'beyond all bounds'),
    '10 to the 400': ('{"network": "JointNet", "settings": {"width": 1' + '0'*400 + '}}', 'beyond all bounds'),
    'a long word': (config(backbone='a'*10_000), 'beyond all bounds'),
    'many settings': (config(**{f'a{i}': 1 for i in range(1000)}), 'beyond all bounds'),
    'deep': (deep.decode(), 'is no valid JSON'),
    'deep enough': (config(width=[[[[[[[1]]]]]]]), 'beyond all bounds'),
    'a list': ('[1]', 'has no settings'),
    'another network': ('{"network": "Spice", "settings": {}}', 'holds a Spice, not a JointNet'),
    'bytes': (b'\xff\xfe\xff', 'is no text'),
    'a megabyte': (b' '*1_100_000, 'more than the 1 that are read'),
}

@pytest.mark.parametrize('name', CONFIGS)
def test_configs(name, saved_net, tmp_path):
    text, says = CONFIGS[name]
    (tmp_path/'config.json').write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path/'model.safetensors').write_bytes((saved_net/'model.safetensors').read_bytes())
    start = time.process_time()
    with pytest.raises(SpiceError) as e: JointNet.from_pretrained(tmp_path, 'cpu')
    assert any(o in str(e.value) for o in says.split('|')) and '\n' not in str(e.value), str(e.value)
    one_line(lambda: load_system(tmp_path, 'cpu'), '')
    assert time.process_time() - start < 5

def packed(): # a file of torch.save, but compressed
    plain_file, stream = io.BytesIO(), io.BytesIO()
    torch.save({'w': torch.zeros(1000)}, plain_file)
    with zipfile.ZipFile(plain_file) as z, zipfile.ZipFile(stream, 'w', zipfile.ZIP_DEFLATED) as out:
        for o in z.infolist(): out.writestr(o.filename, z.read(o))
    return stream.getvalue()

WEIGHTS = {'compressed': (packed(), 'is compressed'), 'a pickle that runs': (pickle.dumps(Runs(os.system, 'true')), 'can not be read'), 'text': (b'weights', 'can not be read'),
           'nothing': (b'', 'the file is empty'), 'half a zip': (packed()[:300], 'can not be read')}

@pytest.mark.parametrize('name', WEIGHTS)
def test_weights(name, tmp_path):
    content, says = WEIGHTS[name]
    (tmp_path/'w.pt').write_bytes(content)
    line = one_line(lambda: read_state(tmp_path/'w.pt'), says, WeightsError)
    assert 'weights_only' not in line                                              # torch's advice would run it

SAFETENSORS = {'a header of 8 EB': struct.pack('<Q', 2**63 - 1) + b'{}', 'no header': b'abc', 'offsets beyond': struct.pack('<Q', 64) + json.dumps(
    {'w': dict(dtype='F32', shape=[9], data_offsets=[0, 36])}).encode().ljust(64) + bytes(4), 'a shape without end': struct.pack('<Q', 96) + json.dumps(
    {'w': dict(dtype='F32', shape=[2**40, 2**40], data_offsets=[0, 4])}).encode().ljust(96) + bytes(4)}

@pytest.mark.parametrize('name', SAFETENSORS)
def test_safetensors(name, saved_net, tmp_path):
    (tmp_path/'config.json').write_bytes((saved_net/'config.json').read_bytes())
    (tmp_path/'model.safetensors').write_bytes(SAFETENSORS[name])
    one_line(lambda: JointNet.from_pretrained(tmp_path, 'cpu'), 'can not be read', WeightsError)

def test_nan_in_weights(saved_net, tmp_path):
    state = JointNet('tiny').state_dict()
    save_file({k: torch.full_like(v, torch.nan) if v.is_floating_point() else v for k, v in state.items()}, tmp_path/'model.safetensors')
    (tmp_path/'config.json').write_bytes((saved_net/'config.json').read_bytes())
    one_line(lambda: JointNet.from_pretrained(tmp_path, 'cpu'), 'holds NaN')

NAMES = ('_ckpt/first', 'owner/name', 'nowhere', '../models', 'people/../../free_body', './people/x', '/', 'https://example.org/model', 'file:///etc', 'people/nothing', '~/model', 'hf', 'HF:owner/name')

@pytest.mark.parametrize('name', NAMES)
def test_no_name_leaves_the_disk(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('spice.weights.hf_hub_download', lambda *a: pytest.fail(f'the Hub was asked for {a}'))
    one_line(lambda: load_system(name, 'cpu'), '' if name == '/' else 'there is no such folder or model. Give a folder, a Hub id, or one of people, photos; a Hub id is written hf:owner/name', WeightsError)

def test_a_marked_name_asks_the_hub_in_one_line(monkeypatch):
    asked = []
    def ask(*a): asked.append(a); raise ConnectionError('no net\nat all')
    monkeypatch.setattr('spice.weights.hf_hub_download', ask)
    one_line(lambda: find_weights('hf:owner/name', 'config.json'), 'the Hub does not give config.json of owner/name (ConnectionError)')
    for name in ('hf:', 'hf:name', 'hf:a/b/c', 'hf:../b', 'hf:a/b?x'): one_line(lambda: find_weights(name, 'config.json'), '')
    assert asked == [('owner/name', 'config.json'), ('../b', 'config.json')][:len(asked)]

# ---- films

FILMS = {
    'a playlist': b'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n',
    'a playlist of the net': b'#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n',
    'a list to join': b"ffconcat version 1.0\nfile 'secret.mp4'\n",
    'a DASH list': b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period></Period></MPD>',
    'a session': b'v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nm=video 9 RTP/AVP 96\r\n',
    'subtitles': b'1\n00:00:00,000 --> 00:00:01,000\nHello\n', 'a picture': saved(photo), 'text': b'film', 'zeros': bytes(10_000),
}

@pytest.mark.parametrize('name', FILMS)
def test_films(name, tmp_path):
    for end in ('.mp4', '.m3u8'):
        (tmp_path/f'film{end}').write_bytes(FILMS[name])
        one_line(lambda: open_film(tmp_path/f'film{end}'), 'is no film, or damaged', DataError)

@pytest.mark.parametrize('name', ['concat:a.mp4|b.mp4', 'http://127.0.0.1:9/a.mp4', 'pipe:0', 'data:video/mp4;base64,AAAA', 'subfile,,start,0,end,9,,:a.mp4'])
def test_addresses_are_no_films(name): one_line(lambda: open_film(name), 'there is no such file', DataError)

@pytest.fixture(scope='module')
def film(tmp_path_factory): # 20 frames that move, in each form
    folder, wide = tmp_path_factory.mktemp('films'), np.kron(np.random.default_rng(0).integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    for end in ('.mp4', '.webm', '.gif'): write_video([Image.fromarray(np.roll(wide, 3*k, 1)) for k in range(20)], folder/f'a{end}', 10)
    return folder/'a.mp4'

@pytest.mark.parametrize('end, share', [('.gif', .5), ('.webm', .6), ('.gif', .9)])
def test_films_that_were_cut_off_say_so(end, share, film, tmp_path):
    data = film.with_suffix(end).read_bytes()
    assert len(list(Frames(film.with_suffix(end)))) == 20                                          # and nothing is said of a whole one
    (tmp_path/f'a{end}').write_bytes(data[:int(share*len(data))])
    with pytest.warns(UserWarning, match=r'ends after \d+ frames') as said: assert 0 < len(list(Frames(tmp_path/f'a{end}'))) < 20
    assert len(said) == 1

def test_frames_that_are_lost_are_counted(film, tmp_path):
    "Bytes flipped at random: all frames, or a word about it"
    data, chance, odd = film.read_bytes(), random.Random(0), 0
    for _ in range(12):
        broken = bytearray(data)
        for _ in range(5): broken[chance.randrange(48, len(data))] ^= 1 << chance.randrange(8)
        (tmp_path/'a.mp4').write_bytes(broken)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            try: count = len(list(Frames(tmp_path/'a.mp4')))
            except DataError as e: count, said = 0, [e]
        assert count == 20 or said
        odd += count != 20
    assert odd

def test_jumps_in_time_are_closed(tmp_path):
    from fractions import Fraction

    import av
    with av.open(str(tmp_path/'a.mp4'), 'w') as out:
        stream = out.add_stream('mpeg4', rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, 'yuv420p'
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 10*k, np.uint8), format='rgb24')
            frame.pts, frame.time_base = k + 1_000_000*(k > 9), Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    for fps, count in ((None, 20), (50, 40)):
        with pytest.warns(UserWarning, match='has jumps in its time stamps'): assert len(list(Frames(tmp_path/'a.mp4', fps))) == count

def test_frame_numbers_far_apart(tmp_path):
    for k in (0, 1, 10**9): write_openpose(named_skeleton('walk', (80, 60)), tmp_path/f'{k}.json')
    one_line(lambda: read_poses(tmp_path), 'lacks 999,999,998 frames before 1000000000.json', DataError)

def test_a_film_whose_codec_is_damaged(film, tmp_path):
    "Any byte of the head; each a film, or one line"
    data = film.read_bytes()
    at = data.find(b'stsd')
    for k in range(at, at + 40):
        broken = bytearray(data)
        broken[k] ^= 255
        (tmp_path/'a.mp4').write_bytes(broken)
        try: open_film(tmp_path/'a.mp4').close()
        except DataError as e: assert '\n' not in str(e)

# ---- photos and people: what is asked of a command

@pytest.fixture(scope='module')
def tool():
    with seeded(0): return Reposer(make_system('guided', 'small'), device='cpu')

def test_names_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('me[1].png', 'a, b.png', 'c.png', 'a', 'me1.png'): photo.save(name, 'PNG')
    assert [str(o) for o in files_of('me[1].png, a, b.png,c.png')] == ['me[1].png', 'a, b.png', 'c.png']
    assert [str(o) for o in files_of('me[0-9].png')] == ['me1.png'] and [str(o) for o in files_of('*.png,')][:1] == ['a, b.png']
    assert [len(str(o)) for o in files_of('x'*300 + '.png,c.png')] == [304, 5]
    one_line(lambda: read_image(files_of('x'*300 + '.png')[0]), 'can not be reached', ImageError)
    one_line(lambda: files_of(' , '), 'names no file')
    one_line(lambda: planned([Path('c.png')], ['walk', Path('c_walk.png')], Path('.')), 'c_walk.png is one of the photos. Give another --out')

def test_nothing_is_written_over_what_is_read(tmp_path, monkeypatch, bad_input):
    monkeypatch.chdir(tmp_path)
    photo.save('p.png'), (tmp_path/'sub').mkdir(), (tmp_path/'link').symlink_to(tmp_path/'p.png')
    (tmp_path/'film.mp4').write_bytes(b'film')
    before = (tmp_path/'p.png').read_bytes()
    one_line(lambda: spice_demo(photo='p.png', out='p.png'), 'p.png is what is read as photo. Write to another place')
    one_line(lambda: spice_demo(photo='link', out='sub/../p.png'), 'is what is read as photo')
    one_line(lambda: spice_video('p.png', 'film.mp4', 'film.mp4', overwrite=True), 'film.mp4 is what is read as driver')
    one_line(lambda: spice_prepare('folder', '.', root='.'), '. is in .')
    one_line(lambda: spice_prepare('folder', 'sub', root='.'), 'sub is in .')
    not_over('new.png', photo='p.png', keypoints='')
    assert (tmp_path/'p.png').read_bytes() == before and sorted(o.name for o in tmp_path.iterdir()) == ['film.mp4', 'link', 'p.png', 'sub']

IDLE = [
    (spice_repose, dict(photos='p.png', poses='walk', person='²'), "'²' is no person"), (spice_repose, dict(photos='p.png', poses='walk', person='9'*5000), 'is no person'),
    (spice_repose, dict(photos='p.png', poses='walk', person='-1'), "'-1' is no person"), (spice_repose, dict(photos='p.png', poses='walk', size=512, paste=True), 'size=512 with --paste'),
    (spice_demo, dict(keypoints='k.json'), '--keypoints without --photo'), (spice_demo, dict(photo='p.png', person=7), '--person 7 with --photo'), (spice_demo, dict(person=200), 'person = 200'),
    (spice_video, dict(photo='p.png', driver='walk', smooth='live'), '--smooth does not apply'), (spice_video, dict(photo='p.png', driver='walk', whose='1'), '--whose does not apply'),
    (spice_video, dict(photo='p.png', driver='walk', as_driver=True), '--as_driver does not apply'), (spice_video, dict(photo='p.png', driver='film.mp4', repeat=2), '--repeat does not apply'),
    (spice_video, dict(photo='p.png', driver='film.mp4', whose='tall'), "'tall' is no person"), (spice_video, dict(photo='p.png', driver='walk', out='film.txt'), 'no film that can be written'),
    (spice_prepare, dict(kind='people', out='o', root='x'), '--root with people'), (spice_prepare, dict(kind='folder', out='o', root='.', frame='bars'), '--frame with folder'),
    (spice_prepare, dict(kind='folder', out='o', root='.', train=3), '--train with folder'),
]

@pytest.mark.parametrize('call, options, says', IDLE, ids=[f'{o[0].__name__} {i}' for i, o in enumerate(IDLE)])
def test_options_that_do_not_apply(call, options, says, tmp_path, monkeypatch, bad_input):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('spice.reposer.load_system', lambda *a: pytest.fail('too late'))
    one_line(lambda: call(**options), says)
    assert not list(tmp_path.iterdir())

PLACES = [
    (spice_demo, dict(out='o.txt'), '.txt is no picture format'), (spice_demo, dict(out='.'), 'no ending is no picture format'), (spice_demo, dict(out='file/o.png'), 'can not write there'),
    (spice_demo, dict(out='x'*300 + '.png'), 'can not write there (File name too long)'), (spice_repose, dict(photos='p.png', poses='walk', out='file'), 'can not write there'),
    (spice_repose, dict(photos='p.png', poses='walk', out='x'*300), 'can not write there'), (spice_video, dict(photo='p.png', driver='walk', out='folder.mp4'), 'can not write there'),
    (spice_video, dict(photo='p.png', driver='walk', out='x'*300 + '.mp4'), 'can not write there'), (spice_eval, dict(rows='truth', count=2, real=2, out='file'), 'can not write there'),
    (spice_train, dict(out='file', steps='1', stage='flow', device='cpu'), 'can not write there'), (spice_train, dict(out='o', settings='='), "'=' is no setting"), (spice_train, dict(out='o', weights='=1'), "'=1' is no setting"),
]

@pytest.mark.parametrize('call, options, says', PLACES, ids=[f'{o[0].__name__} {i}' for i, o in enumerate(PLACES)])
def test_places_that_can_not_be_written_to(call, options, says, tmp_path, monkeypatch, bad_input):
    "Known before any work"
    monkeypatch.chdir(tmp_path)
    photo.save('p.png'), (tmp_path/'file').write_bytes(b'here'), (tmp_path/'folder.mp4').mkdir()
    monkeypatch.setattr('spice.reposer.load_system', lambda *a: pytest.fail('too late'))
    monkeypatch.setattr('spice.measure.evaluate.evaluate_rows', lambda *a, **k: pytest.fail('too late'))
    one_line(lambda: call(**options), says)
    assert sorted(o.name for o in tmp_path.iterdir()) == ['file', 'folder.mp4', 'p.png']

def test_people_who_are_not_there(tool):
    one, two = (Keypoints(torch.rand(n, 18, 3)*60 + 1, (64, 64)) for n in (1, 2))
    assert pick_person(one, None) is pick_person(one, 'largest') and len(pick_person(one, 0)) == 1 and whom('') is None and whom('1') == 1 and whom('largest') == 'largest'
    for found, person, says in ((one, 7, 'person=7 of 1 people'), (one, 'tall', "person='tall' of 1"), (two, 2, 'person=2 of 2'), (one, -1, 'person=-1 of 1')):
        one_line(lambda: pick_person(found, person), says, ImageError)
    nobody = lambda images: [Found([], (64, 64), best=.314)]
    one_line(lambda: detect(photo, detector=nobody), 'nobody was found in photo 0 (the surest guess scores 0.31 of 1)', ImageError)

@pytest.mark.parametrize('options, says', [(dict(batch=0), 'batch = 0'), (dict(batch=10**9), 'batch = 1000000000'), (dict(batch=True), 'batch = True'), (dict(keep=-1), 'keep = -1')])
def test_batches(options, says, tool, bad_input):
    one_line(lambda: Reposer(tool.system, device='cpu', **options), says)

def test_a_pose_needs_no_canvas(tool, tmp_path, bad_input):
    "Of joints alone only the pose counts; shares of a picture whose shape nobody knows are refused"
    walk = named_skeleton('walk', (256, 256))
    write_openpose(walk, tmp_path/'own.json')
    data = json.loads((tmp_path/'own.json').read_text())
    (tmp_path/'none.json').write_text(json.dumps({k: v for k, v in data.items() if 'canvas' not in k}))
    np.save(tmp_path/'a.npy', to_array(walk))
    image, known = demo_person(1, 64)
    seen, aims = tool.see(image, **known), [tool.aim(tmp_path/o, tool.see(image, **known)) for o in ('own.json', 'none.json', 'a.npy')]
    assert read_pose(tmp_path/'own.json').size == (256, 256) and seen is tool.see(image, **known)
    for o in aims[1:]: torch.testing.assert_close(o.rotmats, aims[0].rotmats, atol=.05, rtol=0)
    np.savez(tmp_path/'d.npz', candidate=np.random.rand(1, 18, 2), score=np.ones((1, 18)))
    one_line(lambda: read_pose(tmp_path/'d.npz'), 'does not say how large its picture is')

def test_photos_that_are_too_large(tool, monkeypatch):
    monkeypatch.setattr('spice.reposer.MOST_SEEN', 1000)
    one_line(lambda: tool.see(photo.resize((40, 30))), 'a photo of 0 million pixels. Make it smaller', ImageError)

def test_what_is_remembered_has_a_weight():
    shelf, page = Recent(9, 5000, pixels_of), lambda n: type('', (), dict(photo=Image.new('RGB', (n, 10))))
    for n in (100, 200, 300): shelf.keep({n: page(n)})
    assert list(shelf) == [200, 300]
    shelf.keep({900: page(900)})
    assert list(shelf) == [900], 'one may weigh more'

def test_a_friend_stays_and_is_not_copied(tool, monkeypatch):
    "Two people side by side; one of them is taken away"
    pair, asked, fill = Image.new('RGB', (256, 256)), [], guided_system.fill_behind
    for k, left in ((19, 0), (4, 128)): pair.paste(demo_person(k, 256)[0].crop((64, 0, 192, 256)), (left, 0))
    monkeypatch.setattr(guided_system, 'fill_behind', lambda *o: asked.append(o) or fill(*o))
    seen = tool.see(pair, person=0)
    assert seen.others.size == pair.size and tool.see(demo_person(19, 256)[0]).others is None
    empty = tool.portrait(seen).behind()
    moved = np.abs(np.asarray(empty).astype(int) - np.asarray(pair)).max(2) > 8
    assert moved[:, :128].mean() > .1 and moved[:, 140:].mean() < .01
    (_, matte, others), = asked
    assert others.shape == matte.shape and .05 < others.mean() < .3 and (others*matte).mean() < .01

def test_a_large_photo_keeps_its_pixels_beside_the_person(tool, monkeypatch):
    "The place behind the person is filled in a smaller copy"
    image, known = demo_person(19, 256)
    seen = tool.see(image, **known)
    whole = guided_system.Portrait(tool.system, seen.photo, seen.matte, seen.box, seen.fits).behind()
    monkeypatch.setattr(guided_system, 'FINE', 96)
    small = guided_system.Portrait(tool.system, seen.photo, seen.matte, seen.box, seen.fits).behind()
    a, b, before = (np.asarray(o).astype(int) for o in (small, whole, image))
    far = np.asarray(seen.matte.resize((32, 32), Image.Resampling.BOX).resize((256, 256), Image.Resampling.NEAREST)) == 0
    edge = np.zeros_like(far)
    edge[:, :16] = edge[:, -16:] = True
    assert (a == before)[far & edge].all() and np.abs(a - b).mean() < 4 and small.size == image.size

def test_there_is_no_home(monkeypatch):
    def no_home(self): raise RuntimeError('Could not determine home directory.')
    monkeypatch.delenv('SPICE_HOME', raising=False)
    monkeypatch.setattr(Path, 'expanduser', no_home)
    one_line(cache_folder, 'there is no home folder. Set SPICE_HOME', DataError)
    assert cached_arrays('k/a.npz', lambda: dict(x=np.ones(3)), lambda o: True)['x'].sum() == 3

# ---- prepared folders

@pytest.fixture(scope='module')
def prepared(tmp_path_factory): return prepare(PeoplePhotos(64, train=2, valid=1, test=1), tmp_path_factory.mktemp('prepared')/'data')

def as_json(change): # a change of a JSON file's content
    def apply(path):
        found = json.loads(path.read_text())
        path.write_text(json.dumps(change(found) or found))
    return apply

def as_arrays(change):
    def apply(path):
        with np.load(path) as f: table = dict(f)
        change(table)
        np.savez(path, **table)
    return apply

def put(content): return lambda path: path.write_bytes(content)

DAMAGES = {
    **{f'{name} {what}': (name, put(content)) for name in ('manifest.json', 'splits.json', 'keypoints.npz', 'bodies.npz') for what, content in
       dict(empty=b'', of_text=b'hello', cut_off=b'{"kind": "peo', of_zeros=bytes(200), deep=deep).items()},
    'no keypoints': ('keypoints.npz', lambda path: path.unlink()), 'no splits': ('splits.json', lambda path: path.unlink()),
    'manifest is a list': ('manifest.json', put(b'[1]')), 'manifest says nothing': ('manifest.json', put(b'{}')),
    'another hash': ('manifest.json', as_json(lambda o: o.update(hash='0'*16))), 'no size': ('manifest.json', as_json(lambda o: o.pop('size') and None)),
    'a size of words': ('manifest.json', as_json(lambda o: o.update(size=['a', 'b']))), 'a size of 10**9': ('manifest.json', as_json(lambda o: o.update(size=[10**9, 10**9]))),
    'splits of strangers': ('splits.json', as_json(lambda o: o['splits'].update(train=['nobody']))), 'splits is a list': ('splits.json', as_json(lambda o: [1])),
    'pairs of three': ('splits.json', as_json(lambda o: o['pairs'].update(test=[['a', 'b', 'c']]))), 'names that leave': ('splits.json', as_json(lambda o: o['splits'].update(train=['../x']))),
    'points of 17': ('keypoints.npz', as_arrays(lambda o: o.update(points=o['points'][:, :17]))), 'too few names': ('keypoints.npz', as_arrays(lambda o: o.update(names=o['names'][:2]))),
    'no names': ('keypoints.npz', as_arrays(lambda o: o.pop('names'))), 'points of words': ('keypoints.npz', as_arrays(lambda o: o.update(points=np.array(['a']*8)))),
    'few bodies': ('bodies.npz', as_arrays(lambda o: o.update(names=o['names'][:3]))), 'no betas': ('bodies.npz', as_arrays(lambda o: o.pop('betas'))),
    'betas of 300': ('bodies.npz', as_arrays(lambda o: o.update(betas=np.zeros((8, 300))))),
}

@pytest.mark.parametrize('name', DAMAGES)
def test_damaged_prepared_folders(name, prepared, tmp_path):
    import shutil
    shutil.copytree(prepared, tmp_path/'data')
    file, damage = DAMAGES[name]
    damage(tmp_path/'data'/file)
    one_line(lambda: Prepared(tmp_path/'data').bodies, '', DataError)

@pytest.mark.parametrize('content, says', [(b'', 'the file is empty'), (saved(Image.new('RGB', (9, 9))), '9 x 9 pixels'), (saved(photo)[:90], 'damaged'), (png(60_000, 60_000), 'too many pixels')])
def test_damaged_prepared_pictures(content, says, prepared, tmp_path):
    data = Prepared(prepared)
    data.folder = tmp_path
    (tmp_path/'images').mkdir()
    data.path(0).write_bytes(content)
    one_line(lambda: data.image(0), says)

@pytest.mark.parametrize('kind', ['mattes', 'parsing'])
@pytest.mark.parametrize('content, says', [(b'', 'not a picture'), (saved(Image.new('L', (9, 9))), '9 x 9 pixels'), (saved(photo)[:90], 'damaged'), (png(60_000, 60_000), 'too many pixels')])
def test_damaged_prepared_mattes(kind, content, says, prepared, tmp_path):
    data = Prepared(prepared)
    data.folder = tmp_path
    (tmp_path/kind).mkdir()
    (tmp_path/kind/data.path(0).name).write_bytes(content)
    one_line(lambda: getattr(data, kind.removesuffix('s'))(0), says)

DEPTHS = {'of 17 joints': np.zeros((8, 17, 3)), 'of words': np.full((8, 18, 3), 'a'), 'of two people': np.zeros((2, 18, 3)), 'of objects': np.full((8, 18, 3), None)}

@pytest.mark.parametrize('name', DEPTHS)
def test_damaged_joints_in_space(name, prepared, tmp_path):
    import shutil
    shutil.copytree(prepared, tmp_path/'data')
    as_arrays(lambda o: o.update(joints3d=DEPTHS[name]))(tmp_path/'data'/'keypoints.npz')
    one_line(lambda: Prepared(tmp_path/'data'), '', DataError)

# ---- folders of photos

def somebody(width, height): # an array of joints as it lies beside a photo
    return np.c_[np.random.default_rng(1).uniform(.2*width, .8*width, 18), np.random.default_rng(2).uniform(.1*height, .9*height, 18), np.ones(18)]

@pytest.fixture
def photos(tmp_path):
    "Three photos with joints beside them"
    (tmp_path/'mine').mkdir()
    for k in range(3):
        photo.resize((60, 80)).save(tmp_path/'mine'/f'{k}.png')
        np.save(tmp_path/'mine'/f'{k}.npy', somebody(60, 80))
    return tmp_path/'mine'

def test_one_bad_photo_is_skipped_and_said(photos, tmp_path):
    (photos/'1.png').write_bytes(PICTURES['EPS as .jpg'][0])
    (photos/'2.npy').write_bytes(npy('(1000000, 1000000)'))
    prepare(PhotoFolder(photos, 64), tmp_path/'out')
    assert Prepared(tmp_path/'out').names == ['0']
    skipped = dict(json.loads((tmp_path/'out'/'skipped.json').read_text()))
    assert 'not a picture' in skipped['1'] and 'should hold an array' in skipped['2'] and str(tmp_path) not in skipped['1']

def test_odd_exif_in_a_folder(photos, tmp_path):
    "A photo with broken EXIF is used or skipped; it keeps no other from being used"
    for k, broken in enumerate(EXIF):
        photo.convert('RGB').resize((60, 80)).save(photos/f'exif{k}.jpg', exif=broken)
        np.save(photos/f'exif{k}.npy', somebody(60, 80))
    prepare(PhotoFolder(photos, 64), tmp_path/'out')
    skipped = dict(json.loads((tmp_path/'out'/'skipped.json').read_text()))
    assert {'0', '1', '2'} <= {*Prepared(tmp_path/'out').names} and len(skipped) + len(Prepared(tmp_path/'out')) == 3 + len(EXIF)

def test_joints_of_another_picture_are_refused(photos, tmp_path, bad_input):
    write_openpose(named_skeleton('walk', (80, 60)), tmp_path/'p.json')
    assert read_keypoints(tmp_path/'p.json', (80, 60)).size == (80, 60)
    one_line(lambda: read_keypoints(tmp_path/'p.json', (60, 80)), 'of a picture of 60 x 80 pixels, not of 80 x 60')

def test_json_is_all_that_is_printed(photos, tmp_path, capsys):
    spice_prepare('folder', str(tmp_path/'out'), root=str(photos), size=64, fit=False, json=True)
    said = capsys.readouterr()
    assert json.loads(said.out)['count'] == 3

def test_no_usable_photo_is_an_error(photos, tmp_path):
    for o in photos.glob('*.png'): o.write_bytes(b'nothing')
    one_line(lambda: spice_prepare('folder', str(tmp_path/'out'), root=str(photos), size=64), 'of 3 photos none could be used, the first since: 0: not a picture'[:40])

def test_a_detector_without_weights_stops_everything(photos, tmp_path):
    "Its error is not that of a photo: nothing is finished, and nothing is finished for good"
    (photos/'1.npy').unlink()
    class Lost:
        name = 'lost'
        def __call__(self, images): raise WeightsError('the weights are not here', 'Get them')
    one_line(lambda: prepare(PhotoFolder(photos, 64), tmp_path/'out', detector=Lost()), 'the weights are not here', WeightsError)
    assert not (tmp_path/'out'/'manifest.json').exists() and not list((tmp_path/'out').rglob('*.npz'))

CHANGES = {
    'a photo': (lambda root: photo.resize((60, 80)).rotate(180).save(root/'1.png'), 64, 'photos'),
    'joints': (lambda root: np.save(root/'1.npy', somebody(59, 80)), 64, 'files'),
    'another photo more': (lambda root: photo.save(root/'3.png'), 64, 'count'),
    'a name': (lambda root: (root/'1.png').rename(root/'x.png'), 64, 'names'),
    'the size': (lambda root: None, 32, 'size'),
}

@pytest.mark.parametrize('name', CHANGES)
def test_what_changed_is_named(name, photos, tmp_path):
    change, size, says = CHANGES[name]
    prepare(PhotoFolder(photos, 64), tmp_path/'out')
    change(photos)
    one_line(lambda: prepare(PhotoFolder(photos, size), tmp_path/'out'), f'was begun with {says} = ')

# ---- results

@pytest.fixture(scope='module')
def measured(tmp_path_factory): return evaluate('copy-source', count=2, real=2, measures='l1', device='cpu').save(tmp_path_factory.mktemp('measured'))

RESULTS = {
    'nothing': ('.json', b'', 'the file is empty'), 'text': ('.json', b'result', 'is no valid JSON'), 'deep': ('.json', deep, 'is no valid JSON'), 'a list': ('.json', b'[1]', 'holds no result'),
    'UTF-16': ('.json', '{}'.encode('utf-16'), 'is no text'), 'values without numbers': ('.npz', b'PK', 'can not be read'),
    'objects': ('.npz', zipped(names=npy('(1,)', '|O', pickle.dumps([1]))), 'no plain numbers'), 'a bomb': ('.npz', zipped(l1=npy('(75000000,)') + bytes(600_000_000)), 'would become 600'),
    'another run': ('.npz', zipped(l1=npy('(3,)') + bytes(24)), 'is not of'), 'words': ('.npz', zipped(l1=npy('(2,)', '<U1') + bytes(8)), 'is not of'), 'no names': ('.npz', zipped(), 'is not of'),
}

@pytest.mark.parametrize('name', RESULTS)
def test_results(name, measured, tmp_path):
    end, content, says = RESULTS[name]
    for o in ('.json', '.npz'): (tmp_path/f'r{o}').write_bytes(content if o == end else measured.with_suffix(o).read_bytes())
    one_line(lambda: read_result(tmp_path/'r.json'), says, DataError)
    if end == '.json' and name != 'a list': one_line(lambda: read_results(tmp_path/'r.json'), says, DataError)

def test_one_picture_is_no_set(monkeypatch):
    "Refused before the pairs, the rows and the measures are made"
    monkeypatch.setattr('spice.measure.evaluate.make_measures', lambda *a: pytest.fail('too late'))
    for options in (dict(count=1), dict(real=1), dict(count=1, measures='is-people')): one_line(lambda: spice_eval('truth', **options), 'A set has at least two')

def test_results_of_models_that_differ_only_in_their_folder(measured, bad_input):
    folder, protocol, row = measured.parent, type('', (), dict(name='people-64')), lambda name, **about: Row(name, None, about)
    check_out([row('copy-source', kind='no learning'), row('b', weights='1')], protocol, folder)
    one_line(lambda: check_out([row('copy-source', weights='1')], protocol, folder), "is the result of another model (no learning, not 1). Give another --out, or --overwrite")
    check_out([row('copy-source', weights='1')], protocol, folder, True)
    one_line(lambda: check_out([row('a/b', weights='1'), row('a_b', weights='2')], protocol, folder), 'a/b and a_b would both be a_b.people-64.json')

def test_tables_are_utf8(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('locale.getpreferredencoding', lambda *a: 'ascii')
    spice_eval('copy-source', count=2, real=2, measures='l1', device='cpu', out=str(tmp_path/'out'), json=True)
    assert json.loads(capsys.readouterr().out)[0]['row'] == 'copy-source' and 'l1 ↓' in (tmp_path/'out'/'people-64.md').read_text(encoding='utf-8')

# ---- options

OPTIONS = [
    (spice_train, dict(clip=-1.), 'clip = -1'), (spice_train, dict(decay=float('nan')), 'decay = nan'), (spice_train, dict(ema=5.), 'ema = 5'), (spice_train, dict(ema=1.), 'ema = 1'),
    (spice_train, dict(rates='flow=-0.1'), 'flow = -0.1'), (spice_train, dict(rates='flow=NaN'), 'flow = nan'), (spice_train, dict(rates='flow=1e30'), 'flow = 1e+30'),
    (spice_train, dict(weights='correct=Infinity'), 'correct = inf'), (spice_train, dict(weights='correct=true'), 'correct = True'), (spice_train, dict(steps='0'), '--steps 0'), (spice_train, dict(steps='3,2,1'), '3 numbers of steps. Give one for each stage: flow'),
    (spice_train, dict(steps='²'), '--steps ²'), (spice_train, dict(steps='9'*5000), '--steps 999'), (spice_train, dict(steps=''), '--steps'), (spice_train, dict(bs=0), 'bs = 0'),
    (spice_train, dict(bs=10**12), 'bs = 1000000000000'), (spice_train, dict(seed=-1), 'seed = -1'), (spice_train, dict(seed=2**70), 'seed = '), (spice_train, dict(pool=0), 'pool = 0'),
    (spice_train, dict(checkpoint=0), 'checkpoint = 0'), (spice_train, dict(accumulate=-2), 'accumulate = -2'), (spice_train, dict(settings='width=1000000000'), 'beyond all bounds'),
    (spice_train, dict(settings='width=' + '['*100_000), 'beyond all bounds'), (spice_train, dict(settings='colour=1'), "no setting 'colour'"), (spice_train, dict(stage='third'), "no stage 'third'"),
    (spice_train, dict(data='nowhere'), 'is no prepared dataset'), (spice_train, dict(preset='huge'), "no preset 'huge'"), (spice_train, dict(regressor='owner/name'), 'no such folder'),
    (spice_train, dict(device='abacus'), 'is no device'),
    (spice_regressor, dict(lr=-1.), 'lr = -1'), (spice_regressor, dict(lr=float('inf')), 'lr = inf'), (spice_regressor, dict(bs=0), 'bs = 0'), (spice_regressor, dict(steps=0), 'steps = 0'),
    (spice_regressor, dict(betas=float('nan')), 'betas = nan'), (spice_regressor, dict(size=0), 'size = 0'), (spice_regressor, dict(photos=-5), 'photos = -5'), (spice_regressor, dict(trunk='a/b'), 'no such folder'),
    (spice_detector, dict(lr=float('nan')), 'lr = nan'), (spice_detector, dict(size=10**6), 'size = 1000000'), (spice_detector, dict(test=0), 'test = 0'), (spice_detector, dict(preset='x'), "no preset 'x'"),
    (spice_prepare, dict(kind='people', size=-64), 'size = -64'), (spice_prepare, dict(kind='people', size=10**6), 'size = 1000000'), (spice_prepare, dict(kind='people', train=-1), '-1 outfits'),
    (spice_prepare, dict(kind='films'), "no kind of data 'films'"), (spice_prepare, dict(kind='folder'), 'Give --root'), (spice_prepare, dict(kind='folder', root='nowhere'), 'is no folder'),
    (spice_prepare, dict(kind='people', process=3, of=2, size=64, train=1, valid=0, test=0), 'process 3 of 2'), (spice_prepare, dict(kind='people', detector='x'), 'brings its keypoints'),
]

@pytest.mark.parametrize('call, options, says', OPTIONS, ids=[f'{o[0].__name__} {next(iter(o[1]))} {i}' for i, o in enumerate(OPTIONS)])
def test_options_are_refused_before_any_work(call, options, says, tmp_path, monkeypatch, bad_input):
    "In a line, and nothing is left"
    monkeypatch.chdir(tmp_path)
    options = dict(options)
    where = dict(out=str(tmp_path/'out')) | (dict(steps='1', stage='flow', device='cpu') if call is spice_train else dict(device='cpu') if call is not spice_prepare else {})
    one_line(lambda: call(**where | options), says)
    assert not list(tmp_path.iterdir())

def test_fit_refuses_too(prepared, tmp_path):
    for options, says in ((dict(process=2, of=2), 'process 2 of 2'), (dict(again=True, of=2), 'with --again'), (dict(body=str(tmp_path/'no.pkl')), 'there is no such file')):
        one_line(lambda: spice_fit(str(prepared), **options), says)

# ---- disks, signals, temporary files

DISKS = {'full': OSError(28, 'No space left on device'), 'full, says torch': RuntimeError('[enforce fail at inline_container.cc:862] . PytorchStreamWriter failed writing file data/0: file write failed\nmore'),
         'full, says safetensors': Exception('Error while serializing: I/O error: No space left on device (os error 28)'),
         'full, said safetensors': Exception('Error while serializing: IoError(Os { code: 28, kind: StorageFull })'), 'read-only': OSError(30, 'Read-only file system')}

@pytest.mark.parametrize('name', DISKS)
def test_disks(name, tmp_path):
    (tmp_path/'a.txt').write_text('old')
    def write():
        with writing(tmp_path/'a.txt') as f:
            f.write_text('half')
            raise DISKS[name]
    one_line(write, 'writing failed', DataError)
    assert [o.name for o in tmp_path.iterdir()] == ['a.txt'] and (tmp_path/'a.txt').read_text() == 'old'

def test_sigterm_is_one_line_and_the_same_command_goes_on(tmp_path):
    "Ended in the middle of preparing; then the tables are those that nobody disturbed"
    arguments = ['people', tmp_path/'out', '--size', '64', '--train', '20', '--valid', '0', '--test', '0']
    program = 'from spice.prepare import spice_prepare; import sys; sys.exit(spice_prepare())'
    run = Running(program, *arguments, name='spice_prepare')
    for _ in range(600):
        if list(tmp_path.glob('out/parts/*.npz')) or run.returncode is not None: break
        time.sleep(.02)
    os.kill(run.process.pid, signal.SIGTERM)
    run.wait()
    if run.returncode == 0: pytest.skip('it was faster than the signal')
    assert run.returncode == 130 and run.stderr.startswith('spice_prepare: stopped.') and run.stderr.count('\n') == 1, run.stderr
    assert not list(tmp_path.rglob('.writing-*'))
    assert command('spice_prepare', *arguments).returncode == 0 and len(Prepared(tmp_path/'out')) == 40

FULL = { # bytes that a file may have before the disk refuses more, and the command
    'spice_prepare': (2000, 'people {out} --size 64 --train 30 --valid 2 --test 2'), 'spice_fit': (500, '{data}'),
    'spice_repose': (500, '{kit}/me.png walk --out {out}/it.png --keypoints {kit}/me.json --model {kit}/carried --device cpu'),
    'spice_video': (2000, '{kit}/me.png walk --out {out}/film.mp4 --keypoints {kit}/me.json --model {kit}/carried --fps 5 --device cpu'),
    'spice_eval': (300, 'copy-source --count 2 --real 2 --measures l1 --out {out} --device cpu'),
    'spice_train': (8192, '{out} --steps 2 --stage flow --bs 2 --pool 4 --checkpoint 2 --epoch 2 --quiet --device cpu'),
    'spice_detector': (8192, '{out} --preset tiny --steps 2 --bs 4 --photos 8 --test 4 --size 64 --device cpu'),
    'spice_regressor': (8192, '{out} --preset tiny --steps 2 --bs 4 --photos 8 --test 4 --size 64 --device cpu'),
}

@pytest.mark.skipif(os.name != 'posix', reason='no limit for files')
@pytest.mark.parametrize('name', [pytest.param(o, marks=pytest.mark.long) if o in ('spice_train', 'spice_detector', 'spice_regressor', 'spice_video') else o for o in FULL])
def test_full_disk(name, prepared, tmp_path):
    "The disk is full in the middle of a file: one line, and no half of a file"
    import shutil
    image, known = demo_person(19, 64)
    image.save(tmp_path/'me.png')
    write_openpose(known['keypoints'], tmp_path/'me.json')
    make_system('spice', 'tiny').save_pretrained(tmp_path/'carried')
    shutil.copytree(prepared, tmp_path/'data')
    (tmp_path/'data'/'bodies.npz').unlink()
    (limit, options), (module, function) = FULL[name], COMMANDS[name].split(':')
    arguments = options.format(out=tmp_path/'out', kit=tmp_path, data=tmp_path/'data').split()
    program = f'import resource, sys\nfrom {module} import {function}\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\nsys.exit({function}())'
    run = Running(program, *arguments, name=name).wait()
    assert run.returncode == 1 and 'writing failed' in run.stderr.splitlines()[-1] and 'Traceback' not in run.stderr, run.stderr
    assert run.stderr.count('\n') == 1 and not list(tmp_path.rglob('.writing-*'))

def test_stopped_while_torch_is_imported():
    "Ctrl-C before the command has begun is one line, too; a Python of somebody else keeps its own"
    for name in ('spice_train', 'mine'):
        program = f'import sys; sys.argv = ["/usr/bin/{name}"]; import spice; raise KeyboardInterrupt'
        run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT)
        assert run.returncode != 0 and (run.stderr == 'spice_train: stopped\n') == (name == 'spice_train'), run.stderr

def test_memory_stays_small(tmp_path):
    "Bombs of a few kilobytes, read one after the other in a process that may not grow by much"
    code = '''
import resource, sys
sys.path.insert(0, 'tests')
import test_attacks as t
from pathlib import Path
most, folder = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024, Path(sys.argv[1])
before = most()
for group, read in ((t.PICTURES, t.read_image), (t.PICKLES, lambda p: t.plain(t.read_pickle(p)))):
    for content, _ in group.values():
        (folder/'x').write_bytes(content)
        try: read(folder/'x')
        except t.SpiceError: pass
for end, content, _ in t.POSES.values():
    (folder/f'x{end}').write_bytes(content)
    try: t.read_keypoints(folder/f'x{end}', 256)
    except t.SpiceError: pass
print('megabytes', most() - before)
'''
    run = Running(code, tmp_path).wait()
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[-1]) < 500

# ---- the habit

OPENS = r'(?<![\w.])(?:np\.load|torch\.load|Image\.open|av\.open|load_file|safe_open|pickle\.load|loadmat)\('
WHERE = {'core.py': 'listed formats', 'files.py': 'the one place', 'body.py': 'the package\'s own file', 'prepare.py': 'after its size, inside `reading`',
         'protocols.py': 'its own bytes', 'widgets.py': 'its own bytes', 'film.py': 'it writes'}

def test_files_are_opened_in_one_place():
    "Whoever opens a user's file by other means than `spice.files` writes down why"
    found = {path.name for path in (ROOT/'spice').rglob('*.py') if re.search(OPENS, path.read_text(encoding='utf-8'))}
    assert found <= set(WHERE), f'{found - set(WHERE)}: open it with spice.files, or say here why not'

def test_text_is_utf8_wherever_it_is_read_or_written():
    "LC_ALL=C, or Windows, would take another"
    bare = re.compile(r"^(?!.*encoding=).*(\.write_text\(|\.read_text\(|open\([^)]*'[wa]')", re.M)
    found = {path.name: o.group() for path in (ROOT/'spice').rglob('*.py') for o in bare.finditer(path.read_text(encoding='utf-8')) if "av.open" not in o.group()}
    assert not found

# ---- mutations

def good_files(folder):
    "One good file for each reader"
    photo.save(folder/'a.png'), photo.save(folder/'a.jpg'), photo.save(folder/'a.webp'), photo.save(folder/'a.tif'), photo.save(folder/'a.gif'), photo.save(folder/'a.bmp')
    (folder/'a.json').write_text(json.dumps(person | dict(canvas_width=9, canvas_height=9)))
    np.save(folder/'a.npy', np.ones((18, 3)))
    np.savez_compressed(folder/'a.npz', a=np.ones((18, 3)))
    (folder/'a.pkl').write_bytes(pickle.dumps(dict(s=sparse, a=np.arange(30.).reshape(5, 6)), 2))
    torch.save({'w': torch.ones(9)}, folder/'a.pt')
    save_file({'w': torch.ones(9)}, folder/'a.safetensors')
    (folder/'config.json').write_text(config(width=8, backbone='resnet10', size=64, channels=16))
    return sorted(folder.iterdir())

def readers(path):
    if path.suffix in ('.json', '.npy', '.npz') and path.stem != 'config': return lambda: read_keypoints(path, 64)
    if path.suffix == '.pkl': return lambda: [plain(o) for o in read_pickle(path).values()]
    if path.suffix == '.pt': return lambda: read_state(path)
    from spice.files import read_safetensors
    from spice.weights import read_config
    return dict(config=lambda: read_config(path)).get(path.stem) or (lambda: read_safetensors(path)) if path.suffix in ('.safetensors', '.json') else lambda: read_image(path)

def fuzz(folder, seconds, seed=0):
    "Flipped, cut, doubled and overwritten bytes: each reader gives something or a line"
    rng, files, count, end = random.Random(seed), [(o, o.read_bytes()) for o in good_files(folder)], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        path, content = rng.choice(files)
        data = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            at, way = rng.randrange(len(data) or 1), rng.randrange(5)
            if way == 0 and data: data[at % len(data)] = rng.randrange(256)
            elif way == 1: del data[at:at + rng.choice((1, 4, 100))]
            elif way == 2: data[at:at] = data[max(0, at - 8):at]*rng.choice((1, 50))
            elif way == 3: data[at:at + 4] = rng.choice((b'\xff'*4, bytes(4), b'\x7f\xff\xff\xff', b'\0\0\0\x80'))
            else: data[at:at] = rng.choice((b'-', b'9'*40, b'[', b'"', b'e999', b'\0'))
        path.write_bytes(bytes(data))
        try: readers(path)()
        except SpiceError as e: assert '\n' not in str(e)
        except AttributeError as e: assert 'values' in str(e)                                 # the pickle became another thing
        count += 1
    return count

def test_fuzz_a_little(tmp_path, bad_input): assert fuzz(tmp_path, 1) > 20

@pytest.mark.long
@pytest.mark.parametrize('seed', range(3))
def test_fuzz_readers(tmp_path, seed, bad_input): assert fuzz(tmp_path, 200, seed + 1) > 1000
