"Commands as a user runs them: help, one line for a mistake, exit codes; and what importing costs."
import inspect
import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from fastcore.script import anno_parser
from PIL import Image
from processes import COMMANDS, command

ROOT = Path(__file__).parent.parent

@pytest.mark.parametrize('name', COMMANDS)
def test_help_has_an_example(name):
    out = command(name, '--help')
    assert out.returncode == 0 and 'Example' in out.stdout

def written_lines():
    "All lines that call one of the commands, in the README, the chapters and the examples of help"
    texts = [(ROOT/'README.md').read_text(encoding='utf-8')]
    for path in sorted(ROOT.glob('nbs/**/*.ipynb')):
        texts += [''.join(o['source']) for o in json.loads(path.read_text(encoding='utf-8'))['cells'] if o['cell_type'] == 'markdown']
    lines = [line for text in texts for block in re.findall(r'```(?:bash|sh)\n(.*?)```', text, re.S) for line in re.split(r'\n|&&', block)]
    lines += [re.split('Example: ', function(name).__doc__)[1] for name in COMMANDS]
    return sorted({re.split(r' [#>|] ?', o.strip())[0] for o in lines if o.strip().split(' ')[0] in COMMANDS})

def function(name):
    module, _, attribute = COMMANDS[name].partition(':')
    return inspect.unwrap(getattr(import_module(module), attribute))

@pytest.mark.parametrize('line', written_lines())
def test_written_lines_are_understood(line):
    "By the parser of the command; nothing is run"
    name, *words = shlex.split(line)
    anno_parser(function(name), prog=name).parse_args(words)

def test_demo_writes_a_picture(tmp_path):
    "The installed script itself, in a process that starts from nothing"
    out = subprocess.run([str(Path(sys.executable).parent/'spice_demo')], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert (tmp_path/'spice_demo.png').stat().st_size > 1000 and 'in the pose "walk"' in out.stdout

def test_mistakes_end_in_one_line(tmp_path):
    out = command('spice_demo', '--pose', 'flying', cwd=tmp_path)
    assert out.returncode == 1 and out.stderr.count('\n') == 1 and out.stderr.startswith('spice_demo: ')
    assert list(tmp_path.iterdir()) == []
    out = command('spice_demo', '--out', tmp_path/'picture.nope')
    assert out.returncode == 1 and 'no picture format' in out.stderr

@pytest.fixture
def sky(tmp_path):
    "A folder with a photo of nobody"
    Image.new('RGB', (200, 300), (200, 220, 255)).save(tmp_path/'sky.png')
    return tmp_path

def test_photo_of_nobody_is_refused(sky):
    out = command('spice_repose', 'sky.png', 'walk', '--device', 'cpu', cwd=sky)
    assert out.returncode == 1
    assert out.stderr == 'spice_repose: 1 could not be made. See the lines above\n'
    count, problem = out.stdout.splitlines()
    assert count == '0 pictures in reposed' and problem.startswith('sky.png: nobody was found')
    assert not list((sky/'reposed').glob('*'))

def test_warnings_are_one_line(sky):
    "The model's own detector finds somebody in a sky: the model does something, and says that it doubts"
    out = command('spice_repose', 'sky.png', 'walk', '--model', 'people', '--device', 'cpu', '--detector', 'own', cwd=sky)
    assert out.returncode == 0 and out.stderr.startswith('spice_repose: the body may be wrong') and out.stderr.count('\n') == 1
    assert [path.name for path in (sky/'reposed').iterdir()] == ['sky_walk.png']

def test_checks_prints_a_table_and_json():
    out = command('spice_checks')
    assert out.returncode == 0 and 'torch' in out.stdout and 'licence' in out.stdout
    rows = json.loads(command('spice_checks', '--json').stdout)
    assert {'Python', 'device', 'free body', 'your SMPL file', 'pytorch3d'} <= {o['what'] for o in rows}
    assert all(o['todo'] for o in rows if o['state'] != 'ok')

def test_checks_sees_what_is_missing(tmp_path):
    env = {'SPICE_HOME': str(tmp_path/'home'), 'SPICE_DEVICE': 'nonsense', 'PATH': '/usr/bin:/bin'}
    rows = {o['what']: o for o in json.loads(command('spice_checks', '--json', env=env).stdout)}
    assert rows['device']['state'] == 'missing' and str(tmp_path) in rows['your SMPL file']['todo']

def test_import_spice_is_light():
    "Nothing but what comes with Python"
    code = "import sys; before = set(sys.modules); import spice; print(*{o.split('.')[0] for o in set(sys.modules) - before})"
    loaded = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert 'spice' in loaded and set(loaded) <= {'spice'} | sys.stdlib_module_names

def test_keypoints_do_not_pull_in_torchvision_models():
    code = "import spice.keypoints, sys; print('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'False'
