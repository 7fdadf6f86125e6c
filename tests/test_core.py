"Pictures in, pictures out, files: every kind of good and bad input."
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from spice.core import (DataError, ImageError, SpiceError, cache_folder, file_hash, get_device, read_image, save_image, seeded, set_seed, show_images, to_pil,
                        to_tensor, writing)

def saved(image, format='PNG', **kwargs):
    "The bytes of a picture file"
    stream = io.BytesIO()
    image.save(stream, format, **kwargs)
    return stream.getvalue()

def huge_header(side=60_000):
    "A PNG that promises side x side pixels"
    chunk = b'IHDR' + struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk)) + struct.pack('>I', 0) + b'IDAT' + struct.pack('>I', zlib.crc32(b'IDAT'))

photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))

def file(name, content):
    "A maker of a bad file"
    def make(folder):
        (folder/name).write_bytes(content)
        return folder/name
    return make

BAD = {
    'missing file': (lambda folder: folder/'no.jpg', 'there is no such file'),
    'folder': (lambda folder: folder, 'is a folder'),
    'empty file': (file('empty.jpg', b''), 'the file is empty'),
    'truncated JPEG': (file('cut.jpg', saved(photo, 'JPEG')[:400]), 'damaged or cut off'),
    'text renamed to .png': (file('text.png', b'Dear all,\nplease find attached'), 'not a picture in a known format'),
    '60,000 x 60,000 header': (file('huge.png', huge_header()), 'too many pixels'),
    'no bytes': (lambda folder: b'', 'no bytes'),
    'wrong bytes': (lambda folder: b'\x00'*100, 'not a picture in a known format'),
    'cut PNG bytes': (lambda folder: saved(photo)[:-60], 'damaged or cut off'),
    'zero-sized array': (lambda folder: np.zeros((0, 8, 3), np.uint8), 'no pixels'),
    'zero-sized tensor': (lambda folder: torch.zeros(3, 8, 0), 'no pixels'),
    'zero-sized PIL image': (lambda folder: Image.new('RGB', (0, 5)), 'no pixels'),
    'NaN in an array': (lambda folder: np.full((8, 8, 3), np.nan), 'NaN'),
    'infinity in an array': (lambda folder: np.full((8, 8, 3), np.inf), 'NaN or infinite'),
    'NaN in a tensor': (lambda folder: torch.full((3, 8, 8), torch.nan), 'NaN'),
    'NaN in a float picture': (lambda folder: Image.fromarray(np.full((8, 8), np.nan, np.float32)), 'NaN'),
    'five channels': (lambda folder: np.zeros((8, 8, 5), np.uint8), '1, 3 or 4 channels'),
    'channels first array': (lambda folder: np.zeros((3, 8, 8), np.uint8), '1, 3 or 4 channels'),
    'two channels in a tensor': (lambda folder: torch.zeros(2, 8, 8), 'is no picture'),
    'four dimensions': (lambda folder: np.zeros((2, 8, 8, 3), np.uint8), 'is no picture'),
    'a batch': (lambda folder: torch.zeros(2, 3, 8, 8), 'one picture at a time'),
    'floats up to 255': (lambda folder: np.full((8, 8, 3), 200.), 'from 0 to 1'),
    'tensor up to 255': (lambda folder: torch.full((3, 8, 8), 200.), 'from -1 to 1'),
    'negative whole numbers': (lambda folder: np.full((8, 8, 3), -5), 'Give 0 to 255'),
    'complex numbers': (lambda folder: np.zeros((8, 8), complex), 'is no picture'),
    'None': (lambda folder: None, 'NoneType is no picture'),
    'a number': (lambda folder: 5, 'int is no picture'),
}

@pytest.mark.parametrize('name', BAD)
def test_bad_picture_gets_one_line(name, tmp_path, bad_input):
    make, says = BAD[name]
    with pytest.raises(ImageError) as e: read_image(make(tmp_path))
    line = str(e.value)
    assert says in line and '\n' not in line
    assert line.rstrip('.').count('. ') >= 1, f'no advice in: {line}'

@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBa', 'La', 'CMYK', 'YCbCr', 'LAB', 'HSV', 'I', 'F', 'I;16'])
def test_every_mode_is_taken(mode):
    image = Image.new(mode, (6, 4))
    out = read_image(image)
    assert out.mode == 'RGB' and out.size == (6, 4)

def test_grey_keeps_its_brightness_in_every_depth(tmp_path):
    for name, array in {'L': np.full((4, 4), 100, np.uint8), 'I;16': np.full((4, 4), 100*257, np.uint16), 'I': np.full((4, 4), 100*257, np.int32),
                        'F': np.full((4, 4), 100/255, np.float32), 'F up to 255': np.full((4, 4), 100, np.float32)}.items():
        assert read_image(Image.fromarray(array)).getpixel((0, 0)) == (100, 100, 100), name
    Image.fromarray(np.full((4, 4), 100*257, np.uint16)).save(tmp_path/'deep.png')
    assert read_image(tmp_path/'deep.png').getpixel((0, 0)) == (100, 100, 100)

def test_transparency_goes_on_white():
    palette = Image.new('P', (4, 4), 0)
    palette.putpalette([255, 0, 0] + [0]*765)
    data = saved(palette, transparency=0)
    assert read_image(data).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(Image.new('LA', (4, 4), (0, 0))).getpixel((0, 0)) == (255, 255, 255)

def test_cmyk_jpeg_keeps_its_colours():
    cmyk = Image.new('RGB', (16, 16), (200, 40, 60)).convert('CMYK')
    assert np.abs(np.subtract(read_image(saved(cmyk, 'JPEG', quality=95)).getpixel((8, 8)), (200, 40, 60))).max() <= 6

@pytest.mark.parametrize('orientation', range(1, 9))
def test_all_eight_orientations(orientation):
    upright = photo
    undo = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    stored = upright if undo is None else upright.transpose(undo)
    assert np.array_equal(np.asarray(read_image(saved(stored, exif=exif))), np.asarray(upright))

@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int64, np.float32, np.float64, bool])
def test_arrays_of_every_type(dtype):
    top = {np.uint8: 255, np.uint16: 65535, np.int64: 255, np.float32: 1, np.float64: 1, bool: 1}[dtype]
    assert read_image(np.full((4, 5, 3), top, dtype)).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(np.zeros((4, 5, 3), dtype)).getpixel((0, 0)) == (0, 0, 0)
    assert read_image(np.full((4, 5), top, dtype)).size == (5, 4)

def test_round_trip_through_the_network_range_is_exact():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    batch = to_tensor([ramp, ramp.transpose(1, 0, 2)])
    assert batch.min() == -1 and batch.max() == 1
    assert np.array_equal(np.asarray(to_pil(batch)[0]), ramp)
    assert torch.equal(to_tensor(batch), batch)

def test_bad_batches(bad_input):
    with pytest.raises(ImageError, match='empty list'): to_tensor([])
    with pytest.raises(ImageError, match='make no batch'): to_tensor([photo, photo.resize((8, 8))])
    with pytest.raises(ImageError, match='is no batch'): to_pil(torch.zeros(3, 8, 8))
    with pytest.raises(ImageError, match='NaN'): to_pil(torch.full((1, 3, 8, 8), torch.nan))
    with pytest.raises(ImageError, match='empty list'): show_images([])

def test_sheet_holds_every_picture():
    sheet = np.asarray(show_images([Image.new('RGB', (10, 10), c) for c in ('red', 'lime', 'blue')], ['a', 'b', 'c'], cols=2))
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)): assert (sheet == colour).all(-1).sum() == 100

def test_write_replaces_whole_files_only(tmp_path):
    target = tmp_path/'deep'/'file.txt'
    with writing(target) as f: f.write_text('old')
    with pytest.raises(RuntimeError):
        with writing(target) as f:
            f.write_text('half')
            raise RuntimeError
    assert target.read_text() == 'old' and [o.name for o in target.parent.iterdir()] == ['file.txt']
    target.chmod(0o640)
    with writing(target) as f: f.write_text('new')
    assert target.read_text() == 'new' and target.stat().st_mode & 0o777 == 0o640

def test_write_complains_in_one_line(tmp_path):
    (tmp_path/'file').write_text('x')
    with pytest.raises(DataError, match='can not write there'):
        with writing(tmp_path/'file'/'below'): pass

@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs a device that is always full')
def test_full_disk(tmp_path):
    with pytest.raises(DataError, match='No space left'):
        with writing(tmp_path/'a.bin'):
            with open('/dev/full', 'wb') as f: f.write(b'x'*100_000)
    assert list(tmp_path.iterdir()) == []

def test_kill_while_writing_keeps_the_old_file(tmp_path):
    target = tmp_path/'a.txt'
    target.write_text('old')
    code = f"import os\nfrom spice.core import writing\nwith writing({str(target)!r}) as f:\n    f.write_text('half')\n    os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == -9
    assert target.read_text() == 'old'

def test_bad_names_to_save(tmp_path):
    for name in ('picture', 'picture.xyz'):
        with pytest.raises(ImageError, match='End the name in'): save_image(photo, tmp_path/name)
    assert list(tmp_path.iterdir()) == []

def test_devices(monkeypatch):
    monkeypatch.setenv('SPICE_DEVICE', 'cpu')
    assert get_device() == torch.device('cpu')
    monkeypatch.setenv('SPICE_DEVICE', 'gpu')
    with pytest.raises(SpiceError, match='is no device'): get_device()
    assert get_device('cpu') == torch.device('cpu')
    with pytest.raises(SpiceError, match='not on this machine'): get_device('cuda:99')

def test_seeds_repeat_and_leave_no_trace():
    def draws(): return (float(torch.randn(1)), float(np.random.rand()), __import__('random').random())
    set_seed(3)
    a, b = draws(), draws()
    set_seed(3)
    assert draws() == a
    with seeded(3): assert draws() == a
    assert draws() == b

def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv('SPICE_HOME', str(tmp_path))
    assert cache_folder('a', 'b') == tmp_path/'a'/'b'
    monkeypatch.delenv('SPICE_HOME')
    assert cache_folder().name == 'spice'

def test_hash_tells_contents_apart(tmp_path):
    (tmp_path/'a').write_bytes(b'1')
    (tmp_path/'b').write_bytes(b'2')
    assert file_hash(tmp_path/'a') != file_hash(tmp_path/'b') and len(file_hash(tmp_path/'a')) == 16
