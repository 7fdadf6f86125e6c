"Readers against what hypothesis thinks of, for ten minutes: `pytest -m long -n 0 tests/test_fuzz.py`. Each gives something or a line."
import io
import json
import pickle
import struct
import time
import zipfile

import pytest
from PIL import Image
from test_attacks import npy, png, zipped

from spice.core import SpiceError, read_image
from spice.measure.results import read_result
from spice.files import open_film, plain, read_arrays, read_json, read_pickle, read_safetensors, read_torch
from spice.pose_files import read_annotations, read_keypoints, read_pose
from spice.weights import read_config

hypothesis = pytest.importorskip('hypothesis')
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

SECONDS = 100 # of each of six
numbers = st.one_of(st.floats(), st.integers(), st.sampled_from([0, 1, -1, 18, 54, 75, 2**31, 2**63, 1e308, 10**400]))
words = st.one_of(st.text(max_size=8), st.sampled_from(['people', 'pose_keypoints_2d', 'canvas_width', 'canvas_height', 'network', 'settings', 'width', 'size', 'row', 'protocol',
                                                        'values', 'pairs', 'real', 'hash', 'count', 'names', 'JointNet', 'people-64']))
things = st.recursive(st.one_of(st.none(), st.booleans(), numbers, words), lambda o: st.one_of(st.lists(o, max_size=6), st.dictionaries(words, o, max_size=6)), max_leaves=40)
triples = st.lists(st.one_of(numbers, st.just('nan')), min_size=50, max_size=80)
openpose = st.fixed_dictionaries(dict(people=st.lists(st.fixed_dictionaries(dict(pose_keypoints_2d=triples)), max_size=3)), optional=dict(canvas_width=things, canvas_height=things))
shapes = st.lists(st.one_of(st.integers(-2, 40), st.sampled_from([2**31, 2**62])), max_size=5).map(tuple)
kinds = st.one_of(st.sampled_from(['<f8', '>f4', '|b1', '<i8', '<U4', '|O', '|V8', '<c16', '<M8[s]', '|S0']), st.text(max_size=5))
arrays = st.builds(lambda shape, kind, content: npy(str(shape), kind, content), shapes, kinds, st.binary(max_size=600))

def goes_on(test, tmp_path):
    "New examples until the time is over"
    end = time.monotonic() + SECONDS
    while time.monotonic() < end: test()

def every(*strategies):
    "Examples, one after the other, in one temporary folder"
    return lambda f: settings(max_examples=200, deadline=10_000, database=None, suppress_health_check=list(HealthCheck))(given(*strategies)(f))

def a_line_at_worst(read, path, content):
    path.write_bytes(content)
    try: read(path)
    except SpiceError as e: assert '\n' not in str(e) and len(str(e)) < 2000

def as_json(o): return json.dumps(o, default=str).encode()

pytestmark = [pytest.mark.long, pytest.mark.usefixtures('bad_input')]

def test_json(tmp_path):
    @every(st.one_of(things, openpose))
    def one(o):
        for read in (read_json, read_keypoints, lambda p: read_keypoints(p, 64), read_pose, read_config, read_result): a_line_at_worst(read, tmp_path/'o.json', as_json(o))
    goes_on(one, tmp_path)

def test_text(tmp_path):
    @every(st.one_of(st.text(max_size=300).map(str.encode), st.binary(max_size=300), st.lists(triples, max_size=3).map(lambda o: '\n'.join(f'a: {r[:18]}: {r[18:36]}' for r in o).encode())))
    def one(o):
        for read, end in ((read_json, 'json'), (read_annotations, 'csv'), (read_keypoints, 'json')): a_line_at_worst(read, tmp_path/f'o.{end}', o)
    goes_on(one, tmp_path)

def test_arrays(tmp_path):
    @every(arrays, st.sampled_from(['a', 'candidate', 'score', 'names']), arrays)
    def one(a, name, b):
        a_line_at_worst(lambda p: read_keypoints(p, 64), tmp_path/'o.npy', a)
        for read in (read_arrays, read_pose): a_line_at_worst(read, tmp_path/'o.npz', zipped(**{'candidate': a, name: b}))
    goes_on(one, tmp_path)

def test_pickles(tmp_path):
    codes = st.one_of(*(st.just(o) for o in (b'(', b')', b']', b'}', b'.', b'0', b'1', b'2', b't', b'l', b'd', b'a', b'e', b's', b'u', b'b', b'R', b'N', b'\x85', b'\x86', b'\x87', b'\x93', b'\x94', b'q\0', b'h\0', b'p0\n', b'g0\n')),
                      st.integers(-2**31, 2**31 - 1).map(lambda o: b'J' + struct.pack('<i', o)), st.binary(max_size=9).map(lambda o: b'U' + bytes([len(o)]) + o), st.text(max_size=6).map(lambda o: b'\x8c' + bytes([len(o.encode())]) + o.encode()),
                      st.sampled_from(['numpy\nndarray', 'numpy\ndtype', 'numpy.core.multiarray\n_reconstruct', 'scipy.sparse.csc\ncsc_matrix', 'chumpy.ch\nCh', 'os\nsystem', 'copy_reg\n_reconstructor', '__builtin__\nobject']).map(lambda o: b'c' + o.encode() + b'\n'))
    def all_plain(found):
        for o in found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else [found]: plain(o)
    @every(st.one_of(st.lists(codes, max_size=40).map(lambda o: b'\x80\x02' + b''.join(o) + b'.'), things.map(lambda o: pickle.dumps(o)), st.binary(max_size=200)))
    def one(o): a_line_at_worst(lambda p: all_plain(read_pickle(p)), tmp_path/'o.pkl', o)
    goes_on(one, tmp_path)

def test_pictures(tmp_path):
    def with_tag(tag, kind, count, value):
        exif = b'Exif\0\0MM\0*\0\0\0\x08\0\1' + struct.pack('>HHII', tag, kind, count, value) + bytes(8)
        out = io.BytesIO()
        Image.new('RGB', (9, 7)).save(out, 'JPEG', exif=exif)
        return out.getvalue()
    tags = st.builds(with_tag, st.sampled_from([0x112, 0x8769, 0x8825, 0x100]), st.integers(0, 15), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    pngs = st.builds(lambda w, h, data, more: png(w, h, data, more), st.integers(0, 2**31 - 1), st.integers(0, 100), st.binary(max_size=400), st.sampled_from([b'', b'\0\0\0\0IEND\xaeB`\x82']))
    floats = st.lists(st.floats(width=32), min_size=12, max_size=12).map(lambda o: b'II*\0' + struct.pack('<I', 8) + b'')
    @every(st.one_of(tags, pngs, floats, st.binary(max_size=100), st.builds(lambda head, rest: head + rest, st.sampled_from([b'\xff\xd8\xff', b'GIF89a', b'BM', b'RIFF\0\0\0\0WEBP', b'II*\0', b'P6\n', b'%!PS']), st.binary(max_size=200))))
    def one(o): a_line_at_worst(read_image, tmp_path/'o.jpg', o)
    goes_on(one, tmp_path)

def test_weights_and_films(tmp_path):
    def safe(table, rest): return struct.pack('<Q', len(as_json(table))) + as_json(table) + rest
    entries = st.dictionaries(words, st.fixed_dictionaries(dict(dtype=st.sampled_from(['F32', 'F16', 'I64', 'BOOL', 'X']), shape=st.lists(st.integers(0, 2**40), max_size=4), data_offsets=st.lists(st.integers(0, 2**40), max_size=3))), max_size=3)
    def zip_of(parts):
        out = io.BytesIO()
        with zipfile.ZipFile(out, 'w') as z:
            for name, content in parts.items(): z.writestr(name or 'x', content)
        return out.getvalue()
    @every(st.builds(safe, entries, st.binary(max_size=64)), st.dictionaries(st.sampled_from(['archive/data.pkl', 'archive/version', 'archive/data/0', 'archive/byteorder']), st.binary(max_size=99), max_size=4),
           st.builds(lambda head, rest: head + rest, st.sampled_from([b'\0\0\0\x18ftypmp42', b'\x1aE\xdf\xa3', b'GIF89a', b'RIFF\0\0\0\0AVI LIST', b'OggS', b'G' + bytes(187) + b'G', b'#EXTM3U\n']), st.binary(max_size=600)))
    def one(a, b, c):
        a_line_at_worst(read_safetensors, tmp_path/'o.safetensors', a)
        a_line_at_worst(read_torch, tmp_path/'o.pt', zip_of(b))
        a_line_at_worst(lambda p: open_film(p).close(), tmp_path/'o.mp4', c)
    goes_on(one, tmp_path)

