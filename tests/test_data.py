"""Preparing data: look-alikes of every dataset, bad files, interruption, several processes."""
import json, time
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from processes import Running, command
from spice.core import DataError
from spice.data import PHOTOS_AT_ONCE, Prepared, open_source, prepare
from spice.sources import DeepFashion, DefGan, FashionVideo, Market, PeoplePhotos, PhotoFolder
from spice.loaders import Paired
from spice.keypoints import Keypoints
from spice.measure.evaluate import evaluate
from spice.prepare import spice_prepare
from spice.sources import fit_canvas, flat_name, read_pairs

def person(width=176, height=256, seed=0, missing=()):
    "Eighteen plausible whole pixel numbers in a photo"
    rng = np.random.default_rng(seed)
    shape = np.array([[.5, .08], [.5, .18], [.42, .19], [.38, .32], [.37, .44], [.58, .19], [.62, .32], [.63, .44], [.45, .48], [.45, .68], [.45, .9], [.55, .48], [.55, .68], [.55, .9],
                      [.48, .06], [.52, .06], [.46, .07], [.54, .07]])
    points = np.floor(shape*[width, height] + rng.integers(-3, 4, (18, 2))).astype(int)
    points[list(missing)] = -1
    return points

def picture(path, size, seed=0, bars=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    inner = Image.fromarray(rng.integers(0, 200, (size[1]//8 + 1, size[0]//8 + 1, 3), dtype=np.uint8)).resize((size[0] - 2*bars, size[1]))
    image = Image.new('RGB', size, 'white')
    image.paste(inner, (bars, 0))
    image.save(path, quality=90)

def table(path, rows):
    lines = ['name:keypoints_y:keypoints_x'] + [f'{n}: {p[:, 1].tolist()}: {p[:, 0].tolist()}' for n, p in rows]
    path.write_text('\n'.join(lines) + '\n')

ORIGINALS = [f'MEN/Denim/id_{i:08d}/0{v}_{v}_{view}.jpg' for i in range(1, 16) for v, view in ((1, 'front'), (2, 'side'))]

def deepfashion(root, form='highres', frame='photo', width=None):
    "A look-alike with the field's names, quirks and lists"
    names = [flat_name(o) for o in ORIGINALS]
    sizes = dict(highres=(750, 1101), photos=(176, 256), bars=(256, 256))
    for i, (original, flat) in enumerate(zip(ORIGINALS, names)):
        picture(root/'img'/original if form == 'highres' else root/('train' if i < 20 else 'test')/flat, sizes[form], i, 40*(form == 'bars'))
    def framed(points):
        good = points[:, :1] >= 0
        if frame == 'bars': return np.where(good, points + [40, 0], -1)
        if frame == 'stretched': return np.where(good, np.floor(points*[256/176, 1]).astype(int), -1)
        return points
    rows = [(n, framed(person(seed=i, missing=(9, 10) if i == 3 else (17,) if i % 2 else ()))) for i, n in enumerate(names)]
    edge = person(seed=99); edge[4, 0], edge[7, 0] = 1, 174                              # hands at the border settle the frame
    rows[0], rows[21] = (names[0], framed(edge)), (names[21], framed(edge))
    table(root/'fasion-resize-annotation-train.csv', rows[:20] + [rows[2], ('fashionMENDenimid0000099901_1front.jpg', framed(person(seed=5)))])   # a row twice, a photo that isn't there
    table(root/'fasion-resize-annotation-test.csv', rows[20:])
    lists = names if form != 'highres' else ORIGINALS
    (root/'train.lst').write_text('\n'.join(lists[:20]) + '\nfashionWOMENTeesid0000000001_1front.jpg\n')
    (root/'test.lst').write_text('\n'.join(lists[20:]) + '\n')
    pairs = [(a, b) for a, b in zip(names[20::2], names[21::2])] + [(names[20], 'fashionMENDenimid0000099901_1front.jpg')]
    (root/'fasion-resize-pairs-test.csv').write_text('from,to\n' + '\n'.join(f'{a},{b}' for a, b in pairs) + '\n')
    return root

@pytest.mark.parametrize('form, frame, given', [('highres', 'photo', 'photo'), ('photos', 'photo', None), ('bars', 'bars', 'bars'), ('highres', 'stretched', None)])
def test_deepfashion_in_every_form(tmp_path, form, frame, given, capsys):
    source = DeepFashion(deepfashion(tmp_path/'df', form, frame), frame=given)
    prepare(source, tmp_path/'out')
    data = Prepared(tmp_path/'out')
    assert data.check() == [] and data.size == (256, 256)
    said = capsys.readouterr().err                                                      # notes aren't the result
    for words in ('train.lst: 21 here, 48,674 in the papers', 'test pairs: 6 here, 8,570', '1 names stand in it twice', 'annotated photos are not here', '1 of 6 pairs lack a photo'):
        assert words in said, words
    if given is None: assert f"frame '{frame}'" in said                                  # what it found is said
    assert len(data.splits['partial']) == 1 and len(data.splits['train']) + len(data.splits['valid']) == 19 and len(data.pairs['test']) == 5
    i = data.index[Path(flat_name(ORIGINALS[2])).stem]
    expected = person(seed=2)[:, 0] + 40
    assert np.abs(data.points[i, :, 0].numpy() - expected - .5).max() < 1.1               # all in the frame with bars, whatever the file's was
    assert (data.image(i)[:, :, :38] > .9).all() and (data.image(i)[:, :, 60:200] < .9).any()

def test_deepfashion_for_systems_that_learn_from_pairs(tmp_path):
    "The field's own training pairs, and people who are not seen from nose to knee"
    root, names = deepfashion(tmp_path/'df'), [flat_name(o) for o in ORIGINALS]
    pairs = [(names[0], names[1]), (names[2], names[3]), (names[4], names[5]), (names[20], names[21]), (names[6], 'fashionMENDenimid0000099901_1front.jpg')]
    (root/'fasion-resize-pairs-train.csv').write_text('from,to\n' + '\n'.join(f'{a},{b}' for a, b in pairs) + '\n')
    for whole in (True, False):
        source = DeepFashion(root, frame='photo', whole=whole)
        train, held = ({o.name for o in source.items if o.split == k} for k in ('train', 'valid'))
        assert sum(o.split == 'partial' for o in source.items) == whole
        stems = [(Path(a).stem, Path(b).stem) for a, b in pairs[:3]]
        assert source.pairs['train'] == [o for o in stems if set(o) <= train] and len(source.pairs['train']) >= 1
        assert (Path(names[3]).stem in train | held) != whole                            # the one without knees
    prepare(source, tmp_path/'out')
    assert Paired(Prepared(tmp_path/'out'), 'train').pairs

def defgan(root):
    "A look-alike of Siarohin et al.'s tables: no lists, their spelling, photos with bars"
    for i, original in enumerate(ORIGINALS): picture(root/'img'/original, (256, 256), i, 40)
    names = [flat_name(o).replace('fashion', 'fasion') for o in ORIGINALS]
    rows = [(n, np.where((p := person(seed=i, missing=(9, 10) if i == 3 else ()))[:, :1] >= 0, p + [40, 0], -1)) for i, n in enumerate(names)]
    rows[0][1][4, 0] = rows[20][1][4, 0] = 214
    for split, some in (('train', rows[:20]), ('test', rows[20:])): table(root/f'fasion-annotation-{split}.csv', some)
    for split, some in (('train', names[:20]), ('test', names[20:])):
        pairs = [f'{a},{b}' for i in range(0, len(some), 2) for a, b in ((some[i], some[i + 1]), (some[i + 1], some[i]))]
        (root/f'fasion-pairs-{split}.csv').write_text('from,to\n' + '\n'.join(pairs) + '\n')
    return root

def test_def_gans_split(tmp_path, capsys, bad_input):
    "Its tables are its lists; all people are trained on; only its own protocols take it"
    root = defgan(tmp_path/'raw')
    spice_prepare('defgan', str(tmp_path/'out'), root=str(root))
    said, data = capsys.readouterr().err, Prepared(tmp_path/'out')
    assert data.manifest['kind'] == 'defgan' and 'test pairs: 10 here, 8,670 in the papers' in said and "frame 'bars'" in said and 'nose to knee' not in said
    assert len(data) == 30 and len(data.splits['test']) == 10 and not data.splits.get('partial') and len(data.pairs['test']) == 10
    assert 14 <= len(data.pairs['train']) <= 16 and Path(flat_name(ORIGINALS[3])).stem in data.names       # two are held out, with their pairs
    i = data.index[Path(flat_name(ORIGINALS[3])).stem]
    assert np.abs(data.points[i, 0, 0].numpy() - person(seed=3)[0, 0] - 40.5) < .01 and data.points[i, 9, 2] == 0
    for name in ('defgan-256', 'dpt-256'):
        found = evaluate('copy-source', name, data=data, count=4, device='cpu', measures=('ssim',))
        assert found.pairs['data'] == 'defgan' and 0 < found.values['ssim']['mean'] < 1
    with pytest.raises(DataError, match='holds defgan. gfla-256 is for deepfashion'): evaluate('copy-source', 'gfla-256', data=data, device='cpu')
    with pytest.raises(DataError, match='there is no train.lst'): DeepFashion(root)
    (root/'fasion-pairs-test.csv').unlink()
    with pytest.raises(DataError, match='fasion-pairs-test.csv.*pose-gan'): DefGan(root)
    with pytest.raises(DataError, match='--no_whole with defgan'): spice_prepare('defgan', str(tmp_path/'b'), root=str(root), whole=False)

def test_deepfashion_says_which_file_is_missing(tmp_path, bad_input):
    root = deepfashion(tmp_path/'df')
    for name in ('fasion-resize-pairs-test.csv', 'fasion-resize-annotation-test.csv', 'train.lst'):
        (root/name).unlink()
        with pytest.raises(DataError, match=f'there is no {name}.*mmlab'): DeepFashion(root, frame='photo')

def test_frame_is_never_guessed(tmp_path, bad_input):
    "A table that fits two frames is refused"
    root = deepfashion(tmp_path/'df', 'highres')
    table(root/'fasion-resize-annotation-train.csv', [(flat_name(ORIGINALS[0]), person(seed=1))])
    with pytest.raises(DataError, match='fits more than one frame'): DeepFashion(root)

def test_market(tmp_path, capsys):
    root, names = tmp_path/'market', [f'{i:04d}_c1s1_000{v}51_00.jpg' for i in range(1, 6) for v in (1, 2)]
    for i, n in enumerate(names): picture(root/('bounding_box_train' if i < 6 else 'bounding_box_test')/n, (64, 128), i)
    rows = [(n, person(64, 128, i, missing=range(18) if i == 4 else ())) for i, n in enumerate(names)]
    table(root/'market-annotation-train.csv', rows[:6]); table(root/'market-annotation-test.csv', rows[6:])
    (root/'market-pairs-test.csv').write_text('from,to\n' + f'{names[6]},{names[7]}\n')
    gone = '0009_c1s1_000151_00.jpg'                                                     # pairs of photos that are not here, or not known, or of the test, are left out
    pairs = [(names[0], names[1]), (names[1], names[0]), (names[2], gone), (names[4], names[5]), (names[6], names[7])]
    (root/'market-pairs-train.csv').write_text('from,to\n' + ''.join(f'{a},{b}\n' for a, b in pairs))
    prepare(Market(root), tmp_path/'out')
    data = Prepared(tmp_path/'out')
    assert data.pairs['train'] == [[names[0][:-4], names[1][:-4]], [names[1][:-4], names[0][:-4]]] and len(Paired(data, 'train')) == 2
    (root/'market-pairs-train.csv').unlink()
    assert 'train' not in Market(root).pairs                                              # then pairs are drawn from the photos
    assert data.size == (128, 64) and len(data) == 9 and data.pairs['test'] == [[names[6][:-4], names[7][:-4]]]
    assert json.loads((tmp_path/'out'/'skipped.json').read_text()) == [[names[4][:-4], 'no joint is known']]
    assert '12,000 in the papers' in capsys.readouterr().err

class Everybody:
    "A detector that always finds the same person"
    def __call__(self, images):
        h, w = images.shape[2:]
        return [Keypoints(torch.tensor(np.c_[person(w, h), np.ones(18)], dtype=torch.float32)[None], (h, w)) for _ in images]

def video(path, frames, size=(64, 96)):
    av = pytest.importorskip('av')
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as out:
        stream = out.add_stream('mpeg4', rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, 'yuv420p'
        for k in range(frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 10*k % 255, np.uint8))): out.mux(packet)
        for packet in stream.encode(): out.mux(packet)

def test_fashion_video(tmp_path, capsys):
    root = tmp_path/'video'
    for name, frames in (('a', 12), ('b', 7)): video(root/'files'/f'{name}.mp4', frames)
    (root/'files'/'c.mp4').write_bytes(b'no video')
    (root/'fashion_train.txt').write_text('https://example.org/x/a.mp4\nhttps://example.org/x/c.mp4\nhttps://example.org/x/gone.mp4\n')
    (root/'fashion_test.txt').write_text('https://example.org/x/b.mp4\n')
    source = FashionVideo(root, 64, every=5)
    prepare(source, tmp_path/'out', detector=Everybody())
    data = Prepared(tmp_path/'out')
    assert data.names == ['a_0000', 'a_0005', 'a_0010', 'b_0000', 'b_0005'] and data.groups == ['a']*3 + ['b']*2
    said = capsys.readouterr().err                                                      # notes aren't the result
    assert 'such as gone.mp4' in said and 'c.mp4 is no film, or damaged' in said and '500 in the papers' in said

def test_folder_of_photos(tmp_path):
    "Any size, keypoints beside them or found"
    for k, size in enumerate([(300, 200), (90, 400), (64, 64)]): picture(tmp_path/'mine'/f'photo {k}.jpg', size, k)
    np.save(tmp_path/'mine'/'photo 0.npy', np.c_[person(300, 200), np.ones(18)])
    prepare(PhotoFolder(tmp_path/'mine', (128, 96)), tmp_path/'out', detector=Everybody())
    data = Prepared(tmp_path/'out')
    assert data.names == ['photo_0', 'photo_1', 'photo_2'] and data.size == (128, 96)
    assert ((data.points[..., 0] >= 0) & (data.points[..., 0] <= 96)).all()
    image, moved = fit_canvas(Image.new('RGB', (300, 200)), Keypoints(torch.tensor([[[150., 100, 1]]*18]), (200, 300)), (128, 96))
    assert image.size == (96, 128) and (moved.points[0, 0, :2] - torch.tensor([48., 64])).abs().max() < .6

def same(a, b):
    "Two prepared folders hold the same"
    left, right = Prepared(a), Prepared(b)
    assert left.manifest['hash'] == right.manifest['hash'] and left.splits == right.splits and left.pairs == right.pairs
    for k in ('rotmats', 'betas', 'translation'): assert torch.equal(left.bodies[k], right.bodies[k])
    for i in range(len(left)): assert left.path(i).read_bytes() == right.path(i).read_bytes()

def test_two_processes_make_the_same_table(tmp_path):
    source = lambda: PeoplePhotos(64, train=34, valid=0, test=0)
    assert len(source()) > 2*PHOTOS_AT_ONCE
    prepare(source(), tmp_path/'one')
    prepare(source(), tmp_path/'two', 1, 2)
    with pytest.raises(DataError, match='is not finished'): Prepared(tmp_path/'two')
    prepare(source(), tmp_path/'two', 0, 2)
    same(tmp_path/'one', tmp_path/'two')

def test_the_same_bytes_whatever_was_made_before():
    "A photo asked for by itself, or after the others; splits that end within a group"
    ordered, single = PeoplePhotos(64, train=5, valid=4, test=0), PeoplePhotos(64, train=5, valid=4, test=0)
    photos = [ordered.shots(i)[0] for i in range(len(ordered))]
    for i in (17, 9, 10, 3):
        shot, = single.shots(i)
        assert shot.image.tobytes() == photos[i].image.tobytes() and torch.equal(shot.keypoints.points, photos[i].keypoints.points)
        assert shot.matte.tobytes() == photos[i].matte.tobytes() and shot.matte.getextrema() == (0, 255)
        assert all(torch.equal(shot.body[k], photos[i].body[k]) for k in shot.body)

def test_killed_and_started_again(tmp_path):
    "Killed after its first chunk; the second start makes the rest and the same tables"
    threads = 1 if torch.get_num_threads() > 1 else 3                                     # another number than here: the bytes are the same
    code = f"""
import torch; torch.set_num_threads({threads})
from spice.sources import PeoplePhotos
from spice.data import prepare
prepare(PeoplePhotos(64, train=40, valid=0, test=0), {str(tmp_path/'out')!r})"""
    run = Running(code)
    first = tmp_path/'out'/'parts'/'00000.npz'
    for _ in range(1200):
        if first.exists() or run.returncode is not None: break
        time.sleep(.1)
    run.kill()
    assert first.exists()
    if (tmp_path/'out'/'manifest.json').exists(): pytest.skip('it was faster than the signal')
    stamp = first.stat().st_mtime_ns
    prepare(PeoplePhotos(64, train=40, valid=0, test=0), tmp_path/'out')
    assert first.stat().st_mtime_ns == stamp                                              # kept
    prepare(PeoplePhotos(64, train=40, valid=0, test=0), tmp_path/'whole')
    same(tmp_path/'out', tmp_path/'whole')

def test_bad_folders(tmp_path, bad_input):
    for path, says in ((tmp_path/'nowhere', 'is no folder'), (tmp_path, 'holds no pictures')):
        with pytest.raises(DataError, match=says): PhotoFolder(path)
    with pytest.raises(DataError, match='is no prepared dataset'): Prepared(tmp_path)
    with pytest.raises(DataError, match='no kind of data'): open_source('films', tmp_path)
    with pytest.raises(DataError, match='process 2 of 2'): prepare(PeoplePhotos(64, 1, 0, 0), tmp_path/'x', 2, 2)
    with pytest.raises(DataError, match='line 3 is no pair'):
        (tmp_path/'pairs.csv').write_text('from,to\na.jpg,b.jpg\nc.jpg\n')
        read_pairs(tmp_path/'pairs.csv')

def test_names_stay_in_the_folder(tmp_path, bad_input):
    source = PeoplePhotos(64, 1, 0, 0)
    source.items[0].name = '../../out'
    with pytest.raises(DataError, match='no plain file name'): prepare(source, tmp_path/'out')
    assert not list(tmp_path.rglob('*.png'))
    twins = PeoplePhotos(64, 1, 0, 0)
    twins.items[0].name = twins.items[1].name
    with pytest.raises(DataError, match='names stand for several photos'): prepare(twins, tmp_path/'twins')

def test_a_changed_table_is_noticed(tmp_path, bad_input):
    prepare(PeoplePhotos(64, 1, 0, 0), tmp_path/'out')
    with np.load(tmp_path/'out'/'keypoints.npz') as f: table = {k: f[k] for k in f.files}
    table['points'][0, 0, 0] += 1
    np.savez(tmp_path/'out'/'keypoints.npz', **table)
    with pytest.raises(DataError, match='not the table that the manifest names'): Prepared(tmp_path/'out')

def test_a_missing_picture_is_listed(tmp_path):
    prepare(PeoplePhotos(64, 1, 0, 0), tmp_path/'out')
    data = Prepared(tmp_path/'out')
    data.path(1).unlink()
    assert len(data.check()) == 1 and 'is missing' in data.check()[0]

def test_command(tmp_path):
    folder = spice_prepare('people', str(tmp_path/'p'), size=64, train=2, valid=1, test=1)
    assert len(Prepared(folder)) == 8
    run = command('spice_prepare', 'folder', tmp_path/'q', '--root', tmp_path/'nowhere')
    assert run.returncode == 1 and run.stderr.count('\n') == 1 and 'is no folder' in run.stderr
