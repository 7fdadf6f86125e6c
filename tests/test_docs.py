"The website up to Quarto: one processed page a chapter, each a notebook that Quarto can read, with links and pictures that exist."
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted(ROOT.glob('nbs/*.ipynb'), key=lambda path: (path.stem != '00_spice', path.name)) # the opening comes first

@pytest.fixture(scope='session')
def pages(tmp_path_factory):
    "All pages, processed in a copy of the repository"
    copy = tmp_path_factory.mktemp('docs')/'spice'
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.venv', '.git', '_*cache*', '_data', '_ckpt', '_docs', '_proc', '__pycache__', 'build', '*.egg-info'))
    out = subprocess.run([sys.executable, '.ci/docs.py'], cwd=copy, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr
    return copy/'_proc'

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']

def contents(section):
    "Every page that a sidebar names, in its order"
    for item in section:
        if isinstance(item, str): yield item
        else: yield from contents(item['contents'])

def test_sidebar_tells_the_story_in_order():
    sidebar = list(contents(yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']['sidebar']['contents']))
    assert sidebar == ['index.ipynb'] + [f'nbs/{o.name}' for o in CHAPTERS]

def test_one_page_a_chapter_and_no_stray_file(pages):
    files = {str(o.relative_to(pages)) for o in pages.rglob('*') if o.is_file()}
    wanted = {'index.ipynb', '_quarto.yml', 'nbdev.yml', 'nbs/spice.scss'} | {f'nbs/{o.name}' for o in CHAPTERS}
    wanted |= {str(o.relative_to(ROOT)) for o in ROOT.glob('nbs/images/*')}
    assert files == wanted

def test_pages_are_notebooks_that_quarto_reads(pages):
    for page in pages.rglob('*.ipynb'):
        notebook = json.loads(page.read_text(encoding='utf-8'))
        assert notebook['nbformat'] == 4
        for cell in notebook['cells']:
            assert cell['cell_type'] in ('markdown', 'code', 'raw')
            assert isinstance(cell['source'], list) and all(isinstance(line, str) for line in cell['source']), f'{page.name}: a cell whose source is no list of lines'
            assert all(line.endswith('\n') for line in cell['source'][:-1])
            if cell['cell_type'] == 'code': assert isinstance(cell['outputs'], list) and 'execution_count' in cell
            for output in cell.get('outputs', []): assert output['output_type'] != 'error', f'{page.name} shows an error'
        assert ''.join(notebook['cells'][0]['source']).startswith('---'), f'{page.name} has no front matter'

def test_links_and_pictures_exist(pages):
    for page in pages.rglob('*.ipynb'):
        for cell in cells(page):
            if cell['cell_type'] != 'markdown': continue
            for target in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`]*`|\$[^$]*\$', '', ''.join(cell['source']))):
                if re.match(r'https?://|mailto:|#', target): continue
                path = page.parent/target.split('#')[0]
                if path.suffix == '.html': path = path.with_suffix('.ipynb')
                assert path.exists(), f'{page.name}: {target} is not there'

def test_exported_functions_are_documented_on_their_page(pages):
    text = ''.join(''.join(o['source']) + str(o.get('outputs', '')) for o in cells(pages/'nbs'/'00_core.ipynb'))
    for name in ('read_image', 'get_device', 'cache_folder'): assert name in text

def test_front_page_and_colours_exist():
    quarto = yaml.safe_load((ROOT/'_quarto.yml').read_text())
    assert (ROOT/quarto['website']['image']).exists()
    for theme in quarto['format']['html']['theme']: assert theme == 'cosmo' or (ROOT/theme).exists()
