"""The models that ship: small enough, whole, of the figures on its card, and better than doing nothing."""
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from spice.core import SpiceError, packaged, to_pil
from spice.measure.evaluate import evaluate_rows, weights_hash
from spice.measure.results import read_results
from spice.reposer import Reposer
from spice.infer import demo_photos, repose
from spice.people.people_detector import PeopleDetector
from spice.regressor import Regressor
from spice.measure.shipped import STAGES, random_case, result_sheet, training_logs
from spice.train import SYSTEMS, load_system
from spice.weights import list_models

ROOT = Path(__file__).parent.parent

def test_is_whole_and_small():
    folder = packaged('models/people/config.json').parent
    files = {str(o.relative_to(folder)): o.stat().st_size for o in folder.rglob('*') if o.is_file()}
    assert {'README.md', 'model.safetensors', 'detector/model.safetensors', 'f_3d/model.safetensors', 'judge/model.safetensors', 'full/samples.jpg'} <= set(files)
    assert sum(files.values()) < 25e6 and max(files.values()) < 14e6 and list_models() == ['people', 'photos']
    photos = {o.name: o.stat().st_size for o in packaged('models/photos/config.json').parent.rglob('*') if o.is_file()}
    assert {'README.md', 'model.safetensors', 'config.json'} <= set(photos) and sum(photos.values()) < 15e6

def test_all_parts_load():
    system = SYSTEMS['spice'].from_pretrained('people', 'cpu')
    assert system.size == (64, 64) and not system.training and {'generator', 'critic', 'flow'} == set(system.parts())
    assert PeopleDetector('people/detector', 'cpu').net.name and Regressor.from_pretrained('people/f_3d', 'cpu').name

def test_a_folder_of_the_same_name_hides_no_model(tmp_path, monkeypatch):
    "Many have a folder `photos` beside them; only one with a model in it stands before the model that ships"
    for name in ('photos', 'people/detector'): (tmp_path/name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert load_system('photos', 'cpu').size == (256, 256) and PeopleDetector('people/detector', 'cpu').net.name
    (tmp_path/'photos'/'model.safetensors').write_bytes(b'of something else')
    assert load_system('photos', 'cpu').size == (256, 256), 'both files come from one place'
    (tmp_path/'photos'/'model.safetensors').unlink()
    (tmp_path/'photos'/'config.json').write_bytes(packaged('models/photos/config.json').read_bytes())
    with pytest.raises(SpiceError, match='photos holds no model.safetensors'): load_system('photos', 'cpu')

def test_card_and_figures_are_of_these_weights():
    found, card = read_results(ROOT/'benchmarks'/'results'/'people_model.json'), packaged('models/people/README.md').read_text()
    assert found[0].row == 'people' and found[0].system['weights'] == weights_hash(load_system('people', 'cpu')) and found[0].pairs['count'] == 1000
    for o in found: assert f"{o.values['lpips-people']['mean']:.3f}" in card, o.row
    assert all(training_logs()[o] for o in STAGES)

def test_beats_doing_nothing():
    rows = evaluate_rows(['people', 'copy-source', 'mean-image'], 'people-64', count=40, real=40, measures=['lpips-people', 'pck'], detector='people/judge', device='cpu')
    mine, copy, mean = ({k: v['mean'] for k, v in o.values.items()} for o in rows)
    assert mine['lpips-people'] < min(copy['lpips-people'], mean['lpips-people'])
    assert mine['lpips-people'] < 1.2 and mine['pck.all'] > .7 > .5 > max(copy['pck.all'], mean['pck.all'])

def test_repose_is_nearer_to_the_truth_than_the_source():
    "A photo and a pose; by the model that ships, and by SPICE with its own detector"
    source, target = demo_photos('arms_up', 19, 256, 'cpu')
    photo, alpha = to_pil(source.image)[0], Image.fromarray((source.parsing[0] > 0).byte().numpy()*255)
    off = lambda o: float(np.abs(np.asarray(o.resize((256, 256)), float) - np.asarray(to_pil(target.image)[0], float)).mean())
    made = repose(photo, target.keypoints, keypoints=source.keypoints, matte=alpha, retarget=False, device='cpu')
    small = repose(photo, target.keypoints, Reposer('people', detector='own', device='cpu'), retarget=False)
    assert made.size == (256, 256) and small.size == (64, 64)
    assert off(made) < .7*off(photo) and off(small) < .85*off(photo)

def test_sheets_are_the_same_each_time():
    a, b = (random_case(3, seed=4, device='cpu') for _ in range(2))
    assert a.names == b.names and len(set(a.names)) == 3 and random_case(3, seed=5, device='cpu').names != a.names
    assert np.array_equal(*(np.asarray(result_sheet('people', o)) for o in (a, b)))
