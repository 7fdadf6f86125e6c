"The detector without its weights: what it looks for, what it says, how batches and sizes are put together."
from urllib.error import URLError

import pytest
import torch
from PIL import Image

from spice import detector
from spice.core import ImageError, WeightsError
from spice.detector import RCNN_FILE, Detector, RCNNDetector, detect, people_of
from spice.keypoints import Keypoints, cat_keypoints, named_skeleton

class Pretend(Detector):
    "Finds one walker per batch place, and remembers the batches it got"
    def __init__(self): self.batches = []
    def __call__(self, images):
        self.batches.append(tuple(images.shape))
        return [named_skeleton('walk', tuple(images.shape[2:])) for _ in images]

def offline(*args, **kwargs): raise URLError('no internet')

def test_without_weights_and_offline_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('SPICE_HOME', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path/'hub'))
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', offline)
    with pytest.raises(WeightsError) as e: RCNNDetector(device='cpu')
    assert RCNN_FILE in str(e.value) and str(tmp_path/'weights') in str(e.value) and '\n' not in str(e.value)

def test_weights_are_found_in_the_cache_folder_first(tmp_path, monkeypatch):
    monkeypatch.setenv('SPICE_HOME', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', offline)
    (tmp_path/'weights').mkdir()
    torch.save({'a': torch.ones(2)}, tmp_path/'weights'/RCNN_FILE)
    assert detector._rcnn_weights(None)['a'].sum() == 2
    with pytest.raises(WeightsError, match='does not hold the weights'): RCNNDetector(device='cpu')

def test_no_pickle_is_run(tmp_path):
    import os
    class Evil:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'mark'),)
    torch.save({'a': Evil()}, tmp_path/'evil.pth')
    with pytest.raises(WeightsError, match='can not be read'): RCNNDetector(tmp_path/'evil.pth')
    assert not (tmp_path/'mark').exists()

def test_photos_of_one_size_go_through_together():
    net = Pretend()
    photos = [Image.new('RGB', size) for size in ((40, 60), (50, 50), (40, 60), (40, 60))]
    found = detect(photos, detector=net, batch=2)
    assert sorted(net.batches) == [(1, 3, 50, 50), (1, 3, 60, 40), (2, 3, 60, 40)]
    assert [o.size for o in found] == [(60, 40), (50, 50), (60, 40), (60, 40)]

def test_several_people():
    class Two(Detector):
        def __call__(self, images):
            walk = named_skeleton('walk', 64)
            return [cat_keypoints([walk.resize(32).pad(right=32, bottom=32), walk])]
    assert torch.allclose(detect(Image.new('RGB', (64, 64)), detector=Two())[0].points, named_skeleton('walk', 64).points, atol=1e-4)
    assert len(detect(Image.new('RGB', (64, 64)), 'all', Two())[0]) == 2
    with pytest.raises(ImageError, match="Give 'largest' or 'all'"): detect(Image.new('RGB', (64, 64)), 'first', Two())

@pytest.mark.parametrize('points', [torch.zeros(0, 18, 3), torch.zeros(1, 18, 3)])
def test_nobody_there(points):
    class Blind(Detector):
        def __call__(self, images): return [Keypoints(points, tuple(images.shape[2:]))]
    with pytest.raises(ImageError, match='nobody was found in photo 0'): detect(Image.new('RGB', (64, 64)), detector=Blind())

def test_unsure_people_and_joints_are_left_out():
    output = dict(scores=torch.tensor([.95, .71, .69]), keypoints=torch.rand(3, 17, 3), keypoints_scores=torch.tensor([[2.1]*17, [1.9]*17, [9.]*17]))
    people = people_of(output, (9, 9))
    assert len(people) == 2 and people.valid[0].all() and not people.valid[1].any()
