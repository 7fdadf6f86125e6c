"The promises of the README and the form of the notebooks."
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted(ROOT.glob('nbs/*.ipynb'))

def source(cell): return ''.join(cell['source'])
def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']

def test_readme_is_made_from_the_index():
    assert subprocess.run([sys.executable, ROOT/'.ci'/'readme.py', '--check']).returncode == 0

def test_ci_runs_the_lines_of_the_readme():
    readme, ci = (ROOT/'README.md').read_text(), (ROOT/'.ci'/'run').read_text()
    lines = [line for block in re.findall(r'```sh\n(.*?)```', readme, re.S) for line in block.strip().split('\n')]
    assert len(lines) == 2 and all(line in ci for line in lines)

@pytest.mark.parametrize('path', CHAPTERS, ids=lambda o: o.stem)
def test_chapter_has_the_form(path):
    all_cells = cells(path)
    assert re.match(r'# .+\n+> .+', source(all_cells[0])), 'the first cell is a title and one sentence'
    assert source(all_cells[1]).startswith('#| default_exp ')
    assert 'nbdev_export()' in source(all_cells[-1])
    for cell in all_cells:
        if cell['cell_type'] != 'code': continue
        text, lines = source(cell), [line for line in source(cell).split('\n') if line.strip()]
        for line in lines: assert len(line) <= 160, line
        if '#| export' in text:
            assert '#| slow' not in text and '#| cuda' not in text
            assert not re.search(r'^from \S+ import \*', text, re.M), 'a star import in an exported cell'
            assert len(lines) <= 45, f'an exported cell of {len(lines)} lines: {lines[1]}'

@pytest.mark.parametrize('path', CHAPTERS, ids=lambda o: o.stem)
def test_pictures_are_small(path):
    sizes = [len(data)*3//4 for cell in cells(path) for output in cell.get('outputs', []) for kind, data in output.get('data', {}).items() if kind.startswith('image/')]
    assert max(sizes, default=0) <= 100_000 and sum(sizes) <= 600_000, f'{path.name}: {sizes}'

def test_story_runs_one_way():
    "A chapter imports only from chapters before it"
    module_of = {source(cells(path)[1]).split()[-1]: path.name for path in CHAPTERS}
    for path in CHAPTERS:
        for cell in cells(path):
            if cell['cell_type'] != 'code' or '#| hide' in source(cell): continue
            for name in re.findall(r'^from spice\.(\w+) import', source(cell), re.M):
                assert module_of[name] < path.name, f'{path.name} imports spice.{name}, which comes later'

def test_no_trace_of_a_machine():
    words = re.compile('|'.join(['/ro' + 'ot/', '/tm' + 'p/', '/ho' + r'me/\w+/']))
    tracked = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode: pytest.skip('not a git checkout')
    for name in tracked.stdout.split('\n'):
        path = ROOT/name
        if not path.is_file() or path.suffix in ('.npz', '.png', '.jpg', '.webp', '.safetensors'): continue
        assert not words.search(path.read_text(encoding='utf-8')), f'{name} holds a path of somebody\'s machine'
